//! Models of several families in one run: a Qwen-shaped policy trains an adapter against a GPT-2-shaped reward model with a tokenizer of its own and
//! an encoder classifier.

use motrain_tests::{
    copy_model, failure, library, motrain, read, root, signal, start, steps_done, success, text, wait_for, write,
};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The policy, with the tokenizer of the embedded tasks beside it, and a script that trains it.
fn prepare(folder: &Path, reward: &str) {
    copy_model(&root().join("tests/fixtures/mixed/policy"), &folder.join("policy"));
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(root().join("assets/hh/policy").join(file), folder.join("policy").join(file)).unwrap();
    }
    copy_model(&root().join("tests/fixtures/mixed/reward"), &folder.join("reward"));
    let encoder = root().join("tests/fixtures/encoders/roberta").display().to_string();
    let prompts = root().join("assets/hh/prompts.jsonl").display().to_string();
    let script = r#"
        let prompts = #{ paths: ["PROMPTS"], limit: 64 };
        let scored = rewards("rewards", #{
            sources: [
                reward("Length of breath", "reward_model", REWARD),
                reward("Peace", "motrain.encoder", #{ model: "ENCODER", label: "toxic", scale: -1.0 }),
            ],
            policy: "policy", prompts: prompts, samples: 32, generate: #{ max_new_tokens: 12 },
        });
        let policy = online_preference("online", #{
            policy: "policy", prompts: prompts, rewards: scored, sampler: sampler("dirichlet", #{ alpha: 1.0 }),
            conditioner: conditioner("weight_prefix"), label: label("weighted_sum"), loss: loss("dpo", #{ beta: 0.1 }),
            generate: #{ max_new_tokens: 12 }, train: #{ steps: 8, batch_size: 8, checkpoint_every: 3, gradient_checkpointing: true },
            optimizer: #{ lr: 1e-2 }, lora: #{ r: 4, alpha: 8.0, dropout: 0.1 },
        });
        evaluate("front", #{
            name: "MO-ODPO", policy: policy, rewards: scored, conditioner: conditioner("weight_prefix"),
            prompts: #{ paths: ["PROMPTS"], limit: 6 }, generate: #{ max_new_tokens: 12 },
        });
    "#;
    let script = script.replace("PROMPTS", &prompts).replace("ENCODER", &encoder).replace("REWARD", reward);
    write(folder, "s.rhai", &script);
}

fn run(folder: &Path, out: &str) -> Command {
    let mut run = motrain(folder);
    run.args(["--script", "s.rhai", "--out", out, "--plugin"]).arg(library("reward_encoder"));
    run
}

#[test]
fn families_work_together_and_a_killed_run_ends_with_the_same_bytes() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path(), r#"#{ model: "reward", template: "plain" }"#);
    success(&mut run(f.path(), "straight"));
    let mut child = start(&mut run(f.path(), "killed"));
    wait_for(|| steps_done(&f.path().join("killed"), "online") > 4 || child.try_wait().unwrap().is_some());
    signal(&child, "KILL");
    child.wait().unwrap();
    success(motrain(f.path()).args(["--resume", "killed", "--plugin"]).arg(library("reward_encoder")));
    for file in ["policy/adapter_model.safetensors", "metrics.jsonl", "completions.jsonl", "front.json"] {
        let bytes = |out: &str| read(f.path().join(out).join(file));
        assert!(bytes("straight") == bytes("killed"), "{file} differs");
    }
    let said = success(motrain(f.path()).args(["generate", "straight", "--weights", "1,0", "--prompt", "Hello"]));
    assert!(!said.is_empty());
}

/// Nobody knows in which form such a model reads text.
#[test]
fn a_reward_model_without_a_chat_template_needs_one() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path(), r#"#{ model: "reward" }"#);
    insta::assert_snapshot!(failure(&mut run(f.path(), "out")));
    assert!(!f.path().join("out/stages/rewards").exists());
}

/// Stages of which the last reads a model that is not as it should be: the first would train for hours.
fn last_reads(folder: &Path, options: &str) {
    let good = root().join("assets/hh/policy").display().to_string();
    write(folder, "rows.jsonl", "{\"prompt\": \"How do I pick a lock?\", \"completion\": \"I will not help.\"}\n");
    let script = format!(
        "let rows = #{{ paths: [\"rows.jsonl\"] }};\nlet first = sft(\"first\", #{{ model: \"{good}\", data: rows, train: #{{ steps: 2 }} }});\n\
         sft(\"last\", #{{ data: rows, {options} }});\n"
    );
    write(folder, "s.rhai", &script);
}

/// An adapter of a small Llama that says that it is one of another base.
fn adapter_of(folder: &Path, base: &str) {
    let from = root().join("tests/fixtures/families/llama_lora");
    copy_model(&from, &folder.join("adapter"));
    let mut said: Value = serde_json::from_slice(&read(from.join("adapter_config.json"))).unwrap();
    said["base_model_name_or_path"] = json!(base);
    write(folder, "adapter/adapter_config.json", &said.to_string());
}

