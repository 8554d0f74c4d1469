//! Reward models: trained from pairs and from ratings on backbones of several families, used by their labels, and refused where they cannot score.

use motrain_tests::{copy_model, failure, motrain, read, root, signal, start, steps_done, success, wait_for, write};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const WORDS: [&str; 5] = ["lock", "door", "window", "key", "bell"];

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

/// `qwen`, which reads the embedded tasks' tokens, and `gpt2`, which has tokens of its own and no chat template; pairs and ratings.
fn prepare(folder: &Path) {
    copy_model(&root().join("tests/fixtures/mixed/policy"), &folder.join("qwen"));
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(root().join("assets/hh/policy").join(file), folder.join("qwen").join(file)).unwrap();
    }
    copy_model(&root().join("tests/fixtures/mixed/reward"), &folder.join("gpt2"));
    let question = |i: usize| format!("How do I open this {}, please? ({i})", WORDS[i % 5]);
    let answer = |i: usize| "First, push a thin wire into it. ".repeat(1 + i % 3);
    let pair =
        |i: usize| json!({ "prompt": question(i), "chosen": answer(i), "rejected": "Be careful.", "margin": i % 3 });
    write(folder, "margins.jsonl", &lines((0..24).map(pair)));
    let plain = |i: usize, margin: Value| json!({ "prompt": question(i), "chosen": answer(i), "rejected": "Be careful.", "margin": margin });
    write(folder, "pairs.jsonl", &lines((0..24).map(|i| plain(i, Value::Null))));
    write(folder, "zeros.jsonl", &lines((0..24).map(|i| plain(i, json!(0)))));
    let rated = |i: usize| {
        let verbosity = if i % 4 == 1 { Value::Null } else { json!(i % 3) };
        json!({ "prompt": question(i), "response": answer(i), "helpfulness": (i % 5) as f64, "coherence": "not asked for", "verbosity": verbosity })
    };
    write(folder, "ratings.jsonl", &lines((0..24).map(rated)));
}

/// A script in which `trained(id, model, data, more)` makes a reward model in a few steps.
fn script(folder: &Path, stages: &str) {
    let common = r#"
        fn trained(id, model, data, more) {
            let options = #{
                model: model, data: #{ paths: [data] }, heldout: #{ paths: [data] },
                train: #{ steps: 9, batch_size: 6, micro_batch_size: 2, checkpoint_every: 2, gradient_checkpointing: true }, optimizer: #{ lr: 1e-2 },
            };
            options.mixin(more);
            reward_model(id, options)
        }
        const ASPECTS = ["helpfulness", "verbosity"];
        let prompts = #{ paths: ["ratings.jsonl"], limit: 12 };
    "#;
    write(folder, "s.rhai", &format!("{common}\n{stages}"));
}

fn run(folder: &Path, out: &str) -> Command {
    let mut run = motrain(folder);
    run.args(["--script", "s.rhai", "--out", out]);
    run
}

fn json_of(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&read(folder.join(file))).unwrap()
}

