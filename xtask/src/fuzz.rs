//! `cargo xtask fuzz`: runs the readers of foreign files on inputs that libFuzzer makes up, and fails where one panics, hangs or floods the
//! memory. Stable Rust is enough: the flags below are those that `cargo fuzz` gives, without a sanitizer.

use crate::libtorch;
use crate::run::{cargo, checked, root, target};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The targets, each with the sources whose words are its dictionary.
const TARGETS: [(&str, &[&str]); 8] = [
    ("gguf", &["core/engine/src/gguf", "core/engine/src/import"]),
    ("tokenizer", &["core/engine/src/tokenizer", "tests/goldens/text_matrix.py"]),
    ("safetensors", &["core/engine/src/model"]),
    ("config", &["core/engine/src/model", "core/engine/src/generation.rs"]),
    ("rows", &["core/base/src/data"]),
    (
        "plan",
        &[
            "core/engine/src/plan",
            "core/engine/src/stage",
            "core/base/src/conditioner",
            "core/base/src/sampler",
            "core/base/src/reward",
            "core/base/src/advantage",
        ],
    ),
    ("checkpoint", &["core/engine/src/train/checkpoint.rs", "core/engine/src/optim", "core/base/src/advantage"]),
    ("toml", &["configs/default.toml", "core/base/src/config.rs"]),
];

/// Counters at every edge, and what comparisons compare.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Counters in build scripts would have nobody to read them: with a target named, flags do not reach these.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// An input that takes longer is a finding.
const LONGEST_SECONDS: u32 = 20;
/// A process that holds more is a finding; libtorch alone takes a tenth.
const MOST_MEMORY_MB: u32 = 2048;
/// The longest input that is tried.
const LONGEST_INPUT: u32 = 16 << 10;

fn folder() -> PathBuf {
    target().join("fuzz")
}

/// Runs the named targets, or all, for so many seconds each, as many at a time as there are cores.
pub fn run(seconds: u64, only: &[String]) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| !TARGETS.iter().any(|(target, _)| target == name)) {
        bail!("there is no fuzz target \"{unknown}\"; there are {}", TARGETS.map(|(target, _)| target).join(", "));
    }
    libtorch::setup(false)?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple(), "--target-dir"]);
    // The configuration beside the workspace says where libtorch is.
    checked(build.arg(folder()).env("RUSTFLAGS", COVERAGE))?;
    let open: Vec<_> = TARGETS.iter().filter(|(t, _)| only.is_empty() || only.iter().any(|o| o == t)).rev().collect();
    let (open, failed) = (Mutex::new(open), Mutex::new(Vec::new()));
    let next = || open.lock().map(|mut open| open.pop()).unwrap_or_default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((name, sources)) = next() {
                    match fuzz(name, sources, seconds) {
                        Ok(figures) => println!("{name:<12} {figures}"),
                        Err(error) => failed.lock().map(|mut failed| failed.push(error)).unwrap_or_default(),
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_default().as_slice() {
        [] => Ok(()),
        all => bail!("{}", all.iter().map(|e| format!("{e:#}")).collect::<Vec<_>>().join("\n\n")),
    }
}

/// Runs one target. What it learns stays in target/fuzz/corpus; the committed corpus is only read.
fn fuzz(name: &str, sources: &[&str], seconds: u64) -> Result<String> {
    let (learnt, found) = (folder().join("corpus").join(name), folder().join("found").join(name));
    let log = folder().join(format!("{name}.log"));
    let committed = ["corpus", "regressions"].map(|kind| root().join("fuzz").join(kind).join(name));
    for folder in [&learnt, &found, &committed[1]] {
        fs::create_dir_all(folder)?;
    }
    let status = Command::new(folder().join(triple()).join("release").join(name))
        .arg(learnt)
        .args(&committed)
        .arg(format!("-dict={}", dictionary(name, sources)?.display()))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args([format!("-max_total_time={seconds}"), format!("-timeout={LONGEST_SECONDS}")])
        .args([format!("-rss_limit_mb={MOST_MEMORY_MB}"), format!("-max_len={LONGEST_INPUT}")])
        .args(["-print_final_stats=1", "-reload=0"])
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("fuzz target {name} cannot be started"))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let end: Vec<&str> = said.lines().rev().take(30).collect();
        bail!(
            "fuzz target {name} has found an input that its reader does not bear ({status}): it lies in {}; mend the reader and \
             move the input to fuzz/regressions/{name}\n{}",
            found.display(),
            end.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    let figure =
        |before: &str| said.rsplit(before).next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("?");
    let (runs, cov, inputs) = (figure("stat::number_of_executed_units:"), figure(" cov: "), figure(" corp: "));
    Ok(format!("{runs} executions, {cov} edges, {inputs} inputs"))
}

/// The words between quotes in the sources, as a dictionary of libFuzzer.
fn dictionary(name: &str, sources: &[&str]) -> Result<PathBuf> {
    let mut words = BTreeSet::new();
    for source in sources {
        for file in files(&root().join(source)) {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            words.extend(code.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned));
            if file.extension().is_some_and(|e| e == "toml") {
                words.extend(text.lines().filter_map(|line| line.split([' ', '=']).next()).map(str::to_owned));
            }
        }
    }
    words.retain(|word| (2..40).contains(&word.len()) && word.chars().all(|c| (' '..='~').contains(&c) && c != '\\'));
    let path = folder().join(format!("{name}.dict"));
    fs::write(&path, words.iter().map(|word| format!("\"{word}\"\n")).collect::<String>())?;
    Ok(path)
}

/// A file, or the files below a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    entries.flatten().flat_map(|e| files(&e.path())).collect()
}
