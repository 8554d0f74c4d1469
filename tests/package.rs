//! The binary by itself, without the source tree: what it brings along, and where that goes.

use motrain_tests::{binary, failure, motrain, read, result, small_run, success, told};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary in a folder of its own, where a command finds nothing of the source tree.
fn alone(folder: &Path) -> PathBuf {
    let own = folder.join("bin/motrain");
    std::fs::create_dir(folder.join("bin")).unwrap();
    std::fs::hard_link(binary(), &own).or_else(|_| std::fs::copy(binary(), &own).map(|_| ())).unwrap();
    own
}

/// The same command of that binary.
fn moved(command: &Command, binary: &Path) -> Command {
    let mut own = Command::new(binary);
    own.args(command.get_args()).current_dir(command.get_current_dir().unwrap()).env_remove("MOTRAIN_HOME");
    for (name, value) in command.get_envs().filter(|(name, _)| *name != "MOTRAIN_HOME") {
        value.map(|value| own.env(name, value));
    }
    own
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

#[test]
fn the_binary_alone_runs_the_embedded_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let own = alone(folder.path());
    success(&mut moved(&small_run(folder.path(), "own"), &own));
    success(&mut small_run(folder.path(), "tree"));
    let [own_run, tree] = ["own", "tree"].map(|run| folder.path().join(run));
    assert_eq!(result(&own_run), result(&tree));
    let stages = |run: &Path| json(run.join("manifest.json"))["stages"].clone();
    assert_eq!(stages(&own_run), stages(&tree), "hashes are of contents, wherever they lie");
    let policy = json(own_run.join("plan.json"))["stages"][0]["policy"].as_str().unwrap().to_owned();
    assert!(Path::new(&policy).starts_with(folder.path().join(".cache")), "{policy}");

    // What was lost of the cache comes back with the run that wants it.
    std::fs::remove_dir_all(folder.path().join(".cache")).unwrap();
    std::fs::remove_dir_all(own_run.join("stages").join(stage(&own_run, "mo_odpo"))).unwrap();
    let mut resume = motrain(folder.path());
    let said = told(&mut moved(resume.args(["--resume", "own"]), &own));
    assert_eq!(result(&own_run), result(&tree), "{said}");
}

fn stage(run: &Path, id: &str) -> PathBuf {
    std::fs::read_link(run.join("stages").join(id)).unwrap()
}

#[test]
fn other_shipped_files_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let own = alone(folder.path());
    let mut check = motrain(folder.path());
    check.args(["check", "paper.rhai", "--config", "configs/paper-tiny.toml"]);
    assert!(success(&mut moved(&check, &own)).ends_with("all well\n"));
    let mut generate = motrain(folder.path());
    generate.args(["generate", "assets/hh/policy", "--prompt", "How do I tame a dog?"]);
    assert!(!success(&mut moved(&generate, &own)).trim().is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let own = alone(folder.path());
    let cache = folder.path().join("file/cache");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut check = motrain(folder.path());
    let mut check = moved(check.args(["check", "experiments/hh.rhai"]), &own);
    let said = failure(check.env("MOTRAIN_CACHE", &cache));
    insta::with_settings!({filters => vec![(r"/\S+/file/", "[folder]/"), ("shipped-[0-9a-f]+", "shipped-[hash]"), (r"\d+ MB", "[n] MB")]}, {
        insta::assert_snapshot!("no_room", said);
    });
    let said = failure(check.env_remove("MOTRAIN_CACHE").env_remove("HOME"));
    insta::assert_snapshot!("no_home", said);
}
