//! What training says of its draws is what they were: log-probs at the sampling temperature, KL and entropy over every completion, the stop at
//! `max_kl`, cut answers, and prompts that do not fit with their weights.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::Prompt;
use motrain_core::data::{Place, Row};
use motrain_engine::decode::{Completion, rollout};
use motrain_engine::model::{Head, Labels, Mask, Model};
use motrain_engine::plan::GenerationConfig;
use motrain_engine::reward;
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::to_vec;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use tch::{Device, Kind, Tensor, no_grad};
use world::{Answer, World, answers, config, find, lines, log_probs, policy, text};

/// All completions of at most two tokens over the whole vocabulary.
fn every_completion() -> Vec<Vec<u32>> {
    let vocab = config(Head::TiedLm).shape.vocab_size as u32;
    let two = (1..vocab).flat_map(|first| (0..vocab).map(move |second| vec![first, second]));
    [vec![0]].into_iter().chain(two).collect()
}

#[test]
fn kl_and_entropy_of_draws_are_those_of_all_completions() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = text(folder.path(), &config(Head::TiedLm));
    let (now, before) = (policy(1, Head::TiedLm), policy(2, Head::TiedLm));
    let (prompt, all) = (vec![3, 1], every_completion());
    let places: HashMap<&Vec<u32>, usize> = all.iter().enumerate().map(|(i, c)| (c, i)).collect();
    for temperature in [1.0, 0.6, 1.7] {
        let (p, q) = (log_probs(&now, &prompt, &all, temperature), log_probs(&before, &prompt, &all, temperature));
        assert!((p.iter().map(|p| p.exp()).sum::<f64>() - 1.0).abs() < 1e-4, "these are all completions");
        let exact_kl: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        let exact_entropy: f64 = p.iter().map(|p| -p.exp() * p).sum();

        let sampling = GenerationConfig { max_new_tokens: 2, temperature, ..GenerationConfig::default() };
        let net = now.net(Kind::Float).unwrap();
        let drawn = rollout(&net, &tokenizer, std::slice::from_ref(&prompt), 4000, |_, i| i as u64, &sampling).unwrap();
        let tokens: Vec<Vec<u32>> = drawn.into_iter().map(|c| c.tokens).collect();
        let index = |t: &Vec<u32>| places[t];
        let ratios: Vec<f64> = tokens.iter().map(index).map(|i| p[i] - q[i]).collect();
        let surprise: Vec<f64> = tokens.iter().map(index).map(|i| -p[i]).collect();
        for (name, drawn, exact) in [("KL", ratios, exact_kl), ("entropy", surprise, exact_entropy)] {
            let n = drawn.len() as f64;
            let mean = drawn.iter().sum::<f64>() / n;
            let error = (drawn.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n / n).sqrt();
            assert!((mean - exact).abs() < 4.5 * error, "{name} at {temperature}: {mean} ± {error}, exactly {exact}");
        }
        assert!(exact_kl > 0.1, "the policies hardly differ, so this shows little");
    }
}

