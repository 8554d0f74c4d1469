//! Policies that their parameters steer (Conditional Language Policy, Panacea): each copy gets its weight's share of the gradient, a row's answer does not
//! depend on the weights of others, what is saved answers as what was trained, and training makes a policy steer without a word in its prompt.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::Weights;
use motrain_engine::decode::rollout;
use motrain_engine::model::{Adapter, Head, Mix, Model, Net};
use motrain_engine::plan::{Gains, GenerationConfig, Lora, Plan, Targets};
use motrain_engine::steer::{Opened, Route, Steerable};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, Packed, pack, to_vec};
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

/// All ways in which parameters steer.
fn ways() -> Vec<(&'static str, Lora)> {
    let copies = || options(Gains::Copies);
    let none = Targets::Ends(vec![]);
    vec![
        ("copies", copies()),
        ("diagonal", options(Gains::Diagonal)),
        ("whole copies", Lora { full: true, ..copies() }),
        ("copies of the head", Lora { targets: Targets::Ends(vec!["lm_head".into()]), ..copies() }),
        (
            "whole copies of attention and head",
            Lora {
                full: true,
                targets: Targets::Ends(["q_proj", "v_proj", "lm_head"].map(String::from).into()),
                ..copies()
            },
        ),
        ("soft tokens alone", Lora { soft_tokens: 3, targets: none, ..options(Gains::None) }),
        ("soft tokens and an adapter", Lora { soft_tokens: 2, ..options(Gains::None) }),
        ("soft tokens and copies", Lora { soft_tokens: 2, ..copies() }),
    ]
}

/// A policy whose changes, as if trained, change something: `seed` draws them.
fn changed(options: &Lora, seed: u64) -> Model {
    let mut model = policy(1, Head::TiedLm);
    model.attach(options, Path::new("base"), None, 2, seed).unwrap();
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
    let packed = packed(net, &[0, 1, 2], weights);
    packed.sums(&packed.token_log_probs(net, 1.0).unwrap()).unwrap()
}

/// Rows as the network sees them.
fn packed(net: &Net, rows: &[usize], weights: &[[f64; 2]]) -> Packed {
    let prompts: Vec<Vec<u32>> = rows.iter().map(|&row| net.with_room(PROMPTS[row])).collect();
    let group = |(prompt, &row): (&Vec<u32>, &usize)| (prompt.clone(), COMPLETIONS[row]);
    let owned: Vec<_> = prompts.iter().zip(rows).map(group).collect();
    let groups: Vec<Group> = owned.iter().map(|(prompt, c)| Group { prompt, completions: vec![*c] }).collect();
    let gains: Vec<&[f64]> = weights.iter().map(|w| w.as_slice()).collect();
    pack(&groups, 0, Device::Cpu).unwrap().gained(&gains).unwrap()
}

fn alone(model: &Model, row: usize, weights: [f64; 2]) -> f64 {
    let net = model.net(Kind::Float).unwrap();
    let packed = packed(&net, &[row], &[weights]);
    no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&net, 1.0).unwrap()).unwrap())).unwrap()[0]
}

#[test]
fn a_batch_of_mixed_weights_is_its_rows_one_by_one() {
    for (way, lora) in ways() {
        let model = changed(&lora, 3);
        let together = no_grad(|| to_vec(&sums(&model, &MIXES)).unwrap());
        for (row, at) in MIXES.iter().enumerate() {
            let one = alone(&model, row, *at);
            assert!(
                (one - together[row]).abs() < 1e-4,
                "{way}: row {row} is {} together and {one} alone",
                together[row]
            );
            let other = alone(&model, row, [0.1, 0.9]);
            assert!((one - other).abs() > 1e-2, "{way}: row {row} is the same at other weights");
        }
    }
}

/// Every block of changes needs a gain: none is taken for 1.
#[test]
fn a_row_without_a_gain_for_each_block_is_refused() {
    let net = changed(&options(Gains::Copies), 3).net(Kind::Float).unwrap();
    let groups = [Group { prompt: PROMPTS[0], completions: vec![COMPLETIONS[0]] }];
    for (gains, count) in [(vec![], 0), (vec![1.0], 1)] {
        let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&[gains.as_slice()]).unwrap();
        let said = packed.token_log_probs(&net, 1.0).unwrap_err().to_string();
        assert!(said.contains(&format!("at 2 weights, one per objective, and {count} were given")), "{said}");
    }
}

