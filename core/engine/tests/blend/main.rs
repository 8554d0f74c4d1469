//! Mixes of next-token distributions are what MOD's and DeRa's equations say, and leave alone what they do not mix.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod rules;

use motrain_core::{Prompt, Weights};
use motrain_engine::decode::{Blend, Completions, Decoder, Divergence, Query, Rows, Rule, rollout};
use motrain_engine::model::{Model, Net};
use motrain_engine::plan::{GenerationConfig, Lora, ModelRef};
use motrain_engine::steer::blend::Blending;
use motrain_engine::steer::{Loader, Steer, Steerable};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::to_vec;
use motrain_engine::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

const EVERY: [Divergence; 5] =
    [Divergence::ReverseKl, Divergence::Alpha(1.0), Divergence::Alpha(0.5), Divergence::Alpha(0.01), Divergence::Jsd];

fn rule(divergence: Divergence) -> Rule {
    Rule { divergence, strength: 1.0, top_p: 1.0 }
}

fn logits(probs: &[f64]) -> Tensor {
    // A number of its own on top: distributions are what count.
    Tensor::from_slice(&probs.iter().map(|p| (p.ln() + 0.3 * probs[0] + 1.7) as f32).collect::<Vec<_>>()).unsqueeze(0)
}

/// What a rule makes of single distributions.
fn mixed(rule: Rule, parts: &[&[f64]], weights: &[f64], reference: Option<&[f64]>) -> Vec<f64> {
    let parts: Vec<Tensor> = parts.iter().map(|p| logits(p)).collect();
    let rest = 1.0 - rule.strength * weights.iter().sum::<f64>();
    let shares: Vec<f32> = weights.iter().chain([&rest]).map(|w| *w as f32).collect();
    let reference = reference.map(logits);
    let out = rule.mix(&parts, reference.as_ref(), &Tensor::from_slice(&shares).unsqueeze(0)).unwrap();
    to_vec(&out.softmax(-1, Kind::Float).view([-1])).unwrap()
}

#[track_caller]
fn near(found: &[f64], wanted: &[f64], tolerance: f64) {
    let worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(found.len() == wanted.len() && worst < tolerance, "{found:?} instead of {wanted:?}");
}

fn normal(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let numbers: Vec<f64> = numbers.collect();
    let sum: f64 = numbers.iter().sum();
    numbers.iter().map(|x| x / sum).collect()
}

const ONE: [f64; 3] = [0.7, 0.2, 0.1];
const TWO: [f64; 3] = [0.1, 0.3, 0.6];
const REFERENCE: [f64; 3] = [0.5, 0.3, 0.2];

/// Logits of the next token by the last one: a language of three tokens.
struct Bigrams {
    table: Tensor,
    /// What it says once it is asked.
    fails: bool,
}

impl Bigrams {
    fn new(probs: [[f64; 3]; 3]) -> Self {
        let rows: Vec<Tensor> = probs.iter().map(|row| logits(row)).collect();
        Self { table: Tensor::cat(&rows, 0), fails: false }
    }
}

impl Decoder for Bigrams {
    fn context(&self) -> i64 {
        64
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn dtype(&self) -> Kind {
        Kind::Float
    }

    fn parameter_count(&self) -> usize {
        9
    }

    fn prefill(&self, prompts: &[Query], rows: &[usize], _: usize) -> Result<(Tensor, Box<dyn Rows + '_>)> {
        if self.fails {
            return Err(Error::invalid("was asked"));
        }
        let last = |&row: &usize| i64::from(*prompts[row].tokens.last().unwrap());
        let last: Vec<i64> = rows.iter().map(last).collect();
        Ok((self.table.index_select(0, &Tensor::from_slice(&last)), Box::new(Next(&self.table))))
    }
}

struct Next<'a>(&'a Tensor);

