//! Runs the motrain binary as a user would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// `motrain` in an empty working directory; shipped scripts and models are found in the source tree.
pub fn motrain(folder: &Path) -> Command {
    let tests = std::env::current_exe().expect("the test has a path");
    let binary = tests.ancestors().nth(2).expect("tests lie in target/<profile>/deps").join("motrain");
    assert!(binary.is_file(), "{} is missing; run: cargo build -p motrain", binary.display());
    let mut command = Command::new(binary);
    command.current_dir(folder).env("MOTRAIN_HOME", root()).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    // Tests run side by side; more threads than cores only wait for each other.
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// Runs and returns standard error of a run that must fail without a panic.
pub fn failure(command: &mut Command) -> String {
    let output = command.output().expect("motrain starts");
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "expected a failure\n{stderr}");
    assert_eq!(output.status.code(), Some(1), "expected exit code 1\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
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
    let mut command = motrain(folder);
    command.args(["--script", "experiments/hh.rhai", "--out", out]);
    for set in [
        "tasks.hh.fit_samples=32",
        "tasks.hh.evaluation_prompts=6",
        "tasks.hh.generate.max_new_tokens=16",
        "tasks.hh.train.steps=6",
        "tasks.hh.train.batch_size=8",
        "tasks.hh.train.checkpoint_every=2",
    ] {
        command.args(["--set", set]);
    }
    command
}

/// Starts a run in the background.
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("motrain starts")
}

/// Lines of metrics.jsonl that a stage has written.
pub fn steps_done(run: &Path, stage: &str) -> usize {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|l| l.contains(&format!("\"stage\":\"{stage}\""))).count()
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
