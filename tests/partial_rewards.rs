//! Rewards that leave out answers: plugins and functions of a script. What has no score is in no pair and no mean, and is counted.

use motrain_core::reward::{Sample, score_checked};
use motrain_core::{Prompt, Registry};
use motrain_tests::{failure, fixture, library, motrain, small, success, text, write};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// More samples than one call takes.
#[test]
fn a_plugin_in_c_leaves_out_what_it_cannot_score() {
    let f = folder();
    let path = fixture(f.path(), "partial.c", "partial.so", &["-Wall", "-Wextra", "-Werror"]);
    let mut registry = Registry::builtin();
    motrain_host::load(&mut registry, &motrain_host::Request { path, ..Default::default() }, 0).unwrap();
    let reward = registry.rewards.build("test.partial", &Value::Null).unwrap();
    let (prompt, texts) = (Prompt::user("p"), (0..70).map(|i| "x".repeat(i)).collect::<Vec<_>>());
    let sample = |text| Sample { prompt: &prompt, completion: text, finished: true, row: &Value::Null };
    let samples: Vec<Sample> = texts.iter().map(|text| sample(text.as_str())).collect();
    let expected: Vec<Option<f64>> = (0..70u32).map(|i| (!i.is_multiple_of(3)).then_some(f64::from(i))).collect();
    assert_eq!(score_checked("P", reward.as_ref(), &samples).unwrap(), expected);
    assert_eq!(reward.score(&samples).unwrap_err(), "left out samples");
    assert_eq!(reward.score(&samples[1..3]).unwrap(), [1.0, 2.0]);
}

/// Online training on a partial reward and the shipped harmlessness, and an evaluation at two weights.
fn run(folder: &Path, reward: &str) -> Command {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet sources = steer::sources(task);\nsources[0] = {reward};\n\
         let scored = rewards(\"rewards\", #{{ sources: sources, policy: path(task.policy), samples: task.fit_samples,\n\
           prompts: steer::prompt_data(task, \"train\"), generate: task.generate }});\n\
         let policy = steer::prompted(\"trained\", task, path(task.policy), scored);\n\
         evaluate(\"front\", #{{ name: \"P\", policy: policy, rewards: scored, conditioner: task.conditioner, generate: task.generate,\n\
           prompts: steer::changed(steer::prompt_data(task, \"test\"), #{{ limit: 30 }}), weights: [[1.0, 0.0], [0.0, 1.0]] }});\n"
    );
    write(folder, "partial.rhai", &script);
    small(folder, "partial.rhai", "out")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Holds the metrics and answers of `run` against what the reward leaves out: answers whose length in bytes is a multiple of 3.
fn left_out(folder: &Path, output: &Output) {
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let out = folder.join("out");
    let steps: Vec<Value> = lines(&out.join("metrics.jsonl")).into_iter().filter(|m| m["stage"] == "trained").collect();
    assert_eq!(steps.len(), 6);
    let sum = |key: &str| steps.iter().filter_map(|s| s[key].as_f64()).sum::<f64>();
    let (answers, pairs) = (sum("rewards/P/unscored"), sum("pairs/unscored"));
    // A pair goes where one of its answers or both have no score.
    assert!(
        answers > 0.0 && pairs > 0.0 && pairs <= answers && answers <= 2.0 * pairs,
        "{answers} answers, {pairs} pairs"
    );
    assert!(pairs < 48.0, "every pair was left out");
    let skipped = |text: &Value| text.as_str().unwrap().len().is_multiple_of(3);
    for line in lines(&out.join("completions.jsonl")) {
        assert_eq!(line["raw"]["P"].is_null(), skipped(&line["completion"]), "{line}");
        assert_eq!(line["scores"].is_null(), skipped(&line["completion"]), "{line}");
    }
    let answers = lines(&out.join("stages/front/answers.jsonl"));
    let (at_one, at_other) = answers.split_at(30);
    assert_eq!(at_other.len(), 30);
    let dropped = at_one.iter().zip(at_other).filter(|(a, b)| skipped(&a["completion"]) || skipped(&b["completion"]));
    assert!(said.contains(&format!("left out {} of 30 prompts with missing scores", dropped.count())), "{said}");
}

#[test]
fn pairs_with_an_answer_that_a_plugin_left_out_teach_nothing() {
    let f = folder();
    fixture(f.path(), "partial.c", "partial.so", &[]);
    insta::assert_snapshot!("check", success(motrain(f.path()).args(["plugin", "check", "partial.so"])));
    let output = run(f.path(), "reward(\"P\", plugin(\"partial.so\", \"test.partial\"))").output().unwrap();
    left_out(f.path(), &output);
    // A function of the script that does the same trains the same policy.
    let s = folder();
    let function = "reward_fn(\"P\", |prompt, answer| if answer.bytes % 3 == 0 { () } else { answer.bytes })";
    left_out(s.path(), &run(s.path(), function).output().unwrap());
    let policy = |f: &Path| std::fs::read(f.join("out/stages/trained/model/model.safetensors")).unwrap();
    assert!(policy(f.path()) == policy(s.path()), "the policies differ");
}

/// Without its prompt and completion, which depend on the policy.
fn short(message: &str) -> String {
    let at = |l: &&str| !["prompt:", "completion:"].iter().any(|word| l.trim_start().starts_with(word));
    message.lines().filter(at).collect::<Vec<_>>().join("\n")
}

#[test]
fn rewards_that_leave_out_wrongly_are_refused() {
    let mut all = Vec::new();
    // OLD: built against 1.2, where no score may be missing.
    for bug in ["OLD", "NAN_IS_NO_SCORE", "OUT_OF_RANGE", "BEYOND", "TOO_FEW", "ALL"] {
        let f = folder();
        fixture(f.path(), "partial.c", "p.so", &[&format!("-D{bug}")]);
        let said = failure(&mut run(f.path(), "reward(\"P\", plugin(\"p.so\", \"test.partial\"))"));
        all.push(format!("{bug}\n{}", short(&said)));
    }
    let f = folder();
    all.push(format!(
        "no score at all\n{}",
        short(&failure(&mut run(f.path(), "reward_fn(\"P\", |prompt, answer| ())")))
    ));
    all.push(format!(
        "no prompt with all scores\n{}",
        short(&failure(&mut run(f.path(), "reward_fn(\"P\", |prompt, answer| (), #{ scale: [0.0, 1.0] })")))
    ));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_reward_in_rust_that_leaves_out_passes_its_check() {
    let f = folder();
    let hostile = library("hostile");
    let check = ["--component", "hostile.partial"];
    insta::assert_snapshot!(success(motrain(f.path()).args(["plugin", "check"]).arg(hostile).args(check)));
}
