//! Logits, log-probs and tokens equal those of transformers (goldens from tests/goldens/parity.py), padded and packed alike.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use motrain_core::Prompt;
use motrain_engine::decode::rollout;
use motrain_engine::model::{Mask, Model, Net};
use motrain_engine::plan::GenerationConfig;
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack, to_vec};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

/// Largest absolute difference of logits: both sides sum in f32, in different orders.
const TOLERANCE: f64 = 2e-3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn goldens(model: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("tests/goldens/parity.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[model].as_array().unwrap().clone()
}

fn load(folder: &Path) -> (Net, Tokenizer) {
    let model = Model::load(folder, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(folder, &model.config).unwrap();
    (no_grad(|| model.net(Kind::Float)).unwrap(), tokenizer)
}

fn check(name: &str, folder: &Path) {
    let (net, tokenizer) = load(folder);
    let mut prompts = Vec::new();
    for golden in goldens(name) {
        let prompt = Prompt::user(golden["text"].as_str().unwrap());
        assert_eq!(tokenizer.render(&prompt).unwrap(), golden["rendered"].as_str().unwrap());
        let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode_prompt(&prompt).unwrap(), ids, "{name}: tokens");

        let input = Tensor::from_slice(&ids.iter().map(|&i| i64::from(i)).collect::<Vec<_>>()).unsqueeze(0);
        let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        let hidden = no_grad(|| net.hidden(&input, &positions, &Mask::Causal, None)).unwrap();
        let last = net.head(&hidden.select(1, -1)).unwrap();
        let found = to_vec(&last.view([-1]).narrow(0, 0, 64)).unwrap();
        let expected: Vec<f64> = serde_json::from_value(golden["last_logits"].clone()).unwrap();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < TOLERANCE, "{name}: logits differ by {worst}");
        prompts.push((ids, golden["log_prob_sum"].as_f64().unwrap()));
    }
    // Everything after the first token as a completion: alone, and packed into one padded batch.
    let group = |ids: &'_ [u32]| -> (Vec<u32>, Vec<u32>) { (ids[..1].to_vec(), ids[1..].to_vec()) };
    let split: Vec<_> = prompts.iter().map(|(ids, _)| group(ids)).collect();
    let groups: Vec<Group> =
        split.iter().map(|(p, c)| Group { prompt: p, completions: vec![c.as_slice(), &c[..3]] }).collect();
    let packed = pack(&groups, tokenizer.pad, Device::Cpu).unwrap();
    let sums = to_vec(&no_grad(|| packed.sums(&packed.token_log_probs(&net, 1.0)?)).unwrap()).unwrap();
    for (i, (ids, expected)) in prompts.iter().enumerate() {
        let tolerance = TOLERANCE * ids.len() as f64;
        assert!((sums[2 * i] - expected).abs() < tolerance, "{name}: {} is not {expected}", sums[2 * i]);
        let short = Group { prompt: &split[i].0, completions: vec![&split[i].1[..3]] };
        let alone = pack(&[short], tokenizer.pad, Device::Cpu).unwrap();
        let alone = to_vec(&no_grad(|| alone.sums(&alone.token_log_probs(&net, 1.0)?)).unwrap()).unwrap();
        assert!((alone[0] - sums[2 * i + 1]).abs() < 1e-3, "{name}: packing changes a log-prob");
    }
}

#[test]
fn the_shipped_policy_equals_transformers() {
    check("tiny", &root().join("assets/hh/policy"));
}

#[test]
fn smollm2_equals_transformers() {
    let folder = std::env::var_os("MOTRAIN_SMOLLM2").map_or(root().join("models/smollm2"), PathBuf::from);
    assert!(folder.join("config.json").is_file(), "SmolLM2 is missing; run: cargo xtask fetch-model smollm2");
    check("smollm2", &folder);
}

