//! Bad input through the binary: each gets an error that names what, where and how to mend it, and loses nothing.

use motrain_tests::{copy_model, failure, motrain, root, small, small_run, start, success, text, wait_for, write};
use std::path::Path;
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The message with the temporary folder and the source tree taken out.
fn shown(message: &str, folder: &Path) -> String {
    message.replace(&folder.display().to_string(), "[tmp]").replace(&root().display().to_string(), "[home]")
}

/// A run with one setting changed.
fn with(folder: &Path, set: &str) -> String {
    shown(&failure(small_run(folder, "out").args(["--set", set])), folder)
}

#[test]
fn missing_and_damaged_models() {
    let f = folder();
    insta::assert_snapshot!("missing_model", with(f.path(), "tasks.hh.policy=nowhere"));
    let model = f.path().join("model");
    copy_model(&root().join("assets/hh/policy"), &model);
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    insta::assert_snapshot!("truncated_model", with(f.path(), "tasks.hh.policy=model"));
    std::fs::write(&weights, &bytes).unwrap();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), config.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"))
        .unwrap();
    insta::assert_snapshot!("missing_tensors", with(f.path(), "tasks.hh.policy=model"));
    std::fs::write(model.join("config.json"), config.replace("\"llama\"", "\"mamba\"")).unwrap();
    insta::assert_snapshot!("other_family", with(f.path(), "tasks.hh.policy=model"));
}

#[test]
fn a_tokenizer_of_another_model() {
    let f = folder();
    let model = f.path().join("model");
    copy_model(&root().join("assets/hh/policy"), &model);
    std::fs::copy(root().join("models/smollm2/tokenizer.json"), model.join("tokenizer.json")).unwrap();
    insta::assert_snapshot!(with(f.path(), "tasks.hh.policy=model"));
}

#[test]
fn malformed_empty_and_overlong_data() {
    let f = folder();
    let prompts = |content: &str| {
        write(f.path(), "p.jsonl", content);
        with(f.path(), "tasks.hh.prompts={ paths = [\"p.jsonl\"], test_share = 0.2 }")
    };
    insta::assert_snapshot!("malformed", prompts("{\"prompt\": \"a\"}\n{\"prompt\" \"b\"}\n"));
    insta::assert_snapshot!("no_column", prompts("{\"text\": \"a\"}\n"));
    insta::assert_snapshot!("empty", prompts(""));
    let long = "How do I pick a lock? ".repeat(80);
    let message =
        failure(small_run(f.path(), "out").args([
            "--set",
            "tasks.hh.prompts={ paths = [\"p.jsonl\"], test_share = 1e-6, max_prompt_tokens = 100000 }",
        ]));
    assert!(message.contains("holds no rows"), "{message}");
    write(f.path(), "p.jsonl", &format!("{{\"prompt\": \"{long}\"}}\n"));
    let overlong =
        failure(small_run(f.path(), "out").args([
            "--set",
            "tasks.hh.prompts={ paths = [\"p.jsonl\"], test_share = 1e-6, max_prompt_tokens = 100000 }",
        ]));
    insta::assert_snapshot!("overlong", shown(&overlong, f.path()));
}

#[test]
fn failing_rewards_name_the_example() {
    let f = folder();
    let script = |source: &str| {
        let text = format!(
            "let task = cfg.tasks.hh;\nrewards(\"rewards\", #{{ sources: [{source}], policy: path(task.policy),\n\
             prompts: #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }}, samples: 8, generate: #{{ max_new_tokens: 4 }} }});\n"
        );
        write(f.path(), "r.rhai", &text);
        shown(&failure(motrain(f.path()).args(["--script", "r.rhai", "--out", "out"])), f.path())
    };
    insta::assert_snapshot!("no_column_reward", script("reward(\"R\", \"column\", #{ column: \"score\" })"));
    insta::assert_snapshot!("constant", script("reward(\"R\", \"regex\", #{ pattern: \"zzzz\" })"));
    let infinite =
        script("reward_fn(\"R\", |prompt, answer| if prompt.len() > 9 && answer.len() > 2 { 1.0 / 0.0 } else { 1.0 })");
    assert!(
        infinite.contains("reward \"R\" gave inf for this completion; a score must be a finite number"),
        "{infinite}"
    );
    assert!(infinite.contains("prompt:     [user]"), "{infinite}");
}

