//! Options that make no sense, through the binary: `check`, `--dry-run`, a run and `--resume` refuse them alike, before any work.

use motrain_tests::{failure, motrain, root, small_run, success, write};
use serde_json::{Value, json};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The message without its carets and calls: what and where, not the lines of the scripts.
fn said(message: &str) -> String {
    let message = message.replace(&root().display().to_string(), "[home]");
    let calls = message.lines().filter(|l| !l.starts_with("  ") || l.contains("because"));
    calls.filter(|l| !l.contains("called here")).collect::<Vec<_>>().join("\n")
}

fn check(folder: &Path, script: &str, sets: &[&str]) -> String {
    let mut command = motrain(folder);
    command.args(["check", script]);
    for set in sets {
        command.args(["--set", set]);
    }
    said(&failure(&mut command))
}

#[test]
fn values_of_the_configuration_that_make_no_sense_are_refused() {
    let f = folder();
    let values = [
        "train.epochs=-1",
        "train.epochs=nan",
        "train.epochs=\"two\"",
        "train.batch_size=0",
        "train.batch_size=8.5",
        "train.batch_size=99999999999999999999",
        "train.micro_batch_size=0",
        "train.checkpoint_every=0",
        "train.steps=-3",
        "optimizer.lr=-1",
        "optimizer.lr=1e308",
        "optimizer.lr=1e400",
        "optimizer.name=sgd",
        "optimizer.schedule=cubic",
        "optimizer.warmup_steps=-1",
        "optimizer.max_grad_norm=-1",
        "generate.top_p=7",
        "generate.temperature=-2",
        "generate.temperature=1e-9",
        "generate.max_new_tokens=0",
        "evaluation_generate.top_p=0",
        "prompts.test_share=9",
        "prompts.max_prompt_tokens=0",
        "prompts.paths=[]",
        "policy=\"\"",
        "evaluation_prompts=0",
        "fit_samples=0",
        "completions=1",
        "max_kl=-1",
        "loss.options.beta=0",
        "sampler.options={ step = 1e-9 }",
        "sampler.options={ alpha = [1.0, 1.0, 1.0] }",
        "conditioner.options.decimals=0",
        "rewards=[{ name = \"A\", model = \"assets/hh/helpful\", scael = 1 }]",
        "rewards=[{ name = \"\", model = \"assets/hh/helpful\" }]",
        "rewards=[]",
        "train={ epochs = -1, batch_size = 0, micro_batch_size = 0 }",
    ];
    let mut shown = String::new();
    for value in values {
        shown += &format!("{value}\n{}\n\n", check(f.path(), "experiments/hh.rhai", &[&format!("tasks.hh.{value}")]));
    }
    for value in ["device=gpu", "dtype=fp16", "seed=-1", "seed=1.5", "paper.only=[\"fig9\"]", "tasks.hh.ric.rounds=-1"]
    {
        let script = if value.starts_with("device") { "experiments/hh.rhai" } else { "paper.rhai" };
        shown += &format!("{value}\n{}\n\n", check(f.path(), script, &[value]));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn values_and_references_of_a_script_that_make_no_sense_are_refused() {
    let f = folder();
    let stages = [
        "sft(\"s\", #{ model: scored, data: data })",
        "sft(\"s\", #{ model: start, samples: scored })",
        "sft(\"s\", #{ model: start, data: #{ paths: [\"\"] } })",
        "sft(\"../s\", #{ model: start, data: data })",
        "reward_model(\"r\", #{ model: start, data: data, train: #{ epochs: 0.0 / 0.0 } })",
        "reward_model(\"r\", #{ model: start, data: data, optimizer: #{ lr: || 1 } })",
        "reward_model(\"r\", #{ model: start, data: data, heldout: #{ paths: [\"p\"], limit: 0 } })",
        "init_model(\"i\", #{ corpus: [\"c\"], vocab_size: 300, hidden_size: 10, intermediate_size: 8, layers: 1, heads: 4, kv_heads: 1, context: 9 })",
        "init_model(\"i\", #{ corpus: [\"c\"], vocab_size: 300, hidden_size: 16, intermediate_size: 8, layers: 1, heads: 4, kv_heads: 3, context: 9 })",
        "evaluate(\"e\", #{ name: \"a\\nb\", policy: start, prompts: data, rewards: scored, conditioner: none })",
        "evaluate(\"e\", #{ name: \"e\", policy: start, prompts: data, rewards: start, conditioner: none })",
        "evaluate(\"e\", #{ name: \"e\", policy: start, prompts: data, rewards: scored, conditioner: none, step: 1e-5 })",
        "evaluate(\"e\", #{ name: \"e\", policy: start, prompts: data, rewards: scored, conditioner: none, weights: [[0.5, 0.6]] })",
        "evaluate(\"e\", #{ name: \"e\", policy: start, prompts: data, rewards: scored, conditioner: none, weights: [[1.0]] })",
        "evaluate(\"e\", #{ name: \"e\", soup: #{ base: start, parts: [start] }, prompts: data, rewards: scored, conditioner: none })",
        "evaluate(\"e\", #{ name: \"e\", policies: [#{ weights: [1.0, 0.0], policy: start }, #{ weights: [1.0, 0.0], policy: start }], prompts: data, rewards: scored, conditioner: none })",
        "evaluate(\"e\", #{ name: \"e\", policy: start, prompts: data, rewards: scored, conditioner: conditioner(\"template\", #{ text: \"{Kindness} {prompt}\" }) })",
        "reward(\"R\", \"length\", #{}, #{ scale: [1.0] })",
        "rewards(\"again\", #{ sources: [reward(\"R\", \"length\", #{}, #{ scale: [1.0, 1.0] })], policy: start, prompts: data })",
        "rewards(\"again\", #{ sources: [reward(\"R\", \"length\"), reward(\"R\", \"length\")], policy: start, prompts: data })",
        "let m = 1; for i in 0..60 { m = #{ m: m }; } loss(\"dpo\", #{ beta: m })",
    ];
    let mut shown = String::new();
    for stage in stages {
        let script = format!(
            "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\nlet start = path(task.policy);\n\
             let none = conditioner(\"none\");\nlet data = #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }};\n{stage};\n"
        );
        write(f.path(), "bad.rhai", &script);
        shown += &format!("{stage}\n{}\n\n", check(f.path(), "bad.rhai", &[]));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn missing_inputs_stop_check_dry_run_and_run_alike() {
    let f = folder();
    write(f.path(), "model", "a file");
    write(f.path(), "folder/weights.bin", "no model");
    let sets = [
        "tasks.hh.policy=model",
        "tasks.hh.rewards=[{ name = \"A\", model = \"folder\" }]",
        "tasks.hh.prompts.paths=[\"nowhere.jsonl\", \".\"]",
    ];
    let checked = check(f.path(), "experiments/hh.rhai", &sets);
    for more in [&["--dry-run"][..], &[]] {
        let mut command = motrain(f.path());
        command.args(["--script", "experiments/hh.rhai", "--out", "out"]).args(more);
        for set in sets {
            command.args(["--set", set]);
        }
        assert_eq!(said(&failure(&mut command)), checked);
    }
    assert!(!f.path().join("out").exists());
    insta::assert_snapshot!(checked);
}

#[test]
fn variables_and_deep_keys() {
    let f = folder();
    let with = |name: &str, value: &str| {
        said(&failure(motrain(f.path()).args(["check", "experiments/hh.rhai"]).env(name, value)))
    };
    insta::assert_snapshot!("variable_of_another_type", with("MOTRAIN_TASKS__HH__TRAIN__EPOCHS", "many"));
    insta::assert_snapshot!("variable_without_a_key", with("MOTRAIN_TASKS__HH__TRIAN__EPOCHS", "1"));
    let message = with(&format!("MOTRAIN_{}", ["A"; 5000].join("__")), "1");
    assert!(message.contains("a key is up to 16 names joined by dots"), "{message}");
    let message = with("MOTRAIN_SEED", &"[".repeat(50_000));
    assert!(message.contains("seed must be a number, not"), "{message}");
    let message = check(f.path(), "experiments/hh.rhai", &[&format!("{}=1", ["a"; 5000].join("."))]);
    assert!(message.contains("a key is up to 16 names joined by dots") && message.len() < 400, "{message}");
}

/// A change of a finished run's plan.json, and what `--resume`, `generate` and `evaluate` say of it.
fn resumed(folder: &Path, pointer: &str, value: Value) -> String {
    let path = folder.join("run/plan.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let mut plan: Value = serde_json::from_str(&good).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    plan.pointer_mut(parent).unwrap()[key] = value;
    std::fs::write(&path, plan.to_string()).unwrap();
    let message = said(&failure(motrain(folder).args(["--resume", "run"])));
    for other in
        [&["evaluate", "run", "--out", "again"][..], &["generate", "run", "--prompt", "Hi", "--weights", "0.5,0.5"]]
    {
        let other = failure(motrain(folder).args(other));
        let (reason, also) = (message.lines().last().unwrap_or_default(), other.lines().last().unwrap_or_default());
        assert_eq!(reason, also, "{pointer}");
    }
    std::fs::write(&path, good).unwrap();
    message
}

#[test]
fn a_plan_from_elsewhere_is_checked_as_a_script_is() {
    let f = folder();
    success(&mut small_run(f.path(), "run"));
    let mut shown = String::new();
    for (pointer, value) in [
        ("/stages/1/id", json!("../../escaped")),
        ("/stages/1/kind", json!("online_preferences")),
        ("/stages/3/prompts/limit", json!(0)),
        ("/stages/1/train/micro_batch_size", json!(0)),
        ("/stages/1/train/micro_batches", json!(1)),
        ("/stages/1/optimizer/lr", json!(-1)),
        ("/stages/1/optimizer/schedule", json!("cubic")),
        ("/stages/1/generate/temperature", Value::Null),
        ("/stages/3/step", json!(1e-9)),
    ] {
        shown += &format!("{pointer}\n{}\n\n", resumed(f.path(), pointer, value));
    }
    insta::assert_snapshot!(shown);
    // These are wrong only together with the other stages, which `generate` does not look at.
    let path = f.path().join("run/plan.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("\"id\": \"mo_odpo\"", "\"id\": \"rewards\"", "there is a stage \"rewards\" already"),
        ("\"rewards\": \"rewards\"", "\"rewards\": \"mo_odpo\"", "which is no earlier stage"),
        ("\"device\": \"cpu\"", "\"device\": \"gpu\"", "device is \"gpu\"; it can be"),
        ("\"dirichlet\"", "\"dirichlt\"", "did you mean \"dirichlet\"?"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        std::fs::write(&path, text).unwrap();
        let message = failure(motrain(f.path()).args(["--resume", "run"]));
        assert!(message.contains(expected), "{from}: {message}");
    }
    assert!(!f.path().join("escaped").exists() && !f.path().parent().unwrap().join("escaped").exists());
}