impl Rows for Next<'_> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.0.index_select(0, tokens))
    }

    fn select(&mut self, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

const FIRST: [[f64; 3]; 3] = [[0.2, 0.3, 0.5], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]];
const SECOND: [[f64; 3]; 3] = [[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]];
const START: [[f64; 3]; 3] = [[0.4, 0.3, 0.3], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(name: &str) -> (Net, Tokenizer) {
    let folder = root().join("assets/hh").join(name);
    let model = Model::load(&folder, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&folder, &model.config).unwrap();
    (no_grad(|| model.net(Kind::Float)).unwrap(), tokenizer)
}

/// Answers of two tokens come as often as the mix says, at weights of each prompt's own and at a temperature that comes after mixing.
#[test]
fn answers_are_as_frequent_as_the_mix_says() {
    let (first, second, start) = (Bigrams::new(FIRST), Bigrams::new(SECOND), Bigrams::new(START));
    let (_, mut tokenizer) = load("policy");
    tokenizer.eos = vec![9];
    let weights = [[0.25, 0.75], [1.0, 0.0], [0.6, 0.4]];
    let prompts: Vec<Vec<u32>> = vec![vec![1, 0], vec![2], vec![1, 1, 2]];
    for (divergence, strength, temperature) in [
        (Divergence::ReverseKl, 1.0, 1.0),
        (Divergence::ReverseKl, 1.6, 0.7),
        (Divergence::Alpha(0.5), 1.0, 0.7),
        (Divergence::Jsd, 0.5, 1.0),
    ] {
        let rule = Rule { strength, ..rule(divergence) };
        let all: Vec<Vec<f64>> = weights.iter().map(|w| w.to_vec()).collect();
        let blend = Blend::new(vec![&first, &second], Some(&start), all, rule).unwrap();
        let sampling = GenerationConfig { max_new_tokens: 2, temperature, ..GenerationConfig::default() };
        let drawn = rollout(&blend, &tokenizer, &prompts, 4000, |p, i| (5000 * p + i) as u64, &sampling).unwrap();
        for (prompt, own) in weights.iter().enumerate() {
            let next = |token: usize| {
                let mix = mixed(rule, &[&FIRST[token], &SECOND[token]], own, Some(&START[token]));
                normal(mix.iter().map(|p| p.powf(1.0 / temperature)))
            };
            let last = *prompts[prompt].last().unwrap() as usize;
            for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                let wanted = next(last)[a] * next(a)[b];
                let found =
                    drawn.of(prompt).iter().filter(|c| c.tokens == [a as u32, b as u32]).count() as f64 / 4000.0;
                let deviation = (wanted * (1.0 - wanted) / 4000.0).sqrt();
                assert!((found - wanted).abs() < 4.0 * deviation, "{rule:?} {own:?} {a}{b}: {found}, not {wanted}");
            }
        }
    }
}

/// Shares are those of the prompt that a row goes on from, and stay with it where others are dropped.
#[test]
fn kept_rows_keep_their_weights() {
    let (first, second, start) = (Bigrams::new(FIRST), Bigrams::new(SECOND), Bigrams::new(START));
    let weights = [[0.25, 0.75], [1.0, 0.0], [0.6, 0.4]];
    for (divergence, strength) in [(Divergence::ReverseKl, 1.6), (Divergence::Jsd, 0.5), (Divergence::Alpha(0.5), 1.0)]
    {
        let rule = Rule { strength, ..rule(divergence) };
        // Each row's distribution, by the prompt whose weights it has and the token before.
        let check = |logits: &Tensor, rows: &[(usize, usize)]| {
            let found = to_vec(&logits.softmax(-1, Kind::Float).view([-1])).unwrap();
            for (found, &(prompt, last)) in found.chunks(3).zip(rows) {
                near(found, &mixed(rule, &[&FIRST[last], &SECOND[last]], &weights[prompt], Some(&START[last])), 1e-6);
            }
        };
        let all = weights.iter().map(|w| w.to_vec()).collect();
        let blend = Blend::new(vec![&first, &second], Some(&start), all, rule).unwrap();
        let query = |tokens, index| Query { tokens, index };
        let (logits, mut rows) = blend.prefill(&[query(&[1, 0], 2), query(&[2], 0)], &[0, 1, 1, 0], 4).unwrap();
        check(&logits, &[(2, 0), (0, 2), (0, 2), (2, 0)]);
        rows.select(&Tensor::from_slice(&[3i64, 1])).unwrap();
        check(&rows.step(&Tensor::from_slice(&[2i64, 1])).unwrap(), &[(2, 2), (0, 1)]);
    }
}

/// Nothing is asked of a part without weight, nor of a reference that mixing does not need.
#[test]
fn what_has_no_weight_is_not_run() {
    let (first, second, start) = (Bigrams::new(FIRST), Bigrams::new(SECOND), Bigrams::new(START));
    let silent = Bigrams { fails: true, ..Bigrams::new(SECOND) };
    let asks = |blend: Blend| {
        let prompt = [Query { tokens: &[1, 0], index: 0 }];
        blend.prefill(&prompt, &[0, 0], 4).map(|(logits, _)| logits).map_err(|e| e.to_string())
    };
    let of = |parts: [&Bigrams; 2], reference: &Bigrams, w: [f64; 2], divergence, strength| {
        let parts = parts.into_iter().map(|part| part as &dyn Decoder).collect();
        asks(Blend::new(parts, Some(reference), vec![w.to_vec()], Rule { strength, ..rule(divergence) }).unwrap())
    };
    let own = |table: &Bigrams| table.table.narrow(0, 0, 1).expand([2, -1], false);
    for divergence in EVERY {
        let reference = if divergence == Divergence::Jsd { &start } else { &silent };
        assert_eq!(of([&first, &silent], reference, [1.0, 0.0], divergence, 1.0).unwrap(), own(&first));
        assert_eq!(of([&silent, &second], reference, [0.0, 1.0], divergence, 1.0).unwrap(), own(&second));
        assert_eq!(of([&silent, &silent], &start, [0.4, 0.6], divergence, 0.0).unwrap(), own(&start));
        assert_eq!(of([&first, &silent], reference, [0.9, 0.1], divergence, 1.0).unwrap_err(), "was asked");
        assert_eq!(of([&first, &silent], &silent, [1.0, 0.0], divergence, 1.1).unwrap_err(), "was asked");
    }
}

