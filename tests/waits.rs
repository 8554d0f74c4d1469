//! A signal while a run waits for something slow: it ends soon, and the run that goes on ends with the same bytes as one that nobody stopped.

use motrain_tests::server::{self, Asked, Reply, lengths, serve};
use motrain_tests::{fixture, motrain, result, signal, small, start, success, text, wait_for, write};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Far more than giving up takes, far less than what is waited for.
const SOON: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Interrupts a run, which must end soon and say how to go on. What it said.
fn interrupt(child: Child) -> String {
    let clock = Instant::now();
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(clock.elapsed() < SOON, "{:?} after the signal\n{said}", clock.elapsed());
    assert!(!said.contains("failed"), "{said}");
    said
}

fn resume(folder: &Path) -> Command {
    let mut command = motrain(folder);
    command.args(["--resume", "out"]);
    command
}

fn scales(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("out/stages/r/scales.json")).unwrap()
}

/// The scales that a remote reward gets from a server that answers at once.
fn straight(options: &str) -> Vec<u8> {
    let f = folder();
    let (address, _) = serve(|_, asked| lengths(asked));
    success(&mut fit(f.path(), &address, options));
    scales(f.path())
}

fn fit(folder: &Path, address: &str, options: &str) -> Command {
    server::fit(folder, "Remote", "remote", &format!("url: \"{address}/get_reward\"{options}"))
}

/// Interrupts a fit at its first request, which gets `first`, and goes on.
fn interrupted_fit(first: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static, options: &str) {
    let f = folder();
    let (address, seen) = serve(move |n, asked| if n == 0 { first(asked) } else { lengths(asked) });
    let child = start(&mut fit(f.path(), &address, options));
    wait_for(|| seen.count() == 1);
    // So that the reply is there and waited upon.
    std::thread::sleep(Duration::from_secs(1));
    let said = interrupt(child);
    assert!(said.contains("stopped by a signal in stage \"r\""), "{said}");
    success(&mut resume(f.path()));
    assert_eq!(scales(f.path()), straight(options));
}

#[test]
fn a_wait_that_the_server_asked_for_is_left() {
    interrupted_fit(|_| Some(Reply::status(429, "busy").with("Retry-After", "60")), "");
}

#[test]
fn a_wait_of_ones_own_is_left_and_leaves_nothing_out() {
    let options = ", backoff_seconds: 60.0, on_failure: \"skip\"";
    interrupted_fit(|_| Some(Reply::status(503, "busy")), options);
}

#[test]
fn a_step_whose_server_is_slow_is_given_up() {
    let run = |folder: &Path, address: &str| {
        let mut command = small(folder, "experiments/hh.rhai", "out");
        let rewards = format!(
            "tasks.hh.rewards=[{{ name = \"Remote\", source = \"remote\", options = {{ url = \"{address}/get_reward\", on_failure = \
             \"skip\" }} }}, {{ name = \"Harmlessness\", model = \"assets/hh/harmless\" }}]"
        );
        command.args(["--set", &rewards]);
        command
    };
    let whole = folder();
    let (address, _) = serve(|_, asked| lengths(asked));
    success(&mut run(whole.path(), &address));
    // One request fits the scale and each step makes one: this is the fourth step's.
    let f = folder();
    let (address, seen) = serve(|n, asked| {
        if n == 4 {
            std::thread::sleep(Duration::from_secs(30));
        }
        lengths(asked)
    });
    let child = start(&mut run(f.path(), &address));
    wait_for(|| seen.count() == 5);
    let said = interrupt(child);
    assert!(said.contains("in stage \"mo_odpo\" after step 3; nothing is lost"), "{said}");
    success(&mut resume(f.path()));
    assert_eq!(result(&f.path().join("out")), result(&whole.path().join("out")));
}

