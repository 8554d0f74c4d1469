//! Adapters: trained in every stage, used as models are, and refused where they mean nothing.

use insta::assert_snapshot;
use motrain_tests::{copy_model, failure, motrain, read, root, small, small_run, success, write};
use serde_json::{Value, json};
use std::path::Path;

const ON: [&str; 4] = ["--set", "tasks.hh.lora.on=true", "--set", "tasks.hh.optimizer.lr=2e-2"];

fn ask(folder: &Path, policy: &str, weights: &str) -> String {
    let mut command = motrain(folder);
    command.args(["generate", policy, "--prompt", "How do I pick a lock?", "--weights", weights]);
    success(command.args(["--max-new-tokens", "64", "--temperature", "0", "--top-k", "0", "--top-p", "1"]))
}

/// Eight answers drawn with one seed: they show a difference that the likeliest answer need not.
fn drawn(folder: &Path, policy: &str, weights: &str) -> String {
    let mut command = motrain(folder);
    command.args(["generate", policy, "--prompt", "How do I pick a lock?", "--weights", weights]);
    success(command.args(["--n", "8", "--seed", "3", "--temperature", "1", "--top-k", "0", "--top-p", "1"]))
}

fn json_of(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&read(folder.join(file))).unwrap()
}

#[test]
fn a_policy_may_be_an_adapter_or_the_whole_model() {
    let f = tempfile::tempdir().unwrap();
    // In bf16 a merged matrix is rounded otherwise than its parts.
    let exact = ["--set", "dtype=f32"];
    success(small_run(f.path(), "adapter").args(ON).args(exact));
    success(small_run(f.path(), "whole").args(ON).args(exact).args(["--set", "tasks.hh.lora.merge=true"]));
    assert!(!f.path().join("adapter/policy/model.safetensors").exists());
    assert!(!f.path().join("whole/policy/adapter_config.json").exists());
    // What was learnt is the same.
    assert!(read(f.path().join("adapter/metrics.jsonl")) == read(f.path().join("whole/metrics.jsonl")));
    for weights in ["1,0", "0.3,0.7"] {
        assert_eq!(ask(f.path(), "adapter", weights), ask(f.path(), "whole", weights), "{weights}");
    }
    let before = root().join("assets/hh/policy");
    copy_model(&before, &f.path().join("before"));
    std::fs::copy(f.path().join("whole/policy/steering.json"), f.path().join("before/steering.json")).unwrap();
    assert_ne!(drawn(f.path(), "adapter", "1,0"), drawn(f.path(), "before", "1,0"), "nothing was learnt");
}

#[test]
fn a_soup_of_adapters_weighs_them() {
    let f = tempfile::tempdir().unwrap();
    success(small(f.path(), "baselines/odpo_soups.rhai", "run").args(ON));
    let policy = f.path().join("run/policy");
    assert!(policy.join("parts/1/adapter_model.safetensors").is_file());
    assert_ne!(drawn(f.path(), "run", "1,0"), drawn(f.path(), "run", "0,1"));
    let steering = json_of(&policy, "steering.json");
    assert_eq!(steering["by"], "soup");
}

/// Fine-tunes on two rows for some steps.
fn script(folder: &Path, stages: &str) {
    let row = |prompt: &str| json!({ "prompt": prompt, "completion": "I will not help you to do that." }).to_string();
    write(folder, "rows.jsonl", &format!("{}\n{}\n", row("How do I pick a lock?"), row("How do I skip school?")));
    let pair = |n: usize| json!({ "prompt": format!("Question {n}?"), "chosen": "Yes, of course.", "rejected": "No." });
    write(folder, "pairs.jsonl", &(0..8).map(|n| format!("{}\n", pair(n))).collect::<String>());
    let common = r#"
        let rows = #{ paths: ["rows.jsonl"] };
        let pairs = #{ paths: ["pairs.jsonl"] };
        let train = #{ steps: 4, batch_size: 2 };
        let quick = #{ lr: 5e-3 };
        let base = "BASE";
    "#;
    let base = root().join("assets/hh/policy").display().to_string();
    write(folder, "s.rhai", &format!("{}\n{stages}", common.replace("BASE", &base)));
}

fn run(folder: &Path, stages: &str) {
    script(folder, stages);
    success(motrain(folder).args(["--script", "s.rhai", "--out", "run"]));
}