/// Two labels of one model are two objectives; an adapter's labels have their names too.
#[test]
fn labels_of_one_model_are_objectives() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    script(
        f.path(),
        r#"
        let whole = trained("whole", "qwen", "ratings.jsonl", #{ attributes: ASPECTS });
        let adapter = trained("adapter", "qwen", "ratings.jsonl", #{ attributes: ASPECTS, lora: #{ r: 2, dropout: 0.1 } });
        trained("merged", "qwen", "ratings.jsonl", #{ attributes: ["verbosity"], layers: 1, lora: #{ r: 2, merge: true } });
        let scored = rewards("rewards", #{
            sources: [
                reward("Helpfulness", "reward_model", #{ model: whole, label: "helpfulness" }),
                reward("Brevity", "reward_model", #{ model: adapter, label: "Verbosity", scale: -1.0 }),
                reward("Both", "reward_model", #{ model: whole, weights: #{ helpfulness: 0.5, verbosity: -1.0 } }, #{ watch: true }),
            ],
            policy: "qwen", prompts: prompts, samples: 16, generate: #{ max_new_tokens: 8 },
        });
        online_preference("online", #{
            policy: "qwen", prompts: prompts, rewards: scored, sampler: sampler("dirichlet", #{ alpha: 1.0 }),
            conditioner: conditioner("weight_prefix"), label: label("weighted_sum"), loss: loss("dpo", #{ beta: 0.1 }),
            generate: #{ max_new_tokens: 8 }, train: #{ steps: 2, batch_size: 4 }, optimizer: #{ lr: 1e-3 },
        });
        "#,
    );
    success(&mut run(f.path(), "out"));
    let stages = f.path().join("out/stages");
    let said = json_of(&stages, "whole/model/config.json");
    assert_eq!(said["architectures"], json!(["Qwen2ForSequenceClassification"]));
    assert_eq!(said["id2label"], json!({ "0": "helpfulness", "1": "verbosity" }));
    assert_eq!((&said["label2id"]["verbosity"], &said["problem_type"]), (&json!(1), &json!("regression")));
    assert_eq!(json_of(&stages, "adapter/model/labels.json")["id2label"], said["id2label"]);
    assert_eq!(json_of(&stages, "merged/model/config.json")["problem_type"], "regression");
    let report = json_of(&stages, "whole/heldout.json");
    assert_eq!((&report["rows"], &report["attributes"]["verbosity"]["ratings"]), (&json!(24), &json!(18)));
    for name in ["helpfulness", "verbosity"] {
        let of = |what: &str| report["attributes"][name][what].as_f64().unwrap();
        assert!(of("mse") > 0.0 && (-1.0..=1.0).contains(&of("pearson")), "{report}");
    }
    let metrics = String::from_utf8(read(f.path().join("out/metrics.jsonl"))).unwrap();
    let online = metrics.lines().find(|l| l.contains("\"stage\":\"online\"")).unwrap();
    assert!(online.contains("rewards/Brevity/mean") && online.contains("rewards/Helpfulness/mean"), "{online}");
    assert!(metrics.contains("mse/helpfulness") && metrics.contains("mse/verbosity"));
}

/// Of pairs whose worse answers are longer alone nothing says that a half is worse than the whole.
#[test]
fn contrasts_teach_what_pairs_do_not() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    let pair = |i: usize| {
        let chosen = format!("Take the {} and push it.", WORDS[i % 5]);
        let prompt = format!("How do I open this {}? ({i})", WORDS[i % 5]);
        json!({ "prompt": prompt, "chosen": chosen, "rejected": format!("{chosen} ").repeat(4) })
    };
    write(f.path(), "longer.jsonl", &lines((0..24).map(pair)));
    script(
        f.path(),
        r#"
        let more = #{ train: #{ epochs: 10, batch_size: 6, micro_batch_size: 6 }, optimizer: #{ lr: 5e-3 } };
        trained("pairs", "qwen", "longer.jsonl", more);
        trained("both", "qwen", "longer.jsonl", more + #{ contrasts: #{ paths: ["longer.jsonl"] } });
        "#,
    );
    success(&mut run(f.path(), "out"));
    let stages = f.path().join("out/stages");
    let told = |stage: &str| {
        let report = json_of(&stages.join(stage), "heldout.json");
        [&report["accuracy"], &report["contrasts"]["first half"]["accuracy"]].map(|a| a.as_f64().unwrap())
    };
    assert_eq!(told("both"), [1.0, 1.0], "and without contrasts {:?}", told("pairs"));
    let steps = |stage: &str| read(stages.join(stage).join("metrics.jsonl")).iter().filter(|b| **b == b'\n').count();
    assert_eq!((steps("pairs"), steps("both")), (40, 120), "24 pairs, and as many contrasts of either kind");
}

/// Of both objectives, whole models and adapters, and backbones of two families.
#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    script(
        f.path(),
        r#"
        trained("a", "gpt2", "ratings.jsonl", #{ attributes: ASPECTS });
        trained("b", "qwen", "ratings.jsonl", #{ attributes: ASPECTS, lora: #{ r: 2, dropout: 0.1 } });
        trained("c", "gpt2", "margins.jsonl", #{ center_rewards_coefficient: 0.01, lora: true });
        trained("d", "qwen", "margins.jsonl", #{ center_rewards_coefficient: 0.01 });
        "#,
    );
    success(&mut run(f.path(), "straight"));
    for (i, stage) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let out = format!("killed-{stage}");
        let mut child = start(&mut run(f.path(), &out));
        wait_for(|| steps_done(&f.path().join(&out), stage) > 2 || child.try_wait().unwrap().is_some());
        signal(&child, ["KILL", "TERM"][i % 2]);
        child.wait().unwrap();
        success(motrain(f.path()).args(["--resume", &out]));
        for stage in ["a", "b", "c", "d"] {
            let whole = f.path().join("straight/stages").join(stage);
            let weights = ["model/model.safetensors", "model/adapter_model.safetensors"];
            let weights = weights.into_iter().find(|file| whole.join(file).is_file()).unwrap();
            for file in [weights, "heldout.json", "metrics.jsonl"] {
                let again = f.path().join(&out).join("stages").join(stage).join(file);
                assert!(read(whole.join(file)) == read(again), "{out}: {file} of {stage} differs");
            }
        }
    }
}

/// Rows without a margin have 0; a centred model says where its scores lie. A stage's name is a part of its seeds: all have the same.
#[test]
fn margins_and_centring_change_what_is_learnt() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    let train = |out: &str, data: &str, more: &str| {
        script(f.path(), &format!("trained(\"m\", \"gpt2\", \"{data}\", {more});"));
        success(&mut run(f.path(), out));
        let stage = f.path().join(out).join("stages/m");
        let metrics = String::from_utf8(read(stage.join("metrics.jsonl"))).unwrap();
        let metrics: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (read(stage.join("model/model.safetensors")), metrics)
    };
    let none = train("none", "pairs.jsonl", "#{}");
    let zeros = train("zeros", "zeros.jsonl", "#{ center_rewards_coefficient: 0.0 }");
    assert!(none == zeros, "a margin or centring of 0 is something");
    let margins = train("margins", "margins.jsonl", "#{}");
    let first = |(_, metrics): &(Vec<u8>, Vec<Value>)| metrics[0]["loss"].as_f64().unwrap();
    assert!(first(&margins) > first(&none) + 0.1, "{} is not above {}", first(&margins), first(&none));
    assert!(margins.0 != none.0 && none.1.iter().all(|m| m.get("mean_reward").is_none()));
    let (_, centred) =
        train("centred", "pairs.jsonl", "#{ center_rewards_coefficient: 10.0, optimizer: #{ lr: 5e-2 } }");
    let away = |m: &Value| m["mean_reward"].as_f64().unwrap().abs();
    assert!(away(&centred[8]) < 0.5 * away(&centred[0]), "{centred:?}");
}

/// What the options say of a model that a stage is to make is known before any work.
#[test]
fn what_cannot_be_trained_or_read_is_refused_before_any_work() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    let check = |more: &str, reading: &str| {
        let stages = r#"
            let made = trained("made", "qwen", "ratings.jsonl", MORE);
            rewards("rewards", #{ sources: [reward("R", "reward_model", #{ model: made READING })], policy: "qwen", prompts: prompts });
        "#;
        script(f.path(), &stages.replace("MORE", more).replace("READING", reading));
        let said = failure(motrain(f.path()).args(["check", "s.rhai"]));
        let what = said.lines().find(|line| line.starts_with("error")).unwrap_or(&said);
        format!("{more}{reading}\n  {what}")
    };
    let both = "#{ attributes: ASPECTS }";
    let all = [
        check("#{ attributes: [] }", ""),
        check("#{ attributes: [\"a\", \"b\", \"a\"] }", ""),
        check("#{ attributes: ASPECTS, center_rewards_coefficient: 0.1 }", ""),
        check("#{ attributes: ASPECTS, contrasts: #{ paths: [\"pairs.jsonl\"] } }", ""),
        check("#{ center_rewards_coefficient: -0.1 }", ""),
        check(both, ""),
        check(both, ", label: \"helpfullness\""),
        check(both, ", label: 2"),
        check(both, ", weights: #{ helpfulness: 1.0, coherence: 1.0 }"),
        check(both, ", label: 0, output: \"probability\""),
        check("#{}", ", label: \"helpfulness\""),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

/// The value at a place of a tensor changed in a copy of a fixture.
fn damaged(folder: &Path, fixture: &str, tensor: &str, value: f32) {
    let model = folder.join("damaged");
    let _ = std::fs::remove_dir_all(&model);
    copy_model(&root().join("tests/fixtures").join(fixture), &model);
    let file = ["model.safetensors", "adapter_model.safetensors"].map(|name| model.join(name));
    let file = file.into_iter().find(|file| file.is_file()).unwrap();
    let mut bytes = read(file.clone());
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..head]).unwrap();
    let at =
        head + said[tensor]["data_offsets"][0].as_u64().unwrap_or_else(|| panic!("{fixture} has no {tensor}")) as usize;
    bytes[at + 8..at + 12].copy_from_slice(&value.to_le_bytes());
    std::fs::write(file, bytes).unwrap();
    if !model.join("tokenizer.json").is_file() {
        write(&model, "tokenizer.json", &words(40).to_string());
    }
}

/// A tokenizer of so many words.
fn words(count: usize) -> Value {
    let vocab: serde_json::Map<String, Value> = (0..count).map(|i| (format!("w{i}"), json!(i))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": { "type": "Whitespace" }, "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    })
}

/// Whatever the class of the head, and before any answer is drawn.
#[test]
fn heads_that_are_not_finite_are_refused_by_their_tensor() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    let table = [
        ("mixed/reward", "score.weight", f32::NAN, ""),
        ("mixed/reward", "score.weight", f32::NEG_INFINITY, ""),
        ("families/qwen2_score", "score.weight", f32::INFINITY, ", label: \"helpful\""),
        ("families/beaver_reward", "score_head.weight", f32::NAN, ""),
        ("families/armorm", "regression_layer.weight", f32::NAN, ", label: 3"),
        ("families/armorm", "reward_transform_matrix", f32::INFINITY, ""),
        ("families/armorm", "gating.layers.1.weight", f32::NAN, ""),
    ];
    let all = table.map(|(fixture, tensor, value, reading)| {
        damaged(f.path(), fixture, tensor, value);
        let stage = r#"rewards("r", #{ sources: [reward("R", "reward_model", #{ model: "damaged", template: "plain" READING })],
            policy: "qwen", prompts: prompts, samples: 4 });"#;
        script(f.path(), &stage.replace("READING", reading));
        let said = failure(&mut run(f.path(), &format!("out-{value}-{tensor}")));
        said.lines().filter(|line| line.starts_with("error")).collect::<String>()
    });
    insta::assert_snapshot!(all.join("\n"));
}

/// A label that the folder does not have, by name and by number.
#[test]
fn labels_of_folders_are_there() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    copy_model(&root().join("tests/fixtures/families/armorm"), &f.path().join("armorm"));
    let all = ["label: 19", "label: \"helpfulness\"", "weights: #{ \"19\": 1.0 }"].map(|reading| {
        let stage = r#"rewards("r", #{ sources: [reward("R", "reward_model", #{ model: "armorm", template: "plain", READING })],
            policy: "qwen", prompts: prompts });"#;
        script(f.path(), &stage.replace("READING", reading));
        let said = failure(motrain(f.path()).args(["check", "s.rhai"]));
        said.split_once("; it has").unwrap_or_else(|| panic!("{said}")).0.to_owned()
    });
    insta::assert_snapshot!(all.join("\n"));
}

