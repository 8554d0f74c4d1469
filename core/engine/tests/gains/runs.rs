//! Policies that their parameters steer, trained, saved and evaluated by whole runs.

use crate::world::{World, find};
use crate::{MIXES, PROMPTS};
use motrain_core::Weights;
use motrain_engine::decode::rollout;
use motrain_engine::model::{Adapter, Mix, Model};
use motrain_engine::plan::{GenerationConfig, Plan};
use motrain_engine::steer::{Opened, Route};
use motrain_engine::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// A trained policy's folder: with weights per query it answers as the model that is mixed at those weights, and at all weight on one objective as
/// that part alone.
#[test]
fn what_is_saved_answers_as_what_is_mixed() {
    for gains in ["copies", "diagonal"] {
        let world = World::new();
        let run = trained(&world, &lora(gains), "online_preference", (12, 3e-2, 0));
        let folder = find(&run, "model");
        let opened = Opened::load(&folder, Device::Cpu, Kind::Float).unwrap();
        let load = |at: &Path| Model::load(at, Device::Cpu).unwrap();
        let tokenizer = Tokenizer::load(&world.path("policy"), &load(&world.path("policy")).config).unwrap();
        let sampling = GenerationConfig { max_new_tokens: 6, ..GenerationConfig::default() };
        let seed = |prompt: usize, i: usize| (prompt * 4 + i) as u64;
        let weights: Vec<Weights> = MIXES.iter().map(|w| Weights::new(w.to_vec()).unwrap()).collect();
        let routes: Vec<_> = weights.iter().map(|w| opened.policy.route(w).unwrap()).collect();
        assert!(opened.policy.together(&routes[0], &routes[1]));
        let prompts = PROMPTS.map(<[u32]>::to_vec);
        let decoder = opened.policy.decoder(&routes).unwrap();
        let together = rollout(decoder.as_ref(), &opened.tokenizer, &prompts, 4, seed, &sampling).unwrap();
        let parts = || [0, 1].map(|k| Adapter::load(&folder.join(format!("parts/{k}")), Device::Cpu).unwrap()).into();
        let names = ["0".to_owned(), "1".to_owned()];
        let mix = Mix::of_adapters(load(&world.path("policy")), parts(), &names).unwrap();
        let mut differs = false;
        for (row, at) in MIXES.iter().enumerate() {
            let net = no_grad(|| mix.at(at).unwrap().net(Kind::Float)).unwrap();
            let one = [PROMPTS[row].to_vec()];
            let alone = rollout(&net, &tokenizer, &one, 4, |_, i| seed(row, i), &sampling).unwrap();
            let said =
                |all: &[motrain_engine::decode::Completion]| all.iter().map(|c| c.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(said(together.of(row)), said(alone.of(0)), "{gains} at {at:?}");
            let other = no_grad(|| mix.at(&[0.0, 1.0]).unwrap().net(Kind::Float)).unwrap();
            let other = rollout(&other, &tokenizer, &one, 4, |_, i| seed(row, i), &sampling).unwrap();
            differs |= said(other.of(0)) != said(alone.of(0));
        }
        assert!(differs, "{gains}: the weights change no answer, so this shows nothing");
    }
}

fn lora(gains: &str) -> Value {
    json!({ "r": 8, "alpha": 16.0, "gains": gains })
}

/// Trains with weights in the parameters and none in the prompt.
fn trained(world: &World, lora: &Value, kind: &str, (steps, lr, seed): (usize, f64, u64)) -> std::path::PathBuf {
    let mut rewards = world.rewards();
    for source in rewards["sources"].as_array_mut().unwrap() {
        source["scale"] = json!([0.0, 4.0]);
    }
    let mut changes = json!({
        "conditioner": { "name": "none" }, "sampler": { "name": "dirichlet", "options": { "alpha": 0.3 } }, "lora": lora,
        "train": { "steps": steps, "batch_size": 16, "micro_batch_size": 16, "checkpoint_every": steps },
        "optimizer": { "name": "adamw", "lr": lr },
    });
    if kind == "reinforce" {
        changes["baseline"] = json!("rloo");
    }
    let front = json!({
        "id": "front", "kind": "evaluate", "name": "trained", "policy": { "stage": "train" }, "prompts": world.prompts(),
        "rewards": "rewards", "conditioner": { "name": "none" }, "step": 1.0, "generate": { "max_new_tokens": 4 },
    });
    world.run_seeded(seed, kind, &[rewards, world.online(kind, &changes), front]).unwrap()
}

#[test]
fn parameters_steer_without_a_word_in_the_prompt() {
    for (kind, steps) in [("online_preference", 80), ("reinforce", 120)] {
        let soft = json!({ "soft_tokens": 12, "targets": [] });
        let beside = json!({ "soft_tokens": 4, "r": 8, "alpha": 16.0 });
        let whole = json!({ "gains": "copies", "full": true, "targets": ["q_proj", "v_proj", "lm_head"] });
        // Soft tokens move far before they say much, and a policy of random numbers that stands still does not follow them far. Beside an adapter it
        // is chance which of them learns first; by REINFORCE here the adapter, which knows no weights. Seeds differ as much as ways do.
        for (way, lora, steps, lr, least) in [
            ("copies", lora("copies"), steps, 3e-2, 0.3),
            ("diagonal", lora("diagonal"), steps, 3e-2, 0.3),
            ("whole copies", whole, steps, 3e-2, 0.3),
            ("soft tokens alone", soft, steps, 0.3, 0.05),
            ("soft tokens and an adapter", beside, 150, 1e-2, 0.1),
        ] {
            if kind == "reinforce" && way == "soft tokens and an adapter" {
                continue;
            }
            let gains = [0, 1, 2].map(|seed| gain(&trained(&World::new(), &lora, kind, (steps, lr, seed))));
            let mean = gains.iter().sum::<f64>() / 3.0;
            assert!(mean > least, "{kind}, {way}: from weight 0 to 1 the rewards gain {gains:?} only");
        }
    }
}

/// What the rewards gain from weight 0 to 1; points lie at (0, 1) and (1, 0).
fn gain(run: &Path) -> f64 {
    let found: Value = serde_json::from_str(&std::fs::read_to_string(find(run, "front.json")).unwrap()).unwrap();
    let reward = |point: usize, k: usize| found["methods"][0]["points"][point]["rewards"][k].as_f64().unwrap();
    ((reward(1, 0) - reward(0, 0)) + (reward(0, 1) - reward(1, 1))) / 2.0
}

/// A policy's parts may be given by their folders, the head of a tied pair and soft tokens among them, and answer as the policy does; as models of their
/// own they are refused before any work.
#[test]
fn parts_are_given_by_their_folders() {
    for lora in [
        json!({ "gains": "copies", "targets": ["q_proj", "lm_head"], "full": true }),
        json!({ "soft_tokens": 3, "r": 4 }),
        json!({ "soft_tokens": 3, "targets": [] }),
    ] {
        let world = World::new();
        let run = trained(&world, &lora, "online_preference", (4, 3e-2, 0));
        let parts = [0, 1].map(|k| find(&run, "model").join(format!("parts/{k}")));
        let front = |by: Value| {
            let mut stage = json!({
                "id": "again", "kind": "evaluate", "name": "trained", "prompts": world.prompts(), "rewards": "rewards",
                "conditioner": { "name": "none" }, "step": 0.5, "generate": { "max_new_tokens": 4 },
            });
            stage.as_object_mut().unwrap().extend(by.as_object().unwrap().clone());
            vec![world.rewards(), stage]
        };
        let points = |by: Value, out: &str| -> Value {
            let run = world.run(out, &front(by)).unwrap();
            serde_json::from_str(&std::fs::read_to_string(find(&run, "front.json")).unwrap()).unwrap()
        };
        let (policy, given) = (json!({ "policy": find(&run, "model") }), json!({ "gains": parts }));
        assert_eq!(points(policy, "whole")["methods"], points(given.clone(), "parts")["methods"], "{lora}");
        let unfit = |stages: &[Value]| {
            let plan = json!({ "name": "w", "seed": 0, "device": "cpu", "dtype": "f32", "stages": stages });
            serde_json::from_value::<Plan>(plan).unwrap().unfit_models(|_| true).join("\n")
        };
        assert_eq!(unfit(&front(given)), "", "{lora}");
        let said = unfit(&[world.rewards(), world.online("online_preference", &json!({ "policy": parts[0] }))]);
        let told = if lora.get("soft_tokens").is_some() { "has soft tokens" } else { "the base has one matrix" };
        assert!(said.contains(told) && said.contains("gains: [..]"), "{lora}: {said}");
    }
}

/// Whole matrices are saved times the smaller identity, also where training goes on from such an adapter.
#[test]
fn whole_changes_go_on_as_whole_changes() {
    let world = World::new();
    let lora = json!({ "full": true, "targets": ["o_proj", "up_proj", "down_proj"] });
    let mut first = world.online("online_preference", &json!({ "lora": lora }));
    first["id"] = json!("first");
    let go_on = world.online("online_preference", &json!({ "policy": { "stage": "first" }, "lora": lora }));
    let run = world.run("on", &[world.rewards(), first, go_on]).unwrap();
    let adapter = |stage: &str| {
        let folder = std::fs::read_dir(run.join("stages")).unwrap().flatten().map(|e| e.path());
        let folder = folder.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(stage));
        let file = folder.map(|p| p.join("model/adapter_model.safetensors")).find(|p| p.is_file()).unwrap();
        let mut all = Tensor::read_safetensors(file).unwrap();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    };
    let (before, after) = (adapter("first"), adapter("train"));
    assert_eq!(before.len(), 2 * 3 * 2);
    let mut moved = 0.0;
    for ((name, one), (_, two)) in before.iter().zip(&after) {
        assert_eq!(one.size(), two.size(), "{name}");
        moved += f64::try_from((one - two).abs().sum(Kind::Float).to_kind(Kind::Double)).unwrap();
    }
    let ranks: Vec<i64> = before.iter().filter(|(n, _)| n.contains("lora_A")).map(|(_, a)| a.size()[0]).collect();
    assert!(ranks.iter().all(|rank| *rank == 16), "{ranks:?}");
    assert!(moved > 1e-3);
}