/// KL and entropy of the step after `checkpoint`, from its logged completions.
fn recomputed(world: &World, run: &std::path::Path, step: usize, temperature: f64, plain: bool) -> (f64, f64, usize) {
    let load = |folder: &std::path::Path| Model::load(folder, Device::Cpu).unwrap();
    let (now, before) = (load(&find(run, &format!("checkpoint-{}", step - 1))), load(&world.path("policy")));
    let tokenizer = Tokenizer::load(&world.path("policy"), &now.config).unwrap();
    let (mut ratios, mut surprise) = (Vec::new(), Vec::new());
    for Answer { prompt, plain: x, said, .. } in answers(run, step, &tokenizer) {
        let said = [said];
        let p = log_probs(&now, &prompt, &said, temperature)[0];
        ratios.push(p - log_probs(&before, if plain { &x } else { &prompt }, &said, temperature)[0]);
        surprise.push(-p);
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    (mean(&ratios), mean(&surprise), ratios.len())
}

/// Of three completions at most two are trained on, ties and identical ones teach nothing, and a source may leave out scores: KL and entropy
/// cover them all. The reference is the policy that the stage began with, still.
#[test]
fn kl_and_entropy_cover_every_drawn_completion() {
    let world = World::new();
    let preference = json!({ "label": { "name": "weighted_sum", "options": { "tolerance": 0.3 } } });
    let cases = [
        ("pairs", "online_preference", 1.0, true, preference.clone()),
        ("cold", "online_preference", 0.7, true, preference),
        ("plain", "online_preference", 1.0, false, json!({})),
        ("reinforce", "reinforce", 1.3, true, json!({ "baseline": "value" })),
    ];
    for (name, kind, temperature, sees_weights, more) in cases {
        let mut changes = json!({
            "completions": 3, "generate": { "max_new_tokens": 3, "temperature": temperature },
            "train": { "steps": 11, "batch_size": 4, "micro_batch_size": 3, "checkpoint_every": 1 },
            "reference_sees_weights": sees_weights,
        });
        for (key, value) in more.as_object().unwrap() {
            changes[key] = value.clone();
        }
        let run = world.train(name, kind, &changes).unwrap();
        let metrics = lines(&run, "metrics.jsonl");
        let (kl, entropy, count) = recomputed(&world, &run, 11, temperature, !sees_weights);
        assert_eq!(count, 12);
        let step = &metrics[10];
        let near = |key: &str, expected: f64| {
            let found = step[key].as_f64().unwrap();
            assert!(
                (found - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                "{name}: {key} {found}, drawn {expected}"
            );
        };
        near("objective/kl", kl);
        near("objective/entropy", entropy);
        let apart = |of: &str| step[format!("sampling/sampling_logp_difference/{of}")].as_f64().unwrap();
        assert!(
            apart("mean") <= apart("max") && apart("max") < 1e-5,
            "{name}: {} between drawing and training",
            apart("max")
        );
        assert!(kl.abs() > 1e-3, "{name}: the policy has not moved, so this shows nothing");
        if kind == "online_preference" && sees_weights {
            assert!(step["pairs/trained"].as_f64().unwrap() < 4.0, "{name}: all prompts made a pair: {step}");
        }
    }
}

/// All completions of a prompt were drawn under the weights that are logged with them; prompts have weights of their own, or a batch has.
#[test]
fn completions_of_a_prompt_share_its_weights() {
    let world = World::new();
    for (whole_batch, distinct) in [(false, 2..=4), (true, 1..=1)] {
        let train = json!({ "steps": 11, "batch_size": 4, "micro_batch_size": 4, "checkpoint_every": 11 });
        let changes = json!({ "one_weight_per_batch": whole_batch, "completions": 3, "train": train });
        let run = world.train(&format!("{whole_batch}"), "online_preference", &changes).unwrap();
        let of = |step: usize| -> BTreeSet<String> {
            let logged: Vec<Value> =
                lines(&run, "completions.jsonl").into_iter().filter(|l| l["step"] == step).collect();
            assert_eq!(logged.len(), 12);
            let weights = logged.chunks(3).map(|of_prompt| {
                let [a, b] = [0, 1].map(|k| of_prompt[0]["weights"][k].as_f64().unwrap());
                for line in of_prompt {
                    let prompt = line["conditioned_prompt"].as_str().unwrap();
                    assert!(prompt.contains(&format!("A: {a:.1}, B: {b:.1}")), "{line} was not asked with {a}, {b}");
                    assert_eq!(line["weights"], of_prompt[0]["weights"]);
                }
                format!("{a} {b}")
            });
            weights.collect()
        };
        let (first, later) = (of(1), of(11));
        assert!(distinct.contains(&first.len()) && distinct.contains(&later.len()), "{first:?} {later:?}");
        assert_ne!(first, later, "each step draws anew");
    }
}

#[test]
fn steps_without_pairs_have_a_kl_too() {
    let world = World::new();
    let ties = json!({ "label": { "name": "weighted_sum", "options": { "tolerance": 99.0 } } });
    let run = world.train("out", "online_preference", &ties).unwrap();
    for step in lines(&run, "metrics.jsonl") {
        assert_eq!(step["pairs/trained"], 0.0);
        assert!(step["objective/kl"].as_f64().unwrap().abs() < 1e-6, "{step}");
        assert!(step["objective/entropy"].as_f64().unwrap() > 1.0, "{step}");
    }
}

#[test]
fn training_stops_above_max_kl() {
    let world = World::new();
    let train = json!({ "steps": 40, "batch_size": 4, "micro_batch_size": 4, "checkpoint_every": 10 });
    for (max_kl, kind) in [(0.05, "online_preference"), (0.05, "reinforce"), (0.0, "online_preference")] {
        let out = format!("{kind}-{max_kl}");
        let run = world.train(&out, kind, &json!({ "max_kl": max_kl, "train": train })).unwrap();
        let kl: Vec<f64> = lines(&run, "metrics.jsonl").iter().map(|l| l["objective/kl"].as_f64().unwrap()).collect();
        let recent = |end: usize| kl[end - 10..end].iter().sum::<f64>() / 10.0;
        match max_kl {
            0.0 => assert_eq!(kl.len(), 40),
            _ => {
                assert!(kl.len() < 40 && recent(kl.len()) > max_kl, "{out}: {kl:?}");
                assert!((10..kl.len()).all(|end| recent(end) <= max_kl), "{out} stopped late: {kl:?}");
            }
        }
    }
}

/// The same draws score less by the penalty for each that was cut; a constant reward then teaches to come to an end.
#[test]
fn cut_completions_lose_the_penalty() {
    let world = World::new();
    let first = |penalty: f64| {
        let run = world
            .train(
                &format!("p{penalty}"),
                "reinforce",
                &json!({ "missing_eos_penalty": penalty, "train": { "steps": 1, "batch_size": 16 } }),
            )
            .unwrap();
        lines(&run, "metrics.jsonl").remove(0)
    };
    let (without, with) = (first(0.0), first(0.5));
    let number = |m: &Value, key: &str| m[key].as_f64().unwrap();
    let cut = 1.0 - number(&with, "completions/eos_rate");
    assert!(cut > 0.2, "hardly any completion is cut");
    let lost = number(&without, "objective/scores") - number(&with, "objective/scores");
    assert!((lost - 0.5 * cut).abs() < 1e-9, "lost {lost}, {cut} were cut");
    assert_eq!(without["rewards/A/mean"], with["rewards/A/mean"], "what the rewards said stays");

    let never = json!({ "name": "lexicon", "options": { "words": { "nothing": 1.0 } } });
    let source = |name: &str| json!({ "name": name, "scale": [0.0, 1.0], "source": never });
    let mut rewards = world.rewards();
    rewards["sources"] = json!([source("A"), source("B")]);
    let changes =
        json!({ "missing_eos_penalty": 1.0, "train": { "steps": 40, "batch_size": 16, "checkpoint_every": 40 } });
    let run = world.run("end", &[rewards, world.online("online_preference", &changes)]).unwrap();
    let rate: Vec<f64> = lines(&run, "metrics.jsonl").iter().map(|m| number(m, "completions/eos_rate")).collect();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    assert!(mean(&rate[35..]) > mean(&rate[..5]) + 0.2, "{rate:?}");
}

/// A reward model reads a cut answer without an end-of-sequence token, and one that is too long for it likewise.
#[test]
fn reward_models_read_cut_answers_without_an_end() {
    let world = World::new();
    let folder = world.path("rm");
    let words = text(&folder, &config(Head::Score));
    let model = policy(3, Head::TiedLm).into_reward_model(0, Labels::reward(), 7).unwrap();
    model.save(&folder, &words).unwrap();
    let mut registry = motrain_core::Registry::builtin();
    reward::register(&mut registry, "cpu", "f32").unwrap();
    let row = Row { prompt: Prompt::user("a b"), columns: json!({}), place: Place { file: 0, line: 1 } };
    let said =
        |text: &str, finished: bool| Completion { tokens: vec![], log_probs: vec![], text: text.into(), finished };
    let score = |max_tokens: usize, completion: &Completion| {
        let options = json!({ "model": folder, "max_tokens": max_tokens });
        let source = registry.rewards.build("reward_model", &options).unwrap();
        source.score(&[completion.sample(&row)]).unwrap()[0]
    };
    // One row, read at its last token.
    let by_hand = |answer: &[i64]| {
        let net = no_grad(|| model.net(Kind::Float)).unwrap();
        let ids = Tensor::from_slice(&[&[1, 2], answer].concat()).unsqueeze(0);
        let positions = Tensor::arange(ids.numel() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        let hidden = no_grad(|| net.hidden(&ids, &positions, &Mask::Causal, None)).unwrap();
        to_vec(&net.head(&hidden.select(1, -1)).unwrap().view([-1])).unwrap()[0]
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    near(score(64, &said("c d", true)), by_hand(&[3, 4, 0]));
    near(score(64, &said("c d", false)), by_hand(&[3, 4]));
    assert!(
        (by_hand(&[3, 4, 0]) - by_hand(&[3, 4])).abs() > 1e-3,
        "the end makes no difference, so this shows nothing"
    );
    // Room for two tokens of the answer beside one of the prompt.
    let cut = reward::encode_for_reward(&words, &row.prompt, ("c d e", true), 3).unwrap();
    assert_eq!(cut, (vec![2], vec![3, 4]));
}

/// The prefix counts: a prompt that fits by itself but not with its weights is refused before the first step, with its line.
#[test]
fn prompts_must_fit_with_their_weights() {
    let world = World::new();
    let mut prompts = std::fs::read_to_string(world.path("prompts.jsonl")).unwrap();
    let long = ["a"; 55].join(" ");
    prompts.push_str(&format!("{}\n", json!({ "prompt": long })));
    std::fs::write(world.path("prompts.jsonl"), prompts).unwrap();
    for kind in ["online_preference", "reinforce"] {
        let train = json!({ "train": { "steps": 1, "batch_size": 1 } });
        let error = world.train(kind, kind, &train).unwrap_err().to_string();
        assert!(
            error.contains("prompts.jsonl:22: with what the conditioner writes into it, a prompt of 65 tokens"),
            "{error}"
        );
        assert!(
            !world.path(kind).join("metrics.jsonl").exists() || lines(&world.path(kind), "metrics.jsonl").is_empty()
        );
    }
}

/// The first step of a value head has a baseline: advantages are not all of one sign.
#[test]
fn the_first_step_of_reinforce_has_a_baseline() {
    let world = World::new();
    let changes = json!({ "baseline": "value", "train": { "steps": 2, "batch_size": 8 } });
    let mut rewards = world.rewards();
    for source in rewards["sources"].as_array_mut().unwrap() {
        source["scale"] = json!([-1.0, 0.0]);
    }
    let run = world.run("out", &[rewards, world.online("reinforce", &changes)]).unwrap();
    let first = lines(&run, "metrics.jsonl").remove(0);
    assert!(first["objective/rlhf_reward"].as_f64().unwrap() >= 1.0, "{first}");
    assert!(first["advantages/mean"].as_f64().unwrap().abs() < 1e-6, "{first}");
    assert!(first["value/loss"].is_null(), "the head has said nothing yet: {first}");
}