fn draw(decoder: &dyn Decoder, tokenizer: &Tokenizer, prompts: &[Vec<u32>]) -> Completions {
    let sampling = GenerationConfig { max_new_tokens: 16, ..GenerationConfig::default() };
    rollout(decoder, tokenizer, prompts, 2, |p, i| (2 * p + i) as u64, &sampling).unwrap()
}

/// Prompts of several lengths, each with weights of its own: at a corner each draws what that network draws alone, whatever the divergence, and
/// between them what it draws where all prompts have its weights.
#[test]
fn rows_have_weights_of_their_own() {
    let ((large, tokenizer), (small, _)) = (load("policy"), load("policy_small"));
    let prompts: Vec<Vec<u32>> = [
        "How do I pick a lock?",
        "Hi",
        "Tell me how to sneak out at night. I am bored today.",
        "Tell me how to fix a live wire.",
    ]
    .iter()
    .map(|p| tokenizer.encode_prompt(&Prompt::user(*p)).unwrap())
    .collect();
    assert!(prompts.iter().any(|p| p.len() != prompts[0].len()));
    let alone = [draw(&large, &tokenizer, &prompts), draw(&small, &tokenizer, &prompts)];
    assert_ne!(alone[0], alone[1]);
    for divergence in [Divergence::ReverseKl, Divergence::Alpha(0.5), Divergence::Jsd] {
        let mix = |weights: &[[f64; 2]]| {
            let weights = weights.iter().map(|w| w.to_vec()).collect();
            let blend = Blend::new(vec![&large, &small], Some(&large), weights, rule(divergence)).unwrap();
            draw(&blend, &tokenizer, &prompts)
        };
        assert_eq!([mix(&[[1.0, 0.0]]), mix(&[[0.0, 1.0]])], alone, "{divergence:?}");
        let each = mix(&[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.2, 0.8]]);
        assert_eq!((each.of(0), each.of(2)), (alone[0].of(0), alone[1].of(2)), "{divergence:?}");
        assert_eq!((each.of(1), each.of(3)), (mix(&[[0.5, 0.5]]).of(1), mix(&[[0.2, 0.8]]).of(3)), "{divergence:?}");
        assert!(each.of(1) != alone[0].of(1) && each.of(1) != alone[1].of(1), "{divergence:?} mixes nothing");
    }
    let far = |strength: f64| {
        let rule = Rule { strength, ..rule(Divergence::ReverseKl) };
        draw(&Blend::new(vec![&large], Some(&small), vec![vec![1.0]], rule).unwrap(), &tokenizer, &prompts)
    };
    assert_eq!([far(1.0), far(0.0)], alone);
    assert!(!alone.contains(&far(2.0)));
}

fn at(model: &ModelRef) -> PathBuf {
    PathBuf::from(model.path().unwrap())
}

fn place(path: &Path) -> ModelRef {
    ModelRef::Path(path.display().to_string())
}

fn steered(options: Value) -> Result<Box<dyn Steerable>> {
    let blending: Blending = serde_json::from_value(options).unwrap();
    let loader = Loader { folder: Box::new(at), device: Device::Cpu, dtype: Kind::Float };
    blending.load(&loader).map(|(policy, _)| policy)
}

