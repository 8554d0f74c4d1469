//! Policies that their parameters steer (Conditional Language Policy, Panacea): each copy gets its weight's share of the gradient, a row's answer does not
//! depend on the weights of others, what is saved answers as what was trained, and training makes a policy steer without a word in its prompt.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::Weights;
use motrain_engine::decode::rollout;
use motrain_engine::model::{Adapter, Head, Mix, Model, Net};
use motrain_engine::plan::{Gains, GenerationConfig, Lora};
use motrain_engine::steer::Opened;
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack, to_vec};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};
use world::{World, find, policy};

const PROMPTS: [&[u32]; 3] = [&[3], &[4, 5, 1], &[2, 6]];
const COMPLETIONS: [&[u32]; 3] = [&[1, 2, 0], &[5, 0], &[3, 3, 7, 0]];
const MIXES: [[f64; 2]; 3] = [[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]];

fn options(gains: Gains) -> Lora {
    Lora { r: 4, alpha: 8.0, gains, ..Lora::default() }
}

/// A policy whose changes, as if trained, change something: `seed` draws them.
fn changed(gains: Gains, seed: u64) -> Model {
    let mut model = policy(1, Head::TiedLm);
    model.attach(&options(gains), Path::new("base"), None, 2, seed).unwrap();
    for (i, (name, p)) in model.lora.as_mut().unwrap().params.iter_mut().enumerate() {
        let wave = Tensor::arange(p.numel() as i64, (Kind::Float, Device::Cpu)).view(p.size().as_slice());
        let wave =
            (wave + (i as f64 + 1.0) * (seed as f64 + 0.7)).sin() * if name.ends_with("sigma") { 0.7 } else { 0.3 };
        *p = wave;
    }
    model
}

/// Log-prob sums of the completions, a row each at its own weights.
fn sums(model: &Model, weights: &[[f64; 2]]) -> Tensor {
    sums_of(&model.net(Kind::Float).unwrap(), weights)
}

fn sums_of(net: &Net, weights: &[[f64; 2]]) -> Tensor {
    let group =
        |(prompt, completion): (&&'static [u32], &&'static [u32])| Group { prompt, completions: vec![*completion] };
    let groups: Vec<Group> = PROMPTS.iter().zip(&COMPLETIONS).map(group).collect();
    let gains: Vec<&[f64]> = weights.iter().map(|w| w.as_slice()).collect();
    let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&gains).unwrap();
    packed.sums(&packed.token_log_probs(net, 1.0).unwrap()).unwrap()
}

fn alone(model: &Model, row: usize, weights: [f64; 2]) -> f64 {
    let net = model.net(Kind::Float).unwrap();
    let groups = [Group { prompt: PROMPTS[row], completions: vec![COMPLETIONS[row]] }];
    let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&[&weights]).unwrap();
    no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&net, 1.0).unwrap()).unwrap())).unwrap()[0]
}

#[test]
fn a_batch_of_mixed_weights_is_its_rows_one_by_one() {
    for gains in [Gains::Copies, Gains::Diagonal] {
        let model = changed(gains, 3);
        let together = no_grad(|| to_vec(&sums(&model, &MIXES)).unwrap());
        for (row, at) in MIXES.iter().enumerate() {
            let one = alone(&model, row, *at);
            assert!(
                (one - together[row]).abs() < 1e-4,
                "{gains:?}: row {row} is {} together and {one} alone",
                together[row]
            );
            let other = alone(&model, row, [0.1, 0.9]);
            assert!((one - other).abs() > 1e-2, "{gains:?}: row {row} is the same at other weights");
        }
    }
}

/// Every block of changes needs a gain: none is taken for 1.
#[test]
fn a_row_without_a_gain_for_each_block_is_refused() {
    let net = changed(Gains::Copies, 3).net(Kind::Float).unwrap();
    let groups = [Group { prompt: PROMPTS[0], completions: vec![COMPLETIONS[0]] }];
    for (gains, count) in [(vec![], 0), (vec![1.0], 1)] {
        let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&[gains.as_slice()]).unwrap();
        let said = packed.token_log_probs(&net, 1.0).unwrap_err().to_string();
        assert!(said.contains(&format!("at 2 weights, one per objective, and {count} were given")), "{said}");
    }
}

/// Nothing is changed before training, whatever the weights: copies begin equal.
#[test]
fn changes_begin_as_none() {
    for gains in [Gains::Copies, Gains::Diagonal] {
        let mut model = policy(1, Head::TiedLm);
        model.attach(&options(gains), Path::new("base"), None, 2, 9).unwrap();
        let net = model.reference(Kind::Float).unwrap();
        let groups = [Group { prompt: PROMPTS[0], completions: vec![COMPLETIONS[0]] }];
        let packed = pack(&groups, 0, Device::Cpu).unwrap();
        let before = no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&net, 1.0).unwrap()).unwrap())).unwrap()[0];
        assert!((alone(&model, 0, [0.2, 0.8]) - before).abs() < 1e-6, "{gains:?}");
    }
}

