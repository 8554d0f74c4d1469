//! Offline preference training: MODPO reaches its closed form on a world of two answers, and is DPO where all weight lies on the pairs' objective;
//! pairs are made as their rule says; the implicit reward is a log-ratio.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::reward::Sample;
use motrain_core::{Prompt, Registry};
use motrain_engine::model::{Head, Model};
use motrain_engine::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::Device;
use world::{WORDS, World, config, find, lines, log_probs, policy, text};

const PROMPTS: [&str; 2] = ["c", "d e"];
/// Of 60 comparisons of each prompt's answers, how often objective A prefers `a a` to `b b`.
const WON: usize = 53;

/// Comparisons of two answers that A's score tells apart by σ(2), about.
fn compared(world: &World) -> Value {
    let row = |i: usize, prompt: &str| {
        let (chosen, rejected) = if i < WON { ("a a", "b b") } else { ("b b", "a a") };
        format!("{}\n", json!({ "prompt": prompt, "chosen": chosen, "rejected": rejected, "row": i }))
    };
    let text: String = (0..60).flat_map(|i| PROMPTS.map(|prompt| row(i, prompt))).collect();
    std::fs::write(world.path("compared.jsonl"), text).unwrap();
    json!({ "paths": [world.path("compared.jsonl")] })
}