#[test]
fn models_that_cannot_be_read_are_found_before_any_work() {
    let f = tempfile::tempdir().unwrap();
    let good = root().join("assets/hh/policy");
    let model = f.path().join("bad");
    copy_model(&good, &model);
    let mut all = Vec::new();
    let mut refused = |what: &str, options: &str| {
        last_reads(f.path(), options);
        let said = failure(motrain(f.path()).args(["check", "s.rhai"]));
        // A run says the same, and begins nothing.
        assert_eq!(said, failure(motrain(f.path()).args(["--script", "s.rhai", "--out", "out"])));
        assert!(!f.path().join("out").exists());
        let said =
            said.replace(&f.path().display().to_string(), "[tmp]").replace(&root().display().to_string(), "[home]");
        all.push(format!("{what}\n{said}"));
    };
    let file = |name: &str| String::from_utf8(read(good.join(name))).unwrap();
    let change =
        |name: &str, from: &str, to: &str| write(f.path(), &format!("bad/{name}"), &file(name).replacen(from, to, 1));
    change("config.json", "{", "{\"num_local_experts\": 8,");
    refused("experts", "model: \"bad\"");
    change("config.json", "{", "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"},");
    refused("quantised", "model: \"bad\"");
    change("config.json", "{", "{");
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    refused("no tokenizer", "model: \"bad\"");
    std::fs::copy(good.join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let weights = read(good.join("model.safetensors"));
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    refused("half of the weights", "model: \"bad\"");
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    refused("no weights", "model: \"bad\"");
    adapter_of(f.path(), &good.display().to_string());
    refused("an adapter of another base", "model: \"adapter\"");
    adapter_of(f.path(), "meta-llama/Llama-3.2-1B");
    refused("an adapter whose base is elsewhere", "model: \"adapter\"");
    let good = good.display();
    refused("targets", &format!("model: \"{good}\", lora: #{{ targets: [\"query\"] }}"));
    refused("targets of what a stage makes", "model: first, lora: #{ targets: \".*query\" }");
    insta::assert_snapshot!(all.join("\n\n"));
}

/// Of a run that goes on the open stages are looked at again.
#[test]
fn models_of_open_stages_are_looked_at_when_a_run_goes_on() {
    let f = tempfile::tempdir().unwrap();
    copy_model(&root().join("assets/hh/policy"), &f.path().join("bad"));
    last_reads(f.path(), "model: \"bad\", train: #{ steps: 1000000 }");
    let mut child = start(motrain(f.path()).args(["--script", "s.rhai", "--out", "out"]));
    wait_for(|| f.path().join("out/stages/last").exists());
    signal(&child, "KILL");
    child.wait().unwrap();
    std::fs::remove_file(f.path().join("bad/tokenizer.json")).unwrap();
    let said = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(said.contains("stage \"last\": bad/tokenizer.json: is missing"), "{said}");
}

/// As TRL: a plain text needs no template, a conversation does.
#[test]
fn a_policy_without_a_chat_template_reads_texts_and_no_conversations() {
    let f = tempfile::tempdir().unwrap();
    copy_model(&root().join("assets/hh/policy"), &f.path().join("policy"));
    std::fs::remove_file(f.path().join("policy/chat_template.jinja")).unwrap();
    let script = r#"rewards("r", #{ sources: [reward("R", "length")], policy: "policy", prompts: #{ paths: ["p.jsonl"] }, samples: 8,
        generate: #{ max_new_tokens: 4 } });"#;
    write(f.path(), "s.rhai", script);
    let run = || motrain(f.path()).args(["--script", "s.rhai", "--out", "out"]).output().unwrap();
    write(f.path(), "p.jsonl", "{\"prompt\": \"How do I pick a lock?\"}\n");
    let said = run();
    let stderr = text(&said.stderr);
    assert!(said.status.success(), "{stderr}");
    assert_eq!(
        stderr.matches("policy: has no chat template: a prompt of one turn is used as it is").count(),
        1,
        "{stderr}"
    );
    let turns = r#"[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Why?"}]"#;
    write(f.path(), "p.jsonl", &format!("{{\"prompt\": {turns}}}\n"));
    let stderr = text(&run().stderr);
    let error = &stderr[stderr.find("error").unwrap_or_default()..];
    insta::assert_snapshot!(error);
    // The template of the message is one.
    let template = error.split_once("for instance ").unwrap().1.lines().next().unwrap();
    write(f.path(), "policy/chat_template.jinja", template);
    let said = run();
    assert!(said.status.success(), "{}", text(&said.stderr));
}

/// A task of the configuration says it beside the model.
#[test]
fn a_task_says_how_its_reward_models_are_read() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path(), "#{}");
    let reward = f.path().join("reward").display().to_string();
    let check = |options: &str| {
        let rewards = format!("tasks.hh.rewards=[{{ name = \"A\", model = \"{reward}\"{options} }}]");
        let mut check = motrain(f.path());
        check.args(["check", "experiments/hh.rhai", "--set", &rewards]);
        check
    };
    success(&mut check(", options = { template = \"plain\", output = \"probability\" }"));
    assert!(failure(&mut check("")).contains("has no chat template"));
    assert!(failure(&mut check(", options = { template = \"plain\", label = \"best\" }")).contains("\"best\""));
}