/// Copies that are the same are, at any weights, one adapter; its gradient at the mix is shared out by the weights.
#[test]
fn a_copys_gradient_is_its_weights_share_of_that_at_the_mix() {
    let mut copies = changed(Gains::Copies, 3);
    let mut one = policy(1, Head::TiedLm);
    one.attach(&options(Gains::None), Path::new("base"), None, 0, 1).unwrap();
    for (name, p) in &mut one.lora.as_mut().unwrap().params {
        let of = |k: usize| format!("copy_{k}.{name}");
        let all = &mut copies.lora.as_mut().unwrap().params;
        *p = all.iter().find(|(own, _)| *own == of(0)).unwrap().1.copy();
        for k in [0, 1] {
            all.iter_mut().find(|(own, _)| *own == of(k)).unwrap().1 = p.copy();
        }
    }
    let row = 1;
    let backward = |model: &mut Model, gains: &[f64]| {
        model.require_grad().unwrap();
        let net = model.training_net(Kind::Float, 1, false).unwrap();
        let groups = [Group { prompt: PROMPTS[row], completions: vec![COMPLETIONS[row]] }];
        let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&[gains]).unwrap();
        packed.token_log_probs(&net, 1.0).unwrap().sum(Kind::Float).backward();
    };
    backward(&mut one, &[]);
    backward(&mut copies, &[0.3, 0.7]);
    for (name, p) in one.trained() {
        let whole = p.grad();
        let size = f64::try_from(whole.abs().max().to_kind(Kind::Double)).unwrap();
        for (k, share) in [(0, 0.3), (1, 0.7)] {
            let (_, copy) = copies.trained().iter().find(|(own, _)| *own == format!("copy_{k}.{name}")).unwrap();
            let gap = f64::try_from((copy.grad() - &whole * share).abs().max().to_kind(Kind::Double)).unwrap();
            assert!(size > 1e-4 && gap < 1e-4 * size, "{name} of copy {k}: {gap} away, of {size}");
        }
    }
}

/// Layers that are computed again for their gradient have their rows' gains.
#[test]
fn recomputed_layers_have_the_same_gradients() {
    for gains in [Gains::Copies, Gains::Diagonal] {
        let gradients = |recompute: bool| {
            let mut model = changed(gains, 3);
            model.require_grad().unwrap();
            let net = model.training_net(Kind::Float, 1, recompute).unwrap();
            let group = |(prompt, completion): (&&'static [u32], &&'static [u32])| Group {
                prompt,
                completions: vec![*completion],
            };
            let groups: Vec<Group> = PROMPTS.iter().zip(&COMPLETIONS).map(group).collect();
            let all: Vec<&[f64]> = MIXES.iter().map(|w| w.as_slice()).collect();
            let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&all).unwrap();
            packed.token_log_probs(&net, 1.0).unwrap().sum(Kind::Float).backward();
            net.backpropagate().unwrap();
            model.trained().iter().map(|(name, p)| (name.clone(), p.grad())).collect::<Vec<_>>()
        };
        for ((name, kept), (_, again)) in gradients(false).iter().zip(&gradients(true)) {
            let gap = f64::try_from((kept - again).abs().max().to_kind(Kind::Double)).unwrap();
            let size = f64::try_from(kept.abs().max().to_kind(Kind::Double)).unwrap();
            assert!(size > 0.0 && gap < 1e-4 * size, "{gains:?} {name}: {gap} away, of {size}");
        }
    }
}

#[test]
fn panacea_without_scale_does_not_see_the_weights() {
    let mut model = changed(Gains::Diagonal, 3);
    for (_, p) in model.lora.as_mut().unwrap().params.iter_mut().filter(|(name, _)| name.ends_with(".s")) {
        let _ = p.zero_();
    }
    let all: Vec<f64> = MIXES.iter().map(|w| alone(&model, 0, *w)).collect();
    assert!(all.iter().all(|sum| *sum == all[0]), "{all:?}");
    assert!((all[0] - alone(&changed(Gains::Diagonal, 3), 0, MIXES[0])).abs() > 1e-3, "the scale does nothing");
}

/// What is saved for each objective answers together as what was trained did, at any weights.
#[test]
fn what_is_saved_is_what_was_trained() {
    for gains in [Gains::Copies, Gains::Diagonal] {
        let trained = changed(gains, 3);
        let folder = tempfile::tempdir().unwrap();
        let part = |k: usize| {
            let place = folder.path().join(k.to_string());
            trained.lora.as_ref().unwrap().save_part(&place, k).unwrap();
            Adapter::load(&place, Device::Cpu).unwrap()
        };
        let saved = policy(1, Head::TiedLm).net_with(&[part(0), part(1)], Kind::Float).unwrap();
        let own = no_grad(|| to_vec(&sums_of(&trained.net(Kind::Float).unwrap(), &MIXES)).unwrap());
        let again = no_grad(|| to_vec(&sums_of(&saved, &MIXES)).unwrap());
        let near = own.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near, "{gains:?}: {own:?} were trained, {again:?} saved");
    }
}