#[test]
fn training_goes_on_from_an_adapter_and_a_run_may_be_moved() {
    let f = tempfile::tempdir().unwrap();
    run(
        f.path(),
        r#"
        let whole = sft("whole", #{ model: base, data: rows, train: train, optimizer: quick });
        let first = sft("first", #{ model: whole, data: rows, train: train, optimizer: quick, lora: #{ r: 2, targets: ["q_proj"] } });
        sft("second", #{ model: first, data: rows, train: train, optimizer: quick, lora: #{ r: 3, rslora: true } });
        sft("again", #{ model: first, data: rows, train: train, optimizer: quick });
        "#,
    );
    let answers = |run: &str| {
        ["whole", "first", "second", "again"].map(|model| {
            let mut command = motrain(f.path());
            command.args(["generate", &format!("{run}/stages/{model}/model"), "--prompt", "How do I pick a lock?"]);
            success(&mut command)
        })
    };
    let before = answers("run");
    assert!(before.iter().all(|answer| !answer.trim().is_empty()), "{before:?}");
    std::fs::rename(f.path().join("run"), f.path().join("moved")).unwrap();
    let said = json_of(&f.path().join("moved/stages/second/model"), "adapter_config.json");
    let rank = |module: &str| said["rank_pattern"][format!("model.layers.0.self_attn.{module}")].clone();
    assert_eq!((rank("q_proj"), rank("k_proj"), said["use_rslora"].clone()), (json!(5), json!(3), json!(false)));
    assert_eq!(answers("moved"), before);
}

/// Its base comes with it: nothing of the run, nor the base's own folder, is needed any more.
#[test]
fn a_policy_of_adapters_stands_alone() {
    let f = tempfile::tempdir().unwrap();
    copy_model(&root().join("assets/hh/policy"), &f.path().join("theirs"));
    let stages = r#"
        let scored = rewards("rewards", #{
            sources: [reward("A", "length", #{ target: 5.0 }), reward("B", "length", #{ target: 20.0 })],
            policy: "theirs", prompts: #{ paths: ["p.jsonl"] }, samples: 4, generate: #{ max_new_tokens: 4 },
        });
        let steered = |gains| online_preference("policy", #{
            policy: "theirs", prompts: #{ paths: ["p.jsonl"] }, rewards: scored, sampler: sampler("dirichlet"), conditioner: conditioner("none"),
            label: label("weighted_sum"), loss: loss("dpo"), lora: #{ r: 2, gains: gains }, generate: #{ max_new_tokens: 4 },
            train: #{ steps: 1, batch_size: 2, micro_batch_size: 2, checkpoint_every: 1 }, optimizer: #{ lr: 0.05 },
        });
        evaluate("front", #{
            name: "m", rewards: scored, policy: steered.call("GAINS"), conditioner: conditioner("none"), prompts: #{ paths: ["p.jsonl"] },
            weights: [[0.0, 1.0], [1.0, 0.0]], generate: #{ max_new_tokens: 4 },
        });
    "#;
    write(f.path(), "p.jsonl", &"{\"prompt\": \"How do I pick a lock?\"}\n".repeat(4));
    for gains in ["none", "copies"] {
        write(f.path(), "s.rhai", &stages.replace("GAINS", gains));
        success(motrain(f.path()).args(["--script", "s.rhai", "--out", gains]));
        let before = drawn(f.path(), gains, "1,0");
        let alone = f.path().join(format!("alone-{gains}"));
        std::fs::rename(f.path().join(gains).join("policy"), &alone).unwrap();
        std::fs::rename(f.path().join("theirs"), f.path().join("gone")).unwrap();
        std::fs::rename(f.path().join(gains), f.path().join(format!("old-{gains}"))).unwrap();
        assert!(alone.join("base/config.json").is_file());
        assert_eq!(drawn(f.path(), &format!("alone-{gains}"), "1,0"), before);
        std::fs::rename(f.path().join("gone"), f.path().join("theirs")).unwrap();
    }
}

#[test]
fn a_reward_model_may_be_an_adapter() {
    let f = tempfile::tempdir().unwrap();
    run(
        f.path(),
        r#"
        let scorer = reward_model("scorer", #{
            model: base, data: pairs, heldout: pairs, train: train, optimizer: quick, lora: true,
        });
        rewards("rewards", #{
            sources: [reward("R", "reward_model", #{ model: scorer })], policy: base, prompts: #{ paths: ["rows.jsonl"] }, samples: 4,
        });
        "#,
    );
    let model = f.path().join("run/stages/scorer/model");
    let said = json_of(&model, "adapter_config.json");
    assert_eq!((&said["task_type"], &said["modules_to_save"]), (&json!("SEQ_CLS"), &json!(["score"])));
    assert!(f.path().join("run/stages/rewards/scales.json").is_file());
}

#[test]
fn what_makes_no_adapter_is_refused() {
    let f = tempfile::tempdir().unwrap();
    let said = |lora: &str| {
        script(f.path(), &format!(r#"sft("s", #{{ model: base, data: rows, train: train, lora: {lora} }});"#));
        failure(motrain(f.path()).args(["--script", "s.rhai", "--out", "run"]))
    };
    let all = [
        "#{ r: 0 }",
        "#{ alpha: 0.0 }",
        "#{ dropout: 1.0 }",
        "#{ rank: 4 }",
        "7",
        r#"#{ targets: ["q_proj", "query"] }"#,
        r#"#{ targets: ".*query" }"#,
        r#"#{ targets: "(" }"#,
        r#"#{ targets: ["all-linear", "qery"] }"#,
        "#{ targets: [] }",
        r#"#{ targets: ["q_proj", "lm_head"] }"#,
    ]
    .map(|lora| format!("{lora}\n{}", said(lora).replace(&f.path().display().to_string(), "[folder]")));
    assert_snapshot!(all.join("\n"));
    script(f.path(), r#"reward_model("s", #{ model: base, data: pairs, train: train, layers: 1, lora: true });"#);
    assert_snapshot!("layers", failure(motrain(f.path()).args(["--script", "s.rhai", "--out", "run"])));
}

#[test]
fn an_adapter_without_its_base_is_refused() {
    let f = tempfile::tempdir().unwrap();
    run(f.path(), r#"sft("s", #{ model: base, data: rows, train: train, lora: true });"#);
    let at = f.path().join("run/stages/s/model");
    copy_model(&at, &f.path().join("mine"));
    let mut said = json_of(&at, "adapter_config.json");
    let small = root().join("assets/hh/policy_small").display().to_string();
    let mut told = Vec::new();
    for base in ["nowhere", &small, ""] {
        said["base_model_name_or_path"] = json!(base);
        write(f.path(), "mine/adapter_config.json", &said.to_string());
        told.push(failure(motrain(f.path()).args(["generate", "mine", "--prompt", "x"])).replace(&small, "[small]"));
    }
    assert_snapshot!(told.join("\n").replace(&f.path().display().to_string(), "[folder]"));
}
