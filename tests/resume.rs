//! A run killed or stopped at any moment and resumed ends with the same bytes as one that was not.

use motrain_tests::{copy_model, failure, motrain, root, signal, small_run, start, success, write};
use std::path::Path;
use std::time::Instant;

/// What must be equal: weights, metrics, completions, front.
fn result(run: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let weights = ["policy/model.safetensors", "policy/adapter_model.safetensors"];
    let weights = weights.into_iter().find(|file| run.join(file).is_file()).expect("a policy");
    [weights, "metrics.jsonl", "completions.jsonl", "front.json"]
        .map(|file| (file, std::fs::read(run.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))))
        .into()
}

#[test]
fn killed_and_resumed_equals_uninterrupted() {
    killed_and_resumed(&[]);
}

/// An adapter's checkpoints hold what trains alone; dropout is drawn anew at each step.
#[test]
fn a_killed_and_resumed_adapter_equals_an_uninterrupted_one() {
    killed_and_resumed(&[
        "--set",
        "tasks.hh.lora.on=true",
        "--set",
        "tasks.hh.lora.dropout=0.1",
        "--set",
        "tasks.hh.train.micro_batch_tokens=400",
    ]);
}

/// The guard's mean of ten steps goes on where it was: the stage stops at the same step.
#[test]
fn a_killed_and_resumed_guard_equals_an_uninterrupted_one() {
    killed_and_resumed(&[
        "--set",
        "tasks.hh.opinions=[{ name = \"Gold\", of = \"Helpfulness\", source = \"gold\", options = { score = \"hh_helpful\" } }]",
        "--set",
        "tasks.hh.drift={ penalty = 0.3, stop = 0.01 }",
        "--set",
        "tasks.hh.train.steps=14",
    ]);
}

/// The policy's folder says bf16: so do results, and checkpoints hold f32.
fn killed_and_resumed(more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("bf16");
    copy_model(&root().join("assets/hh/policy"), &policy);
    let said = std::fs::read_to_string(policy.join("config.json")).unwrap();
    write(&policy, "config.json", &said.replace("\"float32\"", "\"bfloat16\""));
    let policy = format!("tasks.hh.policy=\"{}\"", policy.display());
    let more = &[more, &["--set", &policy]].concat();
    let clock = Instant::now();
    success(small_run(folder.path(), "straight").args(more));
    let whole = clock.elapsed();
    let straight = result(&folder.path().join("straight"));
    let dtype = std::fs::read_to_string(folder.path().join("straight/policy/config.json"));
    assert!(dtype.is_err() || dtype.unwrap().contains("bfloat16"), "the result has another type than its source");
    // Kill after ever longer shares of a whole run, so that the kills fall into every stage, until a run gets through.
    let mut child = start(small_run(folder.path(), "killed").args(more));
    let mut kills = 0;
    for attempt in 1u32.. {
        std::thread::sleep(whole.mul_f64(0.1 + 0.06 * f64::from(attempt)));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        // A kill leaves whatever there was; the others give up the step that they fall into, and save.
        signal(&child, ["KILL", "TERM", "HUP", "INT"][attempt as usize % 4]);
        child.wait().unwrap();
        kills += 1;
        let mut again = match folder.path().join("killed/plan.json").is_file() {
            true => {
                let mut resume = motrain(folder.path());
                resume.args(["--resume", "killed"]);
                resume
            }
            false => {
                let mut anew = small_run(folder.path(), "killed");
                anew.args(more);
                anew
            }
        };
        child = start(&mut again);
    }
    assert!(kills >= 3, "only {kills} kills");
    for ((file, expected), (_, found)) in straight.iter().zip(result(&folder.path().join("killed"))) {
        assert!(*expected == found, "{file} differs after {kills} kills");
    }
}

#[test]
fn options_that_a_saved_plan_does_not_obey_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    success(&mut small_run(folder.path(), "out"));
    std::fs::write(folder.path().join("mine.toml"), "[tasks.hh.train]\nsteps = 9\n").unwrap();
    let said = |args: &[&str]| failure(motrain(folder.path()).args(args));
    let generate = ["generate", "out", "--prompt", "hi", "--set", "device=cuda"];
    let all = [
        said(&["--resume", "out", "--set", "tasks.hh.train.steps=9"]),
        said(&["--resume", "out", "--config", "mine.toml"]),
        said(&["evaluate", "out", "--out", "other", "--set", "seed=5"]),
        said(&generate),
    ];
    insta::assert_snapshot!(all.join("\n"));
    assert!(!folder.path().join("other").exists());
    success(motrain(folder.path()).args(["--resume", "out", "--set", "plugins.call_seconds=5"]));
}

#[test]
fn the_same_plan_and_seed_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    success(&mut small_run(folder.path(), "a"));
    success(&mut small_run(folder.path(), "b"));
    assert!(result(&folder.path().join("a")) == result(&folder.path().join("b")));
    success(small_run(folder.path(), "c").args(["--set", "seed=1"]));
    assert!(result(&folder.path().join("a"))[0] != result(&folder.path().join("c"))[0]);
}
