//! Where all answers can be counted, the best policy is known: π*(y|x, w) ∝ π₀(y|x)·exp(Σ wₖRₖ(y)/β). Answers of one token are few enough. Every method
//! whose optimum this is comes near it at each weight vector, through the whole engine; preference labels must then be those of Bradley and Terry,
//! since hard ones have no finite optimum.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::reward::Sample;
use motrain_core::{Prompt, Registry, Weights};
use motrain_engine::decode::Query;
use motrain_engine::model::Model;
use motrain_engine::steer::{Opened, Steerable};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::to_vec;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, no_grad};
use world::{World, find};

const BETA: f64 = 0.5;
const GRID: [[f64; 2]; 3] = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]];

/// Log-probs of every answer to a prompt.
fn distribution(policy: &dyn Steerable, weights: &Weights, tokens: &[u32]) -> Vec<f64> {
    let decoder = policy.decoder(&[policy.route(weights).unwrap()]).unwrap();
    let logits = no_grad(|| decoder.prefill(&[Query { tokens, index: 0 }], &[0], 1)).unwrap().0;
    to_vec(&logits.log_softmax(-1, Kind::Double).view([-1])).unwrap()
}

/// Both objectives' rewards of every answer: how often it says `a`, and `b`.
fn rewards(tokenizer: &Tokenizer, answers: usize) -> Vec<[f64; 2]> {
    let counts = ["a", "b"]
        .map(|word| Registry::builtin().rewards.build("lexicon", &json!({ "words": { word: 1.0 } })).unwrap());
    let prompt = Prompt::user("x");
    let of = |token: u32| {
        let text = tokenizer.decode(&[token]).unwrap();
        let sample = Sample { prompt: &prompt, completion: &text, finished: false, row: &Value::Null };
        [0, 1].map(|k| counts[k].score(&[sample]).unwrap()[0])
    };
    (0..answers as u32).map(of).collect()
}

/// KL(π ‖ π*) in nats, mean over prompts, at each weight vector: of a trained folder, and of the policy that it began at.
fn distances(world: &World, folder: &Path, prefixed: bool) -> Vec<(f64, f64)> {
    let opened = Opened::load(folder, Device::Cpu, Kind::Float).unwrap();
    let start = Model::load(&world.path("policy"), Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&world.path("policy"), &start.config).unwrap();
    let start = no_grad(|| start.net(Kind::Float)).unwrap();
    let prompts: Vec<Prompt> = ["c", "d e", "g"].map(Prompt::user).into();
    let at = |w: &[f64; 2]| {
        let weights = Weights::new(w.to_vec()).unwrap();
        let steering = opened.steering(&Registry::builtin(), &weights).unwrap();
        let both = prompts.iter().map(|prompt| {
            let seen = tokenizer.encode_prompt(&steering.prompt(&weights, prompt).unwrap()).unwrap();
            assert_eq!(seen.len() > 6, prefixed);
            let before = distribution(&start, &weights, &seen);
            let rewards = rewards(&tokenizer, before.len());
            let tilted: Vec<f64> =
                before.iter().zip(&rewards).map(|(p, r)| p + (w[0] * r[0] + w[1] * r[1]) / BETA).collect();
            let norm = tilted.iter().map(|t| t.exp()).sum::<f64>().ln();
            let kl = |policy: &[f64]| policy.iter().zip(&tilted).map(|(p, t)| p.exp() * (p - (t - norm))).sum::<f64>();
            (kl(&distribution(opened.policy.as_ref(), &weights, &seen)), kl(&before))
        });
        let (trained, began): (Vec<f64>, Vec<f64>) = both.unzip();
        (trained.iter().sum::<f64>() / 3.0, began.iter().sum::<f64>() / 3.0)
    };
    GRID.iter().map(at).collect()
}

/// What trains: a prompted policy, or an adapter with these gains; at sampled weights, or at some alone.
fn stage(world: &World, kind: &str, gains: Option<&str>, fixed: Option<[f64; 2]>) -> Value {
    let sampler = match fixed {
        Some(weights) => json!({ "name": "fixed", "options": { "weights": weights } }),
        None => json!({ "name": "uniform_grid", "options": { "step": 0.5 } }),
    };
    let mut changes = json!({
        "sampler": sampler, "generate": { "max_new_tokens": 1 },
        "train": { "steps": 250, "batch_size": 64, "micro_batch_size": 64, "checkpoint_every": 250 },
        "optimizer": { "name": "adamw", "lr": 5e-3, "schedule": "linear" },
    });
    match kind {
        "reinforce" => {
            changes["completions"] = json!(4);
            changes["kl"] = json!(BETA);
            changes["baseline"] = json!("rloo");
        }
        _ => {
            changes["label"] = json!({ "name": "bradley_terry" });
            changes["loss"] = json!({ "name": "dpo", "options": { "beta": BETA } });
        }
    }
    if let Some(gains) = gains {
        changes["conditioner"] = json!({ "name": "none" });
        changes["lora"] = json!({ "r": 16, "alpha": 16.0, "gains": gains });
        changes["optimizer"]["lr"] = json!(1e-2);
    }
    world.online(kind, &changes)
}