/// Nothing is changed before training, whatever the weights: copies begin equal. Soft tokens change answers, and the same at all weights.
#[test]
fn changes_begin_as_none() {
    for (way, lora) in ways() {
        let mut model = policy(1, Head::TiedLm);
        model.attach(&lora, Path::new("base"), None, 2, 9).unwrap();
        let net = model.reference(Kind::Float).unwrap();
        let groups = [Group { prompt: PROMPTS[0], completions: vec![COMPLETIONS[0]] }];
        let packed = pack(&groups, 0, Device::Cpu).unwrap();
        let before = no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&net, 1.0).unwrap()).unwrap())).unwrap()[0];
        let at = alone(&model, 0, [0.2, 0.8]);
        assert!((alone(&model, 0, [0.9, 0.1]) - at).abs() < 1e-6, "{way}");
        assert_eq!((at - before).abs() < 1e-6, lora.soft_tokens == 0, "{way}: {at}, {before} before");
    }
}

/// Copies that are the same are, at any weights, one adapter; its gradient at the mix is shared out by the weights.
#[test]
fn a_copys_gradient_is_its_weights_share_of_that_at_the_mix() {
    let whole = |gains: Gains| Lora { full: true, ..options(gains) };
    shares_the_gradient(&options(Gains::Copies), &options(Gains::None));
    shares_the_gradient(&whole(Gains::Copies), &whole(Gains::None));
}