/// Where gains mean nothing they are refused, and a policy that they steer is no single model.
#[test]
fn what_makes_no_sense_is_refused() {
    let world = World::new();
    let run = trained(&world, &lora("copies"), "online_preference", (1, 3e-2, 0));
    let said = |stages: &[Value]| world.run("bad", stages).unwrap_err().to_string();
    let online = |changes: Value| world.online("online_preference", &changes);
    let goes_on = online(json!({ "policy": find(&run, "model") }));
    let message = said(&[world.rewards(), goes_on]);
    assert!(message.contains("is steered by its parameters"), "{message}");
    let part = find(&run, "model").join("parts/0");
    let message = said(&[world.rewards(), online(json!({ "policy": part, "lora": lora("copies") }))]);
    assert!(message.contains("gains and soft tokens begin at a whole model"), "{message}");
    let read = |stage: Value| {
        let (kind, id) = (stage["kind"].as_str().unwrap().to_owned(), stage["id"].as_str().unwrap().to_owned());
        let mut options = stage;
        ["kind", "id"].iter().for_each(|key| drop(options.as_object_mut().unwrap().remove(*key)));
        motrain_engine::plan::Stage::read(&kind, &id, &options).unwrap_err().to_string()
    };
    let mut merged = lora("diagonal");
    merged["merge"] = json!(true);
    assert!(read(online(json!({ "lora": merged }))).contains("no one model holds what answers at all weights"));
    for (odd, told) in [
        (json!({ "targets": [] }), "nothing is trained"),
        (json!({ "targets": [], "soft_tokens": 2, "dropout": 0.1 }), "which are of changes of matrices"),
        (json!({ "targets": [], "soft_tokens": 2, "gains": "copies" }), "nothing to gain"),
        (json!({ "full": true, "gains": "diagonal" }), "where there are none"),
        (json!({ "soft_tokens": 2, "merge": true }), "has soft_tokens and merge = true"),
    ] {
        let message = read(online(json!({ "lora": odd })));
        assert!(message.contains(told), "{message}");
    }
    let message = said(&[world.rewards(), online(json!({ "lora": { "soft_tokens": 4000 } }))]);
    assert!(message.contains("leave no room in a context of"), "{message}");
    let sft = json!({ "id": "s", "kind": "sft", "model": world.path("policy"), "data": { "paths": ["x"] }, "lora": lora("copies") });
    assert!(read(sft).contains("this stage samples none"));
    let opened = Opened::load(&find(&run, "model"), Device::Cpu, Kind::Float).unwrap();
    let message = opened.policy.decoder(&[Route::Same]).err().unwrap().to_string();
    assert_eq!(message, "a policy that its parameters steer answers at weights only; give one per objective");
}