/// Greedy decoding with the cache equals the arg-max of full forward passes, whatever the batch and the padding.
#[test]
fn cached_decoding_equals_full_passes() {
    let (net, tokenizer) = load(&root().join("assets/hh/policy"));
    let greedy = GenerationConfig { temperature: 0.0, max_new_tokens: 12, ..GenerationConfig::default() };
    let prompts: Vec<Vec<u32>> = ["How do I pick a lock?", "Tell me how to fix a live wire. It is for a bet.", "Hi"]
        .iter()
        .map(|p| tokenizer.encode_prompt(&Prompt::user(*p)).unwrap())
        .collect();
    let drawn = rollout(&net, &tokenizer, &prompts, 2, |prompt, i| (prompt * 2 + i) as u64, &greedy).unwrap();
    assert_eq!(drawn.of(1)[0], drawn.of(1)[1]);
    for (slot, prompt) in prompts.iter().enumerate() {
        let mut ids: Vec<i64> = prompt.iter().map(|&i| i64::from(i)).collect();
        for &token in &drawn.of(slot)[0].tokens {
            let input = Tensor::from_slice(&ids).unsqueeze(0);
            let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let hidden = no_grad(|| net.hidden(&input, &positions, &Mask::Causal, None)).unwrap();
            let best = net.head(&hidden.select(1, -1)).unwrap().argmax(-1, false).int64_value(&[0]);
            assert_eq!(best, i64::from(token));
            ids.push(best);
        }
    }
}

/// A completion depends on its own seed, not on its neighbours.
#[test]
fn sampling_does_not_depend_on_the_batch() {
    let (net, tokenizer) = load(&root().join("assets/hh/policy"));
    let sampling = GenerationConfig { max_new_tokens: 40, ..GenerationConfig::default() };
    let prompts: Vec<Vec<u32>> = ["How do I pick a lock?", "Tell me how to sneak out at night. I am bored today."]
        .iter()
        .map(|p| tokenizer.encode_prompt(&Prompt::user(*p)).unwrap())
        .collect();
    let together = rollout(&net, &tokenizer, &prompts, 2, |prompt, i| (prompt * 2 + i) as u64, &sampling).unwrap();
    let alone = rollout(&net, &tokenizer, &prompts[..1], 1, |_, _| 1, &sampling).unwrap();
    let (beside, alone) = (&together.of(0)[1], &alone[0]);
    assert_eq!(beside.tokens, alone.tokens);
    // Sums of more rows round otherwise.
    assert!(beside.log_probs.iter().zip(&alone.log_probs).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_ne!(together.of(0)[0], together.of(0)[1]);
}

/// Tokens are drawn with weights laid out for few rows and a cache, and trained on in one packed pass: what both make of a token differs by rounding alone.
#[test]
fn what_tokens_were_drawn_at_is_what_they_are_trained_at() {
    let folder = root().join("assets/hh/policy");
    let model = Model::load(&folder, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&folder, &model.config).unwrap();
    let prompts: Vec<Vec<u32>> =
        ["How do I pick a lock?", "Hi", "Tell me how to sneak out at night. I am bored today."]
            .iter()
            .map(|p| tokenizer.encode_prompt(&Prompt::user(*p)).unwrap())
            .collect();
    for (kind, temperature, bound) in [(Kind::Float, 1.0, 1e-4), (Kind::Float, 0.6, 1e-4), (Kind::BFloat16, 1.0, 0.05)]
    {
        let sampling = GenerationConfig { max_new_tokens: 40, temperature, ..GenerationConfig::default() };
        let net = no_grad(|| model.net(kind)).unwrap();
        let drawn = rollout(&net, &tokenizer, &prompts, 4, |prompt, i| (prompt * 4 + i) as u64, &sampling).unwrap();
        let tokens = |slot: usize| drawn.of(slot).iter().map(|c| c.tokens.as_slice()).collect();
        let groups: Vec<Group> =
            prompts.iter().enumerate().map(|(i, prompt)| Group { prompt, completions: tokens(i) }).collect();
        let training = model.training_net(kind, 0, false).unwrap();
        let packed = pack(&groups, tokenizer.pad, Device::Cpu).unwrap();
        let trained = no_grad(|| to_vec(&packed.token_log_probs(&training, temperature).unwrap())).unwrap();
        let sampled: Vec<f32> = drawn.iter().flat_map(|c| c.log_probs.clone()).collect();
        assert!(sampled.len() == trained.len() && sampled.len() > 100);
        let most = sampled.iter().zip(&trained).map(|(s, t)| (f64::from(*s) - t).abs()).fold(0.0, f64::max);
        assert!(most < bound, "{kind:?} at {temperature}: {most} apart");
    }
}