fn trained(name: &str, kind: &str, gains: Option<&str>, fixed: Option<[f64; 2]>) -> Vec<(f64, f64)> {
    let world = World::new();
    found(&world, name, stage(&world, kind, gains, fixed), gains.is_none())
}

fn found(world: &World, name: &str, stage: Value, prefixed: bool) -> Vec<(f64, f64)> {
    let run = world.run(name, &[world.rewards(), stage]).unwrap();
    far_from_where_they_began(distances(world, &find(&run, "model"), prefixed))
}

fn far_from_where_they_began(found: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    assert!(found.iter().all(|(_, before)| *before > 0.02), "begins at an optimum: {found:?}");
    found
}

/// A stage with options changed.
fn changed(mut stage: Value, changes: Value) -> Value {
    stage.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    stage
}

/// A specialist per objective, and what an evaluation of them together publishes.
fn together(name: &str, kind: &str, how: &str, options: Value) -> Vec<(f64, f64)> {
    let world = World::new();
    let specialist = |id: &str, weights: [f64; 2]| {
        let own = json!({ "id": id, "conditioner": { "name": "none" } });
        changed(stage(&world, kind, None, Some(weights)), own)
    };
    let mut mix = json!({ "base": world.path("policy"), "parts": [{ "stage": "a" }, { "stage": "b" }] });
    mix.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let front = json!({
        "id": "front", "kind": "evaluate", "name": name, "rewards": "rewards", "prompts": world.prompts(),
        "conditioner": { "name": "none" }, "generate": { "max_new_tokens": 1 }, "weights": GRID, how: mix,
    });
    let stages = [world.rewards(), specialist("a", [1.0, 0.0]), specialist("b", [0.0, 1.0]), front];
    let run = world.run(name, &stages).unwrap();
    far_from_where_they_began(distances(&world, &run.join("policy"), false))
}

#[test]
fn prompted_policies_come_near_the_closed_form() {
    // MO-ODPO and P-MORL.
    for kind in ["online_preference", "reinforce"] {
        for (w, (after, before)) in GRID.iter().zip(trained(kind, kind, None, None)) {
            assert!(after < 0.35 * before, "{kind} at {w:?}: {after} nats from the optimum, {before} before");
        }
    }
}

/// A small term by which answers tell their weights moves that optimum little.
#[test]
fn mi_epo_comes_near_the_closed_form() {
    let world = World::new();
    let own = changed(stage(&world, "online_preference", None, None), json!({ "info_nce": 0.01 }));
    for (w, (after, before)) in GRID.iter().zip(found(&world, "mi_epo", own, true)) {
        assert!(after < 0.35 * before, "{w:?}: {after} nats from the optimum, {before} before");
    }
}

/// The product of exact specialists' distributions is that optimum (MOD); a mix of their parameters need not be, and is between the ends all the same.
#[test]
fn specialists_together_come_near_the_closed_form() {
    for kind in ["online_preference", "reinforce"] {
        let mod_of_both = together("mod", kind, "blend", json!({ "divergence": "reverse_kl" }));
        let soup = together("soup", kind, "soup", json!({}));
        for (w, ((mixed, before), (souped, _))) in GRID.iter().zip(mod_of_both.iter().zip(&soup)) {
            let said = format!("{kind} at {w:?}: MOD {mixed} nats from the optimum, a soup {souped}, {before} before");
            assert!(*mixed < 0.35 * before, "{said}");
            assert!(*souped < 0.6 * before, "{said}");
        }
    }
}

/// Adapters cannot reach it here: the embeddings stand still, and hidden states have fewer dimensions than there are answers. But all weight vectors
/// together come about as near as an adapter that is trained at each alone.
#[test]
fn gains_come_as_near_as_adapters_of_single_weights() {
    for (kind, kinds_of_gains) in [("reinforce", vec!["copies", "diagonal"]), ("online_preference", vec!["copies"])] {
        let alone = |(at, w): (usize, &[f64; 2])| trained(&format!("alone-{at}"), kind, Some("none"), Some(*w))[at].0;
        let alone: Vec<f64> = GRID.iter().enumerate().map(alone).collect();
        for gains in kinds_of_gains {
            let all = trained(gains, kind, Some(gains), None);
            for (i, (after, before)) in all.iter().enumerate() {
                let (w, one) = (GRID[i], alone[i]);
                let said = format!(
                    "{kind}, {gains} at {w:?}: {after} nats from the optimum, {before} before, {one} of an adapter alone"
                );
                assert!(one < 0.6 * before, "{said}");
                assert!(after - one < 0.25 * (before - one), "{said}");
            }
        }
    }
}