fn stage(world: &World, changes: &Value) -> Value {
    let mut stage = json!({
        "id": "train", "kind": "preference", "policy": world.path("policy"), "data": compared(world),
        "train": { "steps": 250, "batch_size": 120, "micro_batch_size": 120, "checkpoint_every": 250 },
        "optimizer": { "name": "adamw", "lr": 5e-3 },
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        stage[name] = value.clone();
    }
    stage
}

fn modpo(weights: [f64; 2], options: Value) -> Value {
    let sampler = json!({ "name": "fixed", "options": { "weights": weights } });
    json!({ "rewards": "rewards", "sampler": sampler, "loss": { "name": "modpo", "options": options } })
}

/// How much more likely than before `a a` has become against `b b`, in nats, for each prompt.
fn gaps(world: &World, run: &Path) -> Vec<f64> {
    let load = |folder: &Path| Model::load(folder, Device::Cpu).unwrap();
    let (before, after) = (load(&world.path("policy")), load(&find(run, "model")));
    let tokenizer = Tokenizer::load(&world.path("policy"), &before.config).unwrap();
    let gap = |prompt: &&str| {
        let (ids, a) = tokenizer.encode_answer(&Prompt::user(*prompt), "a a", true).unwrap();
        let (_, b) = tokenizer.encode_answer(&Prompt::user(*prompt), "b b", true).unwrap();
        let of = |model: &Model| {
            let both = log_probs(model, &ids, &[a.clone(), b.clone()], 1.0);
            both[0] - both[1]
        };
        of(&after) - of(&before)
    };
    PROMPTS.iter().map(gap).collect()
}

/// π ∝ π₀·exp(Σ wₖRₖ/β): where A's pairs are won as often as σ(R_A's difference) says, β times the gap becomes w_A·ln(53/7) + w_B·(−2), since `b b`
/// scores 2 more on B than `a a`.
#[test]
fn modpo_reaches_the_closed_form_at_every_weight() {
    let world = World::new();
    let own = (WON as f64 / (60 - WON) as f64).ln();
    for (w, beta) in [(1.0, 0.5), (0.5, 0.5), (0.25, 1.0)] {
        let train = stage(&world, &modpo([w, 1.0 - w], json!({ "beta": beta })));
        let run = world.run(&format!("out-{w}-{beta}"), &[world.rewards(), train]).unwrap();
        let wanted = (w * own + (1.0 - w) * -2.0) / beta;
        for gap in gaps(&world, &run) {
            assert!((gap - wanted).abs() < 0.15, "w = {w}, β = {beta}: the gap is {gap}, not {wanted}");
        }
    }
}

#[test]
fn modpo_with_all_weight_on_its_objective_is_dpo() {
    let world = World::new();
    let short = json!({ "steps": 3, "batch_size": 7, "micro_batch_size": 3, "checkpoint_every": 3 });
    let trained = |name: &str, mut changes: Value| {
        changes["train"] = short.clone();
        let run = world.run(name, &[world.rewards(), stage(&world, &changes)]).unwrap();
        std::fs::read(find(&run, "model.safetensors")).unwrap()
    };
    let dpo = trained("dpo", json!({ "loss": { "name": "dpo", "options": { "beta": 0.3 } } }));
    assert!(dpo == trained("modpo", modpo([1.0, 0.0], json!({ "beta": 0.3 }))), "MODPO at w = (1, 0) is not DPO");
    assert!(dpo != trained("half", modpo([0.5, 0.5], json!({ "beta": 0.3 }))), "the margin changes nothing");
}

/// What a rule and weights choose of a policy's own answers, and that a stage trains on them.
#[test]
fn pairs_are_made_as_their_rule_says() {
    let world = World::new();
    let data = json!({
        "id": "made", "kind": "preference_data", "policy": world.path("policy"), "prompts": world.prompts(), "rewards": "rewards",
        "sampler": { "name": "fixed", "options": { "weights": [0.0, 1.0] } }, "label": { "name": "weighted_sum" },
        "completions": 6, "generate": { "max_new_tokens": 4 },
    });
    let mut train = stage(&world, &json!({ "pairs": "made", "loss": { "name": "ipo", "options": { "beta": 0.1 } } }));
    train.as_object_mut().unwrap().remove("data");
    train["train"]["steps"] = json!(2);
    let run = world.run("out", &[world.rewards(), data, train]).unwrap();
    let text = std::fs::read_to_string(find(&find(&run, "made"), "samples.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(rows.len() > 5, "{}", rows.len());
    let said = |row: &Value, which: &str| {
        let text = row[which].as_str().unwrap().to_lowercase();
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| *word == "b").count()
    };
    for row in &rows {
        assert!(said(row, "chosen") > said(row, "rejected"), "{row}");
        assert_eq!(row["chosen_scores"][1], json!(said(row, "chosen") as f64), "{row}");
    }
    assert_eq!(lines(&run, "metrics.jsonl")[0]["pairs/trained"], json!(120.0));
}

/// Which answer is preferred can be left to a rule, at weights that the prompt tells: ties are left out and counted.
#[test]
fn a_rule_labels_pairs_at_their_weights() {
    let world = World::new();
    let labelled = |weights: [f64; 2], name: &str| {
        let changes = json!({
            "rewards": "rewards", "sampler": { "name": "fixed", "options": { "weights": weights } },
            "conditioner": { "name": "weight_prefix" }, "label": { "name": "weighted_sum" }, "loss": { "name": "dpo", "options": { "beta": 0.5 } },
        });
        let run = world.run(name, &[world.rewards(), stage(&world, &changes)]).unwrap();
        (find(&run, "train"), run)
    };
    let (_, towards_b) = labelled([0.0, 1.0], "b");
    let step = lines(&towards_b, "metrics.jsonl").remove(200);
    assert_eq!((step["pairs/trained"].as_f64(), step["pairs/ties"].as_f64()), (Some(120.0), Some(0.0)));
    assert!(step["rewards/accuracies"].as_f64().unwrap() == 1.0, "{step}");
    assert!(find(&towards_b, "steering.json").is_file());
    let (_, nowhere) = labelled([0.5, 0.5], "tie");
    let step = lines(&nowhere, "metrics.jsonl").remove(0);
    assert_eq!(step["pairs/ties"], json!(120.0), "both answers score 2 in all: {step}");
    assert!(step.get("pairs/trained").is_none_or(|n| *n == json!(0.0)), "{step}");
}

fn saved(world: &World, name: &str, seed: u64) -> (PathBuf, Model) {
    let at = world.path(name);
    let tokenizer = text(&at, &config(Head::TiedLm));
    policy(seed, Head::TiedLm).save(&at, &tokenizer).unwrap();
    (at, policy(seed, Head::TiedLm))
}

#[test]
fn the_implicit_reward_is_a_log_ratio() {
    let world = World::new();
    let ((trained, one), (began, other)) = (saved(&world, "one", 3), saved(&world, "other", 4));
    let mut registry = Registry::builtin();
    motrain_engine::reward::register(&mut registry, "cpu", "f32").unwrap();
    let build = |options: Value| registry.rewards.build("implicit", &options);
    let reward = build(json!({ "policy": trained, "reference": began, "beta": 0.25, "batch_size": 2 })).unwrap();
    let tokenizer = Tokenizer::load(&began, &one.config).unwrap();
    let asked: Vec<(Prompt, &str, bool)> = [("c", "a b", true), ("d e f", "g", true), ("g", "a a a", false)]
        .map(|(p, a, f)| (Prompt::user(p), a, f))
        .into();
    let row = Value::Null;
    let samples: Vec<Sample> = asked
        .iter()
        .map(|(prompt, completion, finished)| Sample { prompt, completion, finished: *finished, row: &row })
        .collect();
    for ((prompt, said, finished), score) in asked.iter().zip(reward.score(&samples).unwrap()) {
        let (ids, answer) = tokenizer.encode_answer(prompt, said, *finished).unwrap();
        let of = |model: &Model| log_probs(model, &ids, std::slice::from_ref(&answer), 1.0)[0];
        assert!((score - 0.25 * (of(&one) - of(&other))).abs() < 1e-5, "{said}: {score}");
    }
    let long = WORDS.join(" ").repeat(12);
    let too_long = [Sample { prompt: &asked[0].0, completion: &long, finished: true, row: &row }];
    assert!(reward.score(&too_long).unwrap_err().contains("do not fit the policy's context of 64"));
    // Another word for one of the tokens.
    let renamed = std::fs::read_to_string(began.join("tokenizer.json")).unwrap().replace("\"g\"", "\"h\"");
    std::fs::write(began.join("tokenizer.json"), renamed).unwrap();
    let said = build(json!({ "policy": trained, "reference": began })).err().unwrap().to_string();
    assert!(
        said.contains("cannot have begun at") && said.contains("token 7 is \"g\" in the one and \"h\" in the other"),
        "{said}"
    );
}