fn shares_the_gradient(copied: &Lora, single: &Lora) {
    let mut copies = changed(copied, 3);
    let mut one = policy(1, Head::TiedLm);
    one.attach(single, Path::new("base"), None, 0, 1).unwrap();
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

/// Of sets of soft tokens that are the same: what each is moved by is its weight's share.
#[test]
fn soft_tokens_share_the_gradient_by_the_weights() {
    let lora = Lora { soft_tokens: 3, targets: Targets::Ends(vec![]), ..options(Gains::None) };
    let mut model = policy(1, Head::TiedLm);
    model.attach(&lora, Path::new("base"), None, 2, 9).unwrap();
    model.require_grad().unwrap();
    let net = model.training_net(Kind::Float, 1, false).unwrap();
    packed(&net, &[1], &[[0.3, 0.7]]).token_log_probs(&net, 1.0).unwrap().sum(Kind::Float).backward();
    let [first, second] = model.trained() else { panic!("two sets are trained, and nothing else") };
    let gap = (first.1.grad() * 0.7 - second.1.grad() * 0.3).abs().max();
    assert!(first.1.grad().abs().max().double_value(&[]) > 1e-4 && gap.double_value(&[]) < 1e-6);
    assert!(model.params.iter().all(|(_, p)| !p.requires_grad()));
}

/// Layers that are computed again for their gradient have their rows' gains.
#[test]
fn recomputed_layers_have_the_same_gradients() {
    let dropping = ways().into_iter().map(|(way, lora)| (way, Lora { dropout: 0.3, ..lora }));
    for (way, lora) in ways().into_iter().chain(dropping) {
        let gradients = |recompute: bool| {
            let mut model = changed(&lora, 3);
            model.require_grad().unwrap();
            let net = model.training_net(Kind::Float, 1, recompute).unwrap();
            packed(&net, &[0, 1, 2], &MIXES).token_log_probs(&net, 1.0).unwrap().sum(Kind::Float).backward();
            net.backpropagate().unwrap();
            model.trained().iter().map(|(name, p)| (name.clone(), p.grad())).collect::<Vec<_>>()
        };
        for ((name, kept), (_, again)) in gradients(false).iter().zip(&gradients(true)) {
            let gap = f64::try_from((kept - again).abs().max().to_kind(Kind::Double)).unwrap();
            let size = f64::try_from(kept.abs().max().to_kind(Kind::Double)).unwrap();
            assert!(size > 0.0 && gap < 1e-4 * size, "{way} {name}: {gap} away, of {size}");
        }
    }
}

#[test]
fn panacea_without_scale_does_not_see_the_weights() {
    let mut model = changed(&options(Gains::Diagonal), 3);
    for (_, p) in model.lora.as_mut().unwrap().params.iter_mut().filter(|(name, _)| name.ends_with(".s")) {
        let _ = p.zero_();
    }
    let all: Vec<f64> = MIXES.iter().map(|w| alone(&model, 0, *w)).collect();
    assert!(all.iter().all(|sum| *sum == all[0]), "{all:?}");
    assert!(
        (all[0] - alone(&changed(&options(Gains::Diagonal), 3), 0, MIXES[0])).abs() > 1e-3,
        "the scale does nothing"
    );
}

/// What is saved for each objective answers together as what was trained did, at any weights.
#[test]
fn what_is_saved_is_what_was_trained() {
    for (way, lora) in ways() {
        let trained = changed(&lora, 3);
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
        assert!(near, "{way}: {own:?} were trained, {again:?} saved");
    }
}

/// A trained policy's folder: with weights per query it answers as the model that is mixed at those weights, and at all weight on one objective as
/// that part alone.
#[test]
fn what_is_saved_answers_as_what_is_mixed() {
    for gains in ["copies", "diagonal"] {
        let world = World::new();
        let run = trained(&world, &lora(gains), "online_preference", (12, 3e-2));
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

/// Decoding sees the soft tokens as training does: each greedy token is the likeliest one behind what is there, of rows together at weights of their own.
#[test]
fn soft_tokens_are_drawn_with_as_they_are_trained() {
    let (_, lora) = ways().into_iter().find(|(way, _)| *way == "soft tokens and copies").unwrap();
    let model = changed(&lora, 5);
    let net = no_grad(|| model.net(Kind::Float)).unwrap();
    let world = World::new();
    let tokenizer = Tokenizer::load(&world.path("policy"), &model.config).unwrap();
    let routes: Vec<Route> = MIXES.iter().map(|w| Route::Shares(w.to_vec())).collect();
    let decoder = net.decoder(&routes).unwrap();
    let greedy = GenerationConfig { max_new_tokens: 6, temperature: 0.0, ..GenerationConfig::default() };
    let prompts = PROMPTS.map(<[u32]>::to_vec);
    let drawn = rollout(decoder.as_ref(), &tokenizer, &prompts, 1, |_, _| 0, &greedy).unwrap();
    let vocabulary: Vec<Vec<u32>> = (0..model.config.shape.vocab_size as u32).map(|token| vec![token]).collect();
    let mut seen = 0;
    for (row, at) in MIXES.iter().enumerate() {
        let mut so_far = net.with_room(PROMPTS[row]);
        for &token in &drawn.of(row)[0].tokens {
            let completions = vocabulary.iter().map(Vec::as_slice).collect();
            let packed =
                pack(&[Group { prompt: &so_far, completions }], 0, Device::Cpu).unwrap().gained(&[at]).unwrap();
            let sums = no_grad(|| to_vec(&packed.token_log_probs(&net, 1.0).unwrap())).unwrap();
            let best = (0..sums.len()).max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap();
            assert_eq!(best as u32, token, "row {row} behind {so_far:?}");
            so_far.push(token);
            seen += 1;
        }
    }
    assert!(seen > 6, "the answers are too short to show anything");
    assert_eq!(net.context(), model.config.shape.context - 2);
}

fn lora(gains: &str) -> Value {
    json!({ "r": 8, "alpha": 16.0, "gains": gains })
}

/// Trains with weights in the parameters and none in the prompt.
fn trained(world: &World, lora: &Value, kind: &str, (steps, lr): (usize, f64)) -> std::path::PathBuf {
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
    world.run(kind, &[rewards, world.online(kind, &changes), front]).unwrap()
}

#[test]
fn parameters_steer_without_a_word_in_the_prompt() {
    for (kind, steps) in [("online_preference", 80), ("reinforce", 120)] {
        let soft = json!({ "soft_tokens": 12, "targets": [] });
        let beside = json!({ "soft_tokens": 4, "r": 8, "alpha": 16.0 });
        let whole = json!({ "gains": "copies", "full": true, "targets": ["q_proj", "v_proj", "lm_head"] });
        // Soft tokens move far before they say much, and a policy of random numbers that stands still does not follow them far. Beside an adapter it
        // is chance which of them learns first; by REINFORCE here the adapter, which knows no weights.
        for (way, lora, steps, lr, least) in [
            ("copies", lora("copies"), steps, 3e-2, 0.3),
            ("diagonal", lora("diagonal"), steps, 3e-2, 0.3),
            ("whole copies", whole, steps, 3e-2, 0.3),
            ("soft tokens alone", soft, steps, 0.3, 0.15),
            ("soft tokens and an adapter", beside, 150, 1e-2, 0.3),
        ] {
            if kind == "reinforce" && way == "soft tokens and an adapter" {
                continue;
            }
            let world = World::new();
            let run = trained(&world, &lora, kind, (steps, lr));
            let found: Value =
                serde_json::from_str(&std::fs::read_to_string(find(&run, "front.json")).unwrap()).unwrap();
            let reward = |point: usize, k: usize| found["methods"][0]["points"][point]["rewards"][k].as_f64().unwrap();
            // Points lie at (0, 1) and (1, 0).
            let gain = ((reward(1, 0) - reward(0, 0)) + (reward(0, 1) - reward(1, 1))) / 2.0;
            assert!(gain > least, "{kind}, {way}: from weight 0 to 1 the rewards gain {gain} only");
        }
    }
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
        let run = trained(&world, &lora, "online_preference", (4, 3e-2));
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
    let run = trained(&world, &lora("copies"), "online_preference", (1, 3e-2));
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
