//! Runs the motrain binary as a user would.

pub mod server;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// The folder of binaries and libraries that tests are built into.
fn built() -> PathBuf {
    let tests = std::env::current_exe().expect("the test has a path");
    tests.ancestors().nth(2).expect("tests lie in target/<profile>/deps").to_owned()
}

/// A plugin of the workspace.
pub fn library(name: &str) -> PathBuf {
    let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    built().join(file)
}

/// Compiles a plugin of tests/fixtures into a folder.
pub fn fixture(folder: &Path, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let include = root().join("plugins/abi/include");
    compile(&root().join("tests/fixtures").join(source), &include, &folder.join(name), flags)
}

/// Compiles a plugin in C or C++.
pub fn compile(source: &Path, include: &Path, to: &Path, flags: &[&str]) -> PathBuf {
    let (variable, usual) = if source.extension().is_some_and(|e| e == "cpp") { ("CXX", "c++") } else { ("CC", "cc") };
    let mut command = Command::new(std::env::var(variable).unwrap_or_else(|_| usual.into()));
    command.args(["-shared", "-fPIC", "-I"]).arg(include).args(flags).arg(source).arg("-o").arg(to);
    let output = command.output().expect("a C compiler");
    assert!(output.status.success(), "{}", text(&output.stderr));
    to.to_owned()
}

/// The binary that the workspace was built into.
pub fn binary() -> PathBuf {
    let binary = built().join("motrain");
    assert!(binary.is_file(), "{} is missing; run: cargo build -p motrain", binary.display());
    binary
}

/// `motrain` in an empty working directory; shipped scripts and models are found in the source tree.
pub fn motrain(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).env("MOTRAIN_HOME", root()).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    // What a test allows is no other test's, and not the user's.
    command.env("MOTRAIN_CACHE", folder.join(".cache"));
    // Tests run side by side; more threads than cores only wait for each other.
    command.env("OMP_NUM_THREADS", "1");
    // A proxy of this machine is none of the tests' servers' business.
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}

/// Runs and returns standard error of a run that must fail without a panic.
pub fn failure(command: &mut Command) -> String {
    let output = command.output().expect("motrain starts");
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "expected a failure\n{stderr}");
    assert_eq!(output.status.code(), Some(1), "expected exit code 1\n{stderr}");
    assert!(!stderr.contains("thread '"), "motrain panicked: {stderr}");
    stderr.lines().filter(|l| !l.trim_start().starts_with("INFO")).collect::<Vec<_>>().join("\n")
}

/// Runs and returns standard output of a run that must succeed.
pub fn success(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("motrain starts");
    assert!(status.success(), "{}", text(&stderr));
    text(&stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A small MO-ODPO run on the embedded default: 6 steps of 8 prompts, a checkpoint every 2.
pub fn small_run(folder: &Path, out: &str) -> Command {
    small(folder, "experiments/hh.rhai", out)
}

/// The same with another script over `tasks.hh`.
pub fn small(folder: &Path, script: &str, out: &str) -> Command {
    let mut command = motrain(folder);
    command.args(["--script", script, "--out", out]);
    for set in [
        "tasks.hh.fit_samples=32",
        "tasks.hh.evaluation_prompts=6",
        "tasks.hh.generate.max_new_tokens=16",
        "tasks.hh.train.steps=6",
        "tasks.hh.train.batch_size=8",
        "tasks.hh.train.checkpoint_every=2",
        // A ceiling takes longer than all the rest.
        "tasks.hh.answers=\"\"",
    ] {
        command.args(["--set", set]);
    }
    command
}

/// Starts a run in the background.
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("motrain starts")
}

/// Sends a signal to a process that was started.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
}

/// Lines of metrics.jsonl that a stage has written.
pub fn steps_done(run: &Path, stage: &str) -> usize {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|l| l.contains(&format!("\"stage\":\"{stage}\""))).count()
}

/// Waits until `condition` holds, at most four minutes.
pub fn wait_for(mut condition: impl FnMut() -> bool) {
    let clock = Instant::now();
    while !condition() {
        assert!(clock.elapsed() < Duration::from_secs(240), "waited too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a file below a folder, with its parents.
pub fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a file has a parent")).expect("folder");
    std::fs::write(&path, content).expect("file");
    path
}

/// Copies a model folder.
pub fn copy_model(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("model folder").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

/// Standard error of a run that must succeed.
pub fn told(command: &mut Command) -> String {
    let output = command.output().expect("motrain starts");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// Stages that were taken as they were.
pub fn reused(said: &str) -> usize {
    said.matches("finished before, reused").count()
}

pub fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&read(path.to_owned())).unwrap()
}

pub fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a run made, without what depends on the clock: a number per file.
pub fn result(run: &Path) -> Vec<u64> {
    let number = |file: &str| {
        let mut hasher = DefaultHasher::new();
        read(run.join(file)).hash(&mut hasher);
        hasher.finish()
    };
    ["policy/model.safetensors", "metrics.jsonl", "completions.jsonl", "front.json"].map(number).into()
}
