//! SIGINT, SIGTERM and SIGHUP: what was done is saved, and the exit code says which it was.

use motrain_tests::{motrain, signal, small_run, start, steps_done, success, text, wait_for};
use std::path::Path;
use std::process::{Child, Command};

const LONG: [&str; 4] = ["--set", "tasks.hh.train.steps=400", "--set", "tasks.hh.train.checkpoint_every=1000"];

/// A run that is past its first step and far from its first checkpoint.
fn under_way(folder: &Path, command: &mut Command) -> Child {
    let child = start(command);
    wait_for(|| steps_done(&folder.join("out"), "mo_odpo") >= 1);
    child
}

#[test]
fn each_saves_and_stops_with_its_own_exit_code() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let f = tempfile::tempdir().unwrap();
        let run = f.path().join("out");
        let child = under_way(f.path(), small_run(f.path(), "out").args(LONG));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        let step = steps_done(&run, "mo_odpo");
        let said = format!("in stage \"mo_odpo\" after step {step}; nothing is lost; to go on: motrain --resume out");
        assert!(message.contains(&said), "{message}");
        assert!(run.join(format!("stages/mo_odpo/checkpoint-{step}/state.json")).is_file(), "{message}");
    }
}

/// The end comes while others compute, and is no crash.
#[test]
fn a_second_signal_ends_at_once() {
    for attempt in 0..6 {
        let f = tempfile::tempdir().unwrap();
        let child = under_way(f.path(), small_run(f.path(), "out").args(LONG));
        std::thread::sleep(std::time::Duration::from_millis(37 * attempt));
        signal(&child, "TERM");
        std::thread::sleep(std::time::Duration::from_millis(10));
        signal(&child, "TERM");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "attempt {attempt}: {}", text(&output.stderr));
    }
}

#[test]
fn a_step_is_given_up_in_its_middle() {
    let f = tempfile::tempdir().unwrap();
    let run = f.path().join("out");
    // The first step draws thousands of answers, which takes minutes.
    let mut command = small_run(f.path(), "out");
    command.args(["--set", "tasks.hh.train.steps=1", "--set", "tasks.hh.train.batch_size=20000"]);
    let child = start(&mut command);
    wait_for(|| run.join("stages/mo_odpo/metrics.jsonl").is_file());
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(steps_done(&run, "mo_odpo"), 0, "the step was finished first");
}

#[test]
fn an_evaluation_begins_anew() {
    let f = tempfile::tempdir().unwrap();
    success(&mut small_run(f.path(), "out"));
    let evaluate = |out: &str| {
        let mut command = motrain(f.path());
        command.args(["evaluate", "out", "--step", "0.001", "--out", out]);
        command
    };
    let child = start(&mut evaluate("more"));
    wait_for(|| f.path().join("more/stages/evaluate/stage.json").is_file());
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{message}");
    assert!(
        message.contains("finished stages are kept, this one begins anew; to go on: motrain --resume more"),
        "{message}"
    );
}

#[test]
fn nohup_keeps_a_run_from_ending_with_its_terminal() {
    let f = tempfile::tempdir().unwrap();
    let mut inner = small_run(f.path(), "out");
    inner.args(LONG);
    let mut command = Command::new("nohup");
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(f.path());
    command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let child = under_way(f.path(), &mut command);
    signal(&child, "HUP");
    let before = steps_done(&f.path().join("out"), "mo_odpo");
    wait_for(|| steps_done(&f.path().join("out"), "mo_odpo") > before + 1);
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
}