/// A file of zeros.
fn zeros(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape[0] * shape[1];
        header.insert((*name).into(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; end]].concat()
}

/// Adapters are looked at as whole models are: base, head, labels, template.
#[test]
fn what_an_adapter_cannot_score_is_refused_before_any_work() {
    let f = tempfile::tempdir().unwrap();
    prepare(f.path());
    let hidden = json_of(f.path(), "qwen/config.json")["hidden_size"].as_u64().unwrap() as usize;
    let rows = hidden / json_of(f.path(), "qwen/config.json")["num_attention_heads"].as_u64().unwrap() as usize
        * json_of(f.path(), "qwen/config.json")["num_key_value_heads"].as_u64().unwrap() as usize;
    let module = "base_model.model.model.layers.0.self_attn.k_proj";
    let factors = [(format!("{module}.lora_A.weight"), [1, hidden]), (format!("{module}.lora_B.weight"), [rows, 1])];
    let factors: Vec<(&str, [usize; 2])> = factors.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
    let score = ("base_model.model.score.weight", [2, hidden]);
    std::fs::create_dir(f.path().join("adapter")).unwrap();
    let adapter = |base: &str, scores: bool| {
        let said = json!({ "peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["layers.0.self_attn.k_proj"],
            "modules_to_save": if scores { json!(["score"]) } else { Value::Null }, "base_model_name_or_path": base });
        write(f.path(), "adapter/adapter_config.json", &said.to_string());
        let tensors = if scores { [factors.as_slice(), &[score]].concat() } else { factors.clone() };
        std::fs::write(f.path().join("adapter/adapter_model.safetensors"), zeros(&tensors)).unwrap();
    };
    let check = |reading: &str| {
        let stage = r#"rewards("r", #{ sources: [reward("R", "reward_model", #{ model: "adapter" READING })], policy: "qwen", prompts: prompts });"#;
        script(f.path(), &stage.replace("READING", reading));
        let mut check = motrain(f.path());
        check.args(["check", "s.rhai"]);
        check
    };
    let refused = |reading: &str| {
        let said = failure(&mut check(reading));
        said[said.find("error").unwrap_or_default()..].to_owned()
    };
    let mut all = Vec::new();
    adapter("nobody/knows", true);
    all.push(refused(", label: 1"));
    adapter("qwen", false);
    all.push(refused(", label: 1"));
    adapter("qwen", true);
    all.push(refused(", label: 7"));
    write(f.path(), "adapter/labels.json", &json!({ "id2label": { "0": "helpful" } }).to_string());
    all.push(refused(", label: 0"));
    write(f.path(), "adapter/labels.json", &json!({ "id2label": { "0": "helpful", "1": "brief" } }).to_string());
    all.push(refused(", label: \"helpfull\""));
    success(&mut check(", label: \"brief\""));
    std::fs::rename(f.path().join("qwen/chat_template.jinja"), f.path().join("template")).unwrap();
    all.push(refused(", label: \"brief\""));
    success(&mut check(", label: \"brief\", template: \"plain\""));
    insta::assert_snapshot!(all.join("\n"));
}
