//! Policies that their parameters steer (Conditional Language Policy, Panacea): each copy gets its weight's share of the gradient, a row's answer does not
//! depend on the weights of others, what is saved answers as what was trained, and training makes a policy steer without a word in its prompt.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod runs;
#[path = "../world/mod.rs"]
mod world;

use motrain_engine::decode::rollout;
use motrain_engine::model::{Adapter, Head, Model, Net};
use motrain_engine::plan::{Gains, GenerationConfig, Lora, Targets};
use motrain_engine::steer::{Route, Steerable};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, Packed, pack, to_vec};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};
use world::{World, policy};

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
