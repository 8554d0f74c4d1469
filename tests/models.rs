//! Models of several families in one run: a Qwen-shaped policy trains an adapter against a GPT-2-shaped reward model with a tokenizer of its own and
//! an encoder classifier.

use motrain_tests::{
    copy_model, failure, library, motrain, read, root, signal, start, steps_done, success, wait_for, write,
};
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