/// Adapters of one base are mixed as the models that they make are.
#[test]
fn adapters_answer_as_the_models_that_they_make() {
    let folder = root().join("assets/hh/policy");
    let saved = [0.02, -0.03].map(|size| {
        let mut model = Model::load(&folder, Device::Cpu).unwrap();
        model.attach(&Lora { r: 2, ..Lora::default() }, &folder, None, 0, 5).unwrap();
        let lora = model.lora.as_mut().unwrap();
        for (_, p) in lora.params.iter_mut().filter(|(name, _)| name.contains("lora_B")) {
            *p = p.ones_like() * size;
        }
        let saved = tempfile::tempdir().unwrap();
        lora.save(saved.path()).unwrap();
        saved
    });
    let parts = [place(saved[0].path()), place(saved[1].path())];
    let nets =
        saved.each_ref().map(|s| Model::open(s.path(), Device::Cpu, Kind::Float).unwrap().net(Kind::Float).unwrap());
    let base = Model::load(&folder, Device::Cpu).unwrap().net(Kind::Float).unwrap();
    let prompts = [Query { tokens: &[5, 6, 7], index: 0 }, Query { tokens: &[9], index: 1 }];
    let first = |decoder: &dyn Decoder| {
        let (logits, mut rows) = no_grad(|| decoder.prefill(&prompts, &[0, 1], 2)).unwrap();
        let next = no_grad(|| rows.step(&Tensor::from_slice(&[3i64, 4]))).unwrap();
        Tensor::cat(&[logits, next], 0).log_softmax(-1, Kind::Float)
    };
    for (strength, with_base) in [(1.0, false), (1.0, true), (1.5, true)] {
        let mut options = json!({ "parts": parts, "strength": strength });
        if with_base {
            options["base"] = json!(place(&folder));
        }
        let policy = steered(options).unwrap();
        for weights in [[1.0, 0.0], [0.3, 0.7]] {
            let rule = Rule { strength, ..rule(Divergence::ReverseKl) };
            let wanted = Blend::new(vec![&nets[0], &nets[1]], Some(&base), vec![weights.to_vec()], rule).unwrap();
            let route = policy.route(&Weights::new(weights.to_vec()).unwrap()).unwrap();
            let found = policy.decoder(&[route]).unwrap();
            let gap = f64::try_from((first(found.as_ref()) - first(&wanted)).abs().max()).unwrap();
            assert!(gap < 2e-3, "{weights:?} at {strength}: {gap}");
        }
    }
    let apart = f64::try_from((first(&nets[0]) - first(&nets[1])).abs().max()).unwrap();
    assert!(apart > 0.1, "the adapters change nothing: {apart}");
}

/// Rows of an embedding that no token has are no reason to guess.
#[test]
fn models_of_other_rows_are_refused() {
    let folder = root().join("assets/hh/policy");
    let mut wide = Model::load(&folder, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&folder, &wide.config).unwrap();
    let embedding = &mut wide.params[0].1;
    *embedding = Tensor::cat(&[&*embedding, &embedding.narrow(0, 0, 2)], 0);
    wide.config.shape.vocab_size += 2;
    let saved = tempfile::tempdir().unwrap();
    wide.save(saved.path(), &tokenizer).unwrap();
    let config = saved.path().join("config.json");
    let said = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, said.replace("\"vocab_size\": 1514", "\"vocab_size\": 1516")).unwrap();
    let told = steered(json!({ "parts": [place(&folder), place(saved.path())] })).err().unwrap().to_string();
    assert_eq!(
        told,
        "blend: one of its models has 1516 tokens and another 1514; bring them to one number with transformers: model.resize_token_embeddings(n)"
    );
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let (first, second) = (Bigrams::new(FIRST), Bigrams::new(SECOND));
    let refused = |weights: &[&[f64]], rule: Rule| {
        let weights = weights.iter().map(|w| w.to_vec()).collect();
        Blend::new(vec![&first, &second], None, weights, rule).err().unwrap().to_string()
    };
    let reverse = rule(Divergence::ReverseKl);
    let forward = rule(Divergence::Alpha(1.0));
    let told = [
        ("too few", refused(&[&[1.0]], reverse)),
        ("no number", refused(&[&[f64::NAN, 1.0]], reverse)),
        ("negative", refused(&[&[1.5, -0.5]], forward)),
        ("too much", refused(&[&[0.5, 0.5], &[0.6, 0.6]], forward)),
        ("without a base, too much", refused(&[&[0.6, 0.6]], reverse)),
        ("without a base, far", refused(&[&[0.5, 0.5]], Rule { strength: 2.0, ..reverse })),
        ("without a base, jsd", refused(&[&[0.5, 0.5]], rule(Divergence::Jsd))),
        ("no weights", refused(&[], reverse)),
    ];
    insta::assert_snapshot!(told.map(|(what, why)| format!("{what}: {why}")).join("\n"));
    let blend = Blend::new(vec![&first, &second], None, vec![vec![0.5, 0.5], vec![1.0, 0.0]], reverse).unwrap();
    let beyond = blend.prefill(&[Query { tokens: &[1], index: 2 }], &[0], 1).err().unwrap().to_string();
    assert_eq!(beyond, "blend: has weights of 2 prompts, and not of prompt 2");
}