#[test]
fn a_judge_that_is_slow_is_left() {
    let f = folder();
    let (address, seen) = serve(|n, _| {
        if n == 2 {
            std::thread::sleep(Duration::from_secs(30));
        }
        Some(Reply::said("1"))
    });
    let judge =
        format!("judge(\"chat\", #{{ url: \"{address}/v1\", model: \"m\", question: \"?\", on_failure: \"skip\" }})");
    let script = format!(
        "let policy = path(\"assets/hh/policy\");\n\
         let prompts = #{{ paths: [path(\"assets/hh/prompts.jsonl\")], limit: 4 }};\n\
         let scored = rewards(\"r\", #{{ sources: [reward(\"A\", \"length\"), reward(\"B\", \"length\", #{{ target: 9.0 }})], policy: policy, \
         prompts: prompts, samples: 16, generate: #{{ max_new_tokens: 8 }} }});\n\
         let front = |id| evaluate(id, #{{ name: id, policy: policy, rewards: scored, conditioner: conditioner(\"weight_prefix\"), prompts: \
         prompts, step: 1.0, generate: #{{ max_new_tokens: 8 }} }});\n\
         let a = front.call(\"a\");\nlet b = front.call(\"b\");\n\
         compare(\"c\", #{{ method: a, against: [b], dimensions: [#{{ name: \"x\", weights: [1.0, 0.0], judge: {judge} }}, #{{ name: \"y\", \
         weights: [0.0, 1.0], judge: {judge} }}] }});\n"
    );
    write(f.path(), "s.rhai", &script);
    let child = start(motrain(f.path()).args(["--script", "s.rhai", "--out", "out"]));
    wait_for(|| seen.count() > 2);
    let said = interrupt(child);
    assert!(said.contains("stopped by a signal in stage \"c\""), "{said}");
    success(&mut resume(f.path()));
}

/// A fit of 320 samples by one source of rewards.
fn many(folder: &Path, source: &str) -> Command {
    let script = format!(
        "rewards(\"r\", #{{ sources: [{source}], policy: path(\"assets/hh/policy\"), prompts: #{{ paths: \
         [path(\"assets/hh/prompts.jsonl\")] }}, samples: 320, generate: #{{ max_new_tokens: 4 }} }});\n"
    );
    write(folder, "s.rhai", &script);
    let mut command = motrain(folder);
    command.args(["--script", "s.rhai", "--out", "out"]);
    command
}

#[test]
fn a_slow_plugin_is_left_between_its_calls() {
    let f = folder();
    fixture(f.path(), "slow.c", "slow.so", &[]);
    let began = f.path().join("began");
    let mut run = many(f.path(), "reward(\"P\", plugin(\"slow.so\", \"slow.length\"))");
    let child = start(run.env("SLOW_BEGAN", &began));
    wait_for(|| began.is_file());
    interrupt(child);
    success(resume(f.path()).env("SLOW_REWARD", "no"));
    let whole = folder();
    fixture(whole.path(), "slow.c", "slow.so", &[]);
    success(many(whole.path(), "reward(\"P\", plugin(\"slow.so\", \"slow.length\"))").env("SLOW_REWARD", "no"));
    assert_eq!(scales(f.path()), scales(whole.path()));
}

#[test]
fn a_slow_function_of_a_script_is_left_within_a_call() {
    let f = folder();
    let source = "reward_fn(\"slow\", |prompt, answer| { print(\"scoring\"); let x = 0; while x < 300000 { x += 1; } answer.len() })";
    let mut run = many(f.path(), source);
    let log = f.path().join("log");
    let child = run.stdout(File::create(f.path().join("out.txt")).unwrap()).stderr(File::create(&log).unwrap());
    let child = child.spawn().unwrap();
    let scored = || std::fs::read_to_string(&log).unwrap_or_default().matches("scoring").count();
    // The first is a trial, before anything is listened to.
    wait_for(|| scored() > 1);
    let clock = Instant::now();
    signal(&child, "INT");
    let status = child.wait_with_output().unwrap().status;
    assert_eq!(status.code(), Some(130));
    assert!(clock.elapsed() < SOON && scored() < 100, "{:?}, {} calls", clock.elapsed(), scored());
}