#[test]
fn unknown_options_and_devices() {
    let f = folder();
    insta::assert_snapshot!("no_cuda", with(f.path(), "device=cuda"));
    insta::assert_snapshot!("dtype", with(f.path(), "dtype=f17"));
    insta::assert_snapshot!("optimizer", with(f.path(), "tasks.hh.optimizer.name=sgd"));
    let out = motrain(f.path()).args(["--script", "x.rhai", "--frobnicate"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("unexpected argument '--frobnicate'"));
    insta::assert_snapshot!(
        "no_script",
        shown(&failure(motrain(f.path()).args(["--script", "nowhere.rhai"])), f.path())
    );
    insta::assert_snapshot!("no_run", shown(&failure(motrain(f.path()).args(["--resume", "nowhere"])), f.path()));
}

#[test]
fn a_truncated_checkpoint_is_named_and_the_one_before_it_serves() {
    let f = folder();
    let stage = f.path().join("out/stages/mo_odpo");
    let mut run = start(&mut small_run(f.path(), "out"));
    wait_for(|| stage.join("checkpoint-4").is_dir());
    run.kill().unwrap();
    run.wait().unwrap();
    let newest = if stage.join("checkpoint-6").is_dir() { 6 } else { 4 };
    let weights = stage.join(format!("checkpoint-{newest}/optimizer.safetensors"));
    std::fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(1000).unwrap();
    let output = motrain(f.path()).args(["--resume", "out"]).output().unwrap();
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    let truncated = format!("checkpoint-{newest}: this checkpoint is truncated: optimizer.safetensors has 1000 bytes");
    assert!(message.contains(&truncated), "{message}");
    assert!(message.contains(&format!("set aside; going on from that of step {}", newest - 2)), "{message}");
}

#[test]
fn a_full_disk_keeps_the_checkpoint_before() {
    let f = folder();
    success(&mut small_run(f.path(), "warm"));
    // A limit on file sizes (in blocks of 1024 bytes) stands in for a full disk: the weights do not fit, the logs do.
    let binary = motrain(f.path()).get_program().to_owned();
    let arguments: Vec<String> =
        small_run(f.path(), "out").get_args().map(|a| format!("'{}'", a.to_string_lossy())).collect();
    let line = format!("trap '' XFSZ; ulimit -f 1000; '{}' {}", binary.to_string_lossy(), arguments.join(" "));
    let output =
        Command::new("bash").args(["-c", &line]).current_dir(f.path()).env("MOTRAIN_HOME", root()).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("could not be saved") && message.contains("make room and resume"), "{message}");
    assert!(!f.path().join("out/stages/mo_odpo/checkpoint-2").exists());
    success(motrain(f.path()).args(["--resume", "out"]));
}

#[test]
fn a_run_folder_that_cannot_be_made() {
    let f = folder();
    write(f.path(), "file", "in the way");
    insta::assert_snapshot!(shown(&failure(&mut small_run(f.path(), "file/out")), f.path()));
}

#[test]
fn weights_of_the_wrong_length() {
    let f = folder();
    let script = "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\n\
        evaluate(\"e\", #{ name: \"x\", policy: path(task.policy), rewards: scored, conditioner: conditioner(\"none\"),\n\
        weights: [[0.5, 0.3, 0.2]], prompts: steer::prompt_data(task, \"test\") });\n";
    write(f.path(), "w.rhai", script);
    insta::assert_snapshot!("evaluate", failure(&mut small(f.path(), "w.rhai", "out")));
    success(&mut small_run(f.path(), "run"));
    let generate = |weights: &str| {
        failure(motrain(f.path()).args(["generate", "run", "--prompt", "Hello?", "--weights", weights]))
    };
    insta::assert_snapshot!("generate", generate("0.5,0.3,0.2"));
    insta::assert_snapshot!("generate_sum", generate("0.5,0.3"));
}