/// A trained policy's folder: with weights per query it answers as the model that is mixed at those weights, and at all weight on one objective as
/// that part alone.
#[test]
fn what_is_saved_answers_as_what_is_mixed() {
    for (gains, name) in [(Gains::Copies, "copies"), (Gains::Diagonal, "diagonal")] {
        let world = World::new();
        let run = trained(&world, name, "online_preference", 12);
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
            assert_eq!(said(together.of(row)), said(alone.of(0)), "{gains:?} at {at:?}");
            let other = no_grad(|| mix.at(&[0.0, 1.0]).unwrap().net(Kind::Float)).unwrap();
            let other = rollout(&other, &tokenizer, &one, 4, |_, i| seed(row, i), &sampling).unwrap();
            differs |= said(other.of(0)) != said(alone.of(0));
        }
        assert!(differs, "{gains:?}: the weights change no answer, so this shows nothing");
    }
}

fn lora(gains: &str) -> Value {
    json!({ "r": 8, "alpha": 16.0, "gains": gains })
}

/// Trains with weights in the parameters and none in the prompt.
fn trained(world: &World, gains: &str, kind: &str, steps: usize) -> std::path::PathBuf {
    let mut rewards = world.rewards();
    for source in rewards["sources"].as_array_mut().unwrap() {
        source["scale"] = json!([0.0, 4.0]);
    }
    let mut changes = json!({
        "conditioner": { "name": "none" }, "sampler": { "name": "dirichlet", "options": { "alpha": 0.3 } }, "lora": lora(gains),
        "train": { "steps": steps, "batch_size": 16, "micro_batch_size": 16, "checkpoint_every": steps },
        "optimizer": { "name": "adamw", "lr": 3e-2 },
    });
    if kind == "reinforce" {
        changes["baseline"] = json!("rloo");
    }
    let front = json!({
        "id": "front", "kind": "evaluate", "name": "trained", "policy": { "stage": "train" }, "prompts": world.prompts(),
        "rewards": "rewards", "conditioner": { "name": "none" }, "step": 1.0, "generate": { "max_new_tokens": 4 },
    });
    world.run(&format!("{kind}-{gains}"), &[rewards, world.online(kind, &changes), front]).unwrap()
}

#[test]
fn parameters_steer_without_a_word_in_the_prompt() {
    for (kind, steps) in [("online_preference", 80), ("reinforce", 120)] {
        for gains in ["copies", "diagonal"] {
            let world = World::new();
            let run = trained(&world, gains, kind, steps);
            let found: Value =
                serde_json::from_str(&std::fs::read_to_string(find(&run, "front.json")).unwrap()).unwrap();
            let reward = |point: usize, k: usize| found["methods"][0]["points"][point]["rewards"][k].as_f64().unwrap();
            // Points lie at (0, 1) and (1, 0).
            let gain = ((reward(1, 0) - reward(0, 0)) + (reward(0, 1) - reward(1, 1))) / 2.0;
            assert!(gain > 0.3, "{kind}, {gains}: from weight 0 to 1 the rewards gain {gain} only");
        }
    }
}

/// Where gains mean nothing they are refused, and a policy that they steer is no single model.
#[test]
fn what_makes_no_sense_is_refused() {
    let world = World::new();
    let run = trained(&world, "copies", "online_preference", 1);
    let said = |stages: &[Value]| world.run("bad", stages).unwrap_err().to_string();
    let online = |changes: Value| world.online("online_preference", &changes);
    let goes_on = online(json!({ "policy": find(&run, "model") }));
    let message = said(&[world.rewards(), goes_on]);
    assert!(message.contains("is steered by its parameters"), "{message}");
    let part = find(&run, "model").join("parts/0");
    let message = said(&[world.rewards(), online(json!({ "policy": part, "lora": lora("copies") }))]);
    assert!(message.contains("gains begin at a whole model"), "{message}");
    let read = |stage: Value| {
        let (kind, id) = (stage["kind"].as_str().unwrap().to_owned(), stage["id"].as_str().unwrap().to_owned());
        let mut options = stage;
        ["kind", "id"].iter().for_each(|key| drop(options.as_object_mut().unwrap().remove(*key)));
        motrain_engine::plan::Stage::read(&kind, &id, &options).unwrap_err().to_string()
    };
    let mut merged = lora("diagonal");
    merged["merge"] = json!(true);
    assert!(read(online(json!({ "lora": merged }))).contains("no one model holds what answers at all weights"));
    let sft = json!({ "id": "s", "kind": "sft", "model": world.path("policy"), "data": { "paths": ["x"] }, "lora": lora("copies") });
    assert!(read(sft).contains("this stage samples none"));
    let opened = Opened::load(&find(&run, "model"), Device::Cpu, Kind::Float).unwrap();
    let message = opened.policy.decoder(&[motrain_engine::steer::Route::Same]).err().unwrap().to_string();
    assert_eq!(message, "a policy that its parameters steer answers at weights only; give one per objective");
}
