//! What `motrain check --memory` says before anything is loaded.

use insta::assert_snapshot;
use motrain_tests::{binary, failure, motrain, root, success, text, write};
use std::path::Path;
use std::process::Command;

/// Lines of the table, without words about how many stages there are.
fn said(folder: &Path, arguments: &[&str]) -> String {
    success(motrain(folder).args(["check", "--memory", "--set", "dtype=bf16"]).args(arguments))
}

#[test]
fn each_stage_says_what_it_takes() {
    let f = tempfile::tempdir().unwrap();
    assert_snapshot!("embedded", said(f.path(), &["experiments/hh.rhai"]));
    // Every kind of stage, on models that only earlier stages make.
    success(motrain(f.path()).args(["make-data", "hh", "data"]));
    let script = root().join("xtask/campaign/every_stage.rhai").display().to_string();
    assert_snapshot!("every_stage", said(f.path(), &[&script]));
}

/// GB of the stage that takes most.
fn fullest(said: &str) -> f64 {
    let line = said.lines().find(|line| line.contains("at the fullest, in stage")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

const SCRIPT: &str = r#"
let prompts = #{ paths: ["prompts.jsonl"], max_prompt_tokens: 512 };
let scored = rewards("rewards", #{
    sources: [reward("Helpful", "reward_model", #{ model: "scorer", template: "plain" }), reward("Asked", "remote", #{ url: "http://localhost:1/" })],
    policy: "policy", prompts: prompts, samples: 8,
});
online_preference("policy", #{
    policy: "policy", prompts: prompts, rewards: scored, sampler: sampler("fixed", #{ weights: [0.5, 0.5] }), conditioner: conditioner("weight_prefix"),
    label: label("weighted_sum"), loss: loss("dpo"), train: #{ batch_size: 8, micro_batch_size: 8 TRAIN }, lora: LORA,
});
"#;

/// A folder with config.json and no weights, of a Llama with 32 layers of 4096: Llama 2's 7B.
fn config(layers: usize, class: &str) -> String {
    format!(
        r#"{{"architectures": ["{class}"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": {layers}, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2{labels}}}"#,
        labels = if class.ends_with("Classification") { r#", "id2label": {"0": "reward"}"# } else { "" }
    )
}

fn seven_billion(folder: &Path, train: &str, lora: &str) {
    for (name, class) in [("policy", "LlamaForCausalLM"), ("scorer", "LlamaForSequenceClassification")] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        write(folder, &format!("{name}/config.json"), &config(32, class));
    }
    write(folder, "prompts.jsonl", "{\"prompt\": \"How do I pick a lock?\"}\n");
    write(folder, "s.rhai", &SCRIPT.replace("TRAIN", train).replace("LORA", lora));
}

#[test]
fn a_folder_without_weights_will_do() {
    let f = tempfile::tempdir().unwrap();
    seven_billion(f.path(), ", gradient_checkpointing: true, micro_batch_tokens: 4096", "true");
    let gpu = ["s.rhai", "--set", "device=cuda"];
    assert_snapshot!("seven_billion", said(f.path(), &gpu));
}

/// A blend of adapters has their base once, one of models each of them; each part has a cache of its own.
#[test]
fn a_blend_holds_all_its_models() {
    let f = tempfile::tempdir().unwrap();
    let front = |lora: &str, parts: &str| -> [f64; 2] {
        seven_billion(f.path(), "", lora);
        let prompts = "{\"prompt\": \"How do I pick a lock?\"}\n".repeat(192);
        write(f.path(), "prompts.jsonl", &prompts);
        let script = std::fs::read_to_string(f.path().join("s.rhai")).unwrap();
        let script = script.replace("online_preference(", "let part = online_preference(");
        let front = format!(
            "evaluate(\"front\", #{{ name: \"MOD\", rewards: scored, conditioner: conditioner(\"none\"), prompts: prompts, \
             generate: #{{ max_new_tokens: 512 }}, blend: #{{ base: \"policy\", parts: {parts}, strength: 2.0 }} }});"
        );
        write(f.path(), "s.rhai", &format!("{script}{front}"));
        let said = said(f.path(), &["s.rhai"]);
        let line = said.lines().find(|line| line.starts_with("front")).unwrap_or_else(|| panic!("{said}"));
        ["weights computed with", "keys and values"].map(|what| {
            let before = line.split(what).next().unwrap().trim_end();
            before.split([' ', ',']).next_back().unwrap().parse().unwrap_or_else(|_| panic!("no {what}: {line}"))
        })
    };
    let ([base, one], [same, two]) = (front("true", "[part]"), front("true", "[part, part]"));
    let [three, _] = front("false", "[part, part]");
    assert!(same < 1.1 * base && three > 2.9 * base, "{base} GB, with another adapter {same}, of models {three}");
    assert!((two - 1.5 * one).abs() < 0.02 * two, "caches of {two} GB, of one part and its base {one}");
}

/// The options that cost or save memory do so in the estimate.
#[test]
fn options_change_the_estimate() {
    let f = tempfile::tempdir().unwrap();
    let peak = |train: &str, lora: &str, more: &[&str]| -> f64 {
        seven_billion(f.path(), train, lora);
        let said = said(f.path(), &[&["s.rhai"], more].concat());
        fullest(&said)
    };
    let whole = peak("", "false", &[]);
    for (train, lora, more) in [
        (", gradient_checkpointing: true", "false", &[][..]),
        (", micro_batch_tokens: 700", "false", &[]),
        ("", "true", &[]),
    ] {
        let less = peak(train, lora, more);
        assert!(less < 0.99 * whole, "{train} {lora} {more:?}: {less} of {whole} GB");
    }
    let wide = peak("", "false", &["--set", "dtype=f32"]);
    assert!(wide > 1.05 * whole, "{wide} of {whole} GB");
}

#[test]
fn what_a_check_refuses_is_refused() {
    let f = tempfile::tempdir().unwrap();
    seven_billion(f.path(), "", "#{ targets: [\"c_attn\"] }");
    let refused = || failure(motrain(f.path()).args(["check", "--memory", "s.rhai"]));
    let mut messages = vec![refused()];
    write(
        f.path(),
        "policy/config.json",
        &config(32, "LlamaForCausalLM").replace("\"rms_norm_eps\"", "\"hidden_act\": \"swiglu\", \"rms_norm_eps\""),
    );
    messages.push(refused());
    std::fs::remove_dir_all(f.path().join("policy")).unwrap();
    messages.push(refused());
    assert_snapshot!("refused", messages.join("\n\n"));
}

/// A step of SmolLM2 as docs/performance.md has it, of `rows` prompts at once and answers of `new` tokens.
fn smollm2(folder: &Path, options: &str, rows: usize, new: usize) {
    let prompt = "What do you think about the way people learn to play music at home, without any help?";
    write(folder, "prompts.jsonl", &format!("{{\"prompt\": \"{prompt}\"}}\n").repeat(8));
    let script = r#"
        let policy = path("models/smollm2");
        let prompts = #{ paths: ["prompts.jsonl"] };
        let scored = rewards("rewards", #{
            sources: [reward("Short", "length", #{ target: 20.0 }), reward("Long", "length", #{ target: 60.0 })],
            policy: policy, prompts: prompts, samples: 4, generate: #{ max_new_tokens: NEW },
        });
        online_preference("policy", #{
            policy: policy, prompts: prompts, rewards: scored, sampler: sampler("dirichlet"), conditioner: conditioner("weight_prefix"),
            label: label("weighted_sum"), loss: loss("dpo"), generate: #{ max_new_tokens: NEW }, optimizer: #{ lr: 1e-5 }, OPTIONS
            train: #{ steps: 3, batch_size: 8, micro_batch_size: ROWS, gradient_checkpointing: CHECKPOINTING },
        });
    "#;
    let (lora, checkpointing) = (options.contains("lora"), options.contains("checkpointing"));
    let script =
        script.replace("OPTIONS", &format!("lora: {lora},")).replace("CHECKPOINTING", &checkpointing.to_string());
    write(folder, "s.rhai", &script.replace("NEW", &new.to_string()).replace("ROWS", &rows.to_string()));
}

/// The table of docs/performance.md: estimates beside what `time` measures.
#[test]
#[ignore = "needs models/smollm2, /usr/bin/time and some minutes: cargo test -p motrain-tests --test memory -- --ignored --nocapture"]
fn estimates_are_within_15_percent_of_what_is_measured() {
    let mut far = Vec::new();
    for (options, rows, new) in
        [("", 8, 64), ("checkpointing", 8, 64), ("lora", 8, 64), ("lora checkpointing", 8, 64), ("", 4, 128)]
    {
        let f = tempfile::tempdir().unwrap();
        smollm2(f.path(), options, rows, new);
        let estimated = fullest(&success(motrain(f.path()).args(["check", "--memory", "s.rhai"])));
        let mut time = Command::new("/usr/bin/time");
        time.args(["-f", "%M"]).arg(binary()).args(["--script", "s.rhai", "--out", "run"]);
        let output = time.current_dir(f.path()).env("MOTRAIN_HOME", root()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let kilobytes: f64 = text(&output.stderr).trim().lines().last().unwrap().parse().unwrap();
        let measured = kilobytes * 1024.0 / 1e9;
        println!("{options:<20} {rows} rows, {new} new tokens: {estimated:.2} GB estimated, {measured:.2} GB measured");
        if (estimated / measured - 1.0).abs() > 0.15 {
            far.push(options);
        }
    }
    assert!(far.is_empty(), "{far:?}");
}
