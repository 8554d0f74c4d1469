//! Models of every family compute what transformers computes of them, decode and pack alike, and are written as transformers reads them
//! (goldens from tests/goldens/families.py).

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod training;

use motrain_engine::decode::{Decoder, Gained, Query};
use motrain_engine::model::{Adapter, Config, FAMILIES, Head, Mask, Model, Net, RowGains};
use motrain_engine::reward::{Reading, ReadingOptions};
use motrain_engine::train::logprob::{Group, pack, to_vec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

/// Largest absolute difference of logits, which lie between −10 and 10.
const TOLERANCE: f64 = 2e-3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

struct Goldens(Value);

impl Goldens {
    fn read() -> Self {
        tch::set_num_threads(1);
        Self(serde_json::from_str(&std::fs::read_to_string(root().join("goldens/families.json")).unwrap()).unwrap())
    }

    /// Cases of a kind, by name.
    fn cases<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let all = self.0["cases"].as_object().unwrap();
        let of_kind = all.iter().filter(move |(_, case)| case["kind"] == kind);
        of_kind.map(|(name, case)| (name.as_str(), case["same"].as_str().map_or(case, |same| &all[same])))
    }

    /// A case's model; a folder without weights of its own has those of another case.
    fn folder(&self, name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let from = root().join("fixtures/families");
        let own = |file: &str| from.join(name).join(file);
        let weights = self.0["cases"][name]["weights"].as_str().map(|other| from.join(other).join("model.safetensors"));
        std::fs::copy(own("config.json"), folder.path().join("config.json")).unwrap();
        std::fs::copy(weights.unwrap_or(own("model.safetensors")), folder.path().join("model.safetensors")).unwrap();
        folder
    }

    fn model(&self, name: &str) -> Model {
        Model::load(self.folder(name).path(), Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn rows<'a>(&'a self, case: &'a Value) -> Vec<Vec<u32>> {
        let own = &case["rows"];
        serde_json::from_value(if own[0].is_array() { own.clone() } else { self.0["rows"].clone() }).unwrap()
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        one => vec![one.as_f64().unwrap()],
    }
}

/// What is wrong with each case of a kind, with the kernels of CPUs, and in libtorch's operations, as GPUs compute.
fn nothing_wrong(kind: &str, wrong: impl Fn(&str, &Value, &Goldens) -> Vec<String>) {
    let goldens = Goldens::read();
    for plain in [false, true] {
        motrain_kernels::leave_out(plain);
        let all: Vec<String> = goldens.cases(kind).flat_map(|(name, case)| wrong(name, case, &goldens)).collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
    }
    motrain_kernels::leave_out(false);
}

/// Logits or scores at all positions of a row.
fn logits(net: &Net, row: &[u32]) -> Tensor {
    logits_at(net, &[], row)
}

/// The same with a gain of each block of changes.
fn logits_at(net: &Net, gains: &[f64], row: &[u32]) -> Tensor {
    let seen = net.with_room(row);
    let ids = Tensor::from_slice(&seen.iter().map(|&id| i64::from(id)).collect::<Vec<_>>()).unsqueeze(0);
    let positions = Tensor::arange(seen.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let gains = RowGains::of_rows(&[gains], Device::Cpu).unwrap();
    let hidden = no_grad(|| net.hidden_at(&ids, &positions, &Mask::Causal, None, &gains)).unwrap();
    let all = no_grad(|| net.head_at(&hidden, &gains)).unwrap().squeeze_dim(0);
    all.narrow(0, (seen.len() - row.len()) as i64, row.len() as i64)
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// What differs of a language model's case.
fn differences(name: &str, model: &Model, case: &Value, goldens: &Goldens) -> Vec<String> {
    differences_of(name, &no_grad(|| model.net(Kind::Float)).unwrap(), &[], case, goldens)
}

/// The same of a network with a gain of each block of changes.
fn differences_of(name: &str, net: &Net, gains: &[f64], case: &Value, goldens: &Goldens) -> Vec<String> {
    let mut wrong = Vec::new();
    for (row, expected) in goldens.rows(case).iter().zip(case["rows"].as_array().unwrap()) {
        if row.len() as i64 > net.context() {
            continue;
        }
        let all = logits_at(net, gains, row);
        let length = row.len() as i64;
        let gap = worst(&to_vec(&all.narrow(0, length - 2, 2).reshape([-1])).unwrap(), &numbers(&expected["logits"]));
        if gap > TOLERANCE {
            wrong.push(format!("{name}: logits of {length} tokens differ by {gap}"));
        }
        let greedy = greedy(net, gains, row, 8.min(net.context() as usize - row.len()));
        let wanted: Vec<u32> = serde_json::from_value(expected["greedy"].clone()).unwrap();
        if greedy != wanted[..greedy.len()] {
            wrong.push(format!("{name}: greedy tokens {greedy:?} instead of {wanted:?}"));
        }
    }
    let (prompt, completions): (Vec<u32>, Vec<Vec<u32>>) = (
        serde_json::from_value(goldens.0["prompt"].clone()).unwrap(),
        serde_json::from_value(goldens.0["completions"].clone()).unwrap(),
    );
    // A shorter neighbour, so that there is padding.
    let prompts = [&prompt[..], &prompt[..4]].map(|prompt| net.with_room(prompt));
    let groups = [
        Group { prompt: &prompts[0], completions: completions.iter().map(Vec::as_slice).collect() },
        Group { prompt: &prompts[1], completions: vec![&completions[0][..2]] },
    ];
    let packed = pack(&groups, 0, Device::Cpu).unwrap().gained(&[gains; 2]).unwrap();
    let sums = no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(net, 1.0).unwrap()).unwrap())).unwrap();
    // Beyond the context, transformers rotates otherwise (or not at all) where motrain draws no token.
    let fits = |c: &&Vec<u32>| (prompt.len() + c.len()) as i64 <= net.context();
    let within = completions.iter().take_while(fits).count();
    let gap = worst(&sums[..within], &numbers(&case["log_probs"])[..within]);
    if gap > 10.0 * TOLERANCE {
        wrong.push(format!("{name}: packed log-probs differ by {gap}: {sums:?}"));
    }
    wrong
}

/// With a key-value cache, beside a longer row.
fn greedy(net: &Net, gains: &[f64], row: &[u32], count: usize) -> Vec<u32> {
    let net = Gained { net, gains: vec![gains.to_vec()] };
    let longer: Vec<u32> = row.iter().chain(row).copied().take((row.len() + 3).min(2 * row.len())).collect();
    let both = [Query { tokens: row, index: 0 }, Query { tokens: &longer, index: 1 }];
    no_grad(|| {
        let (mut logits, mut rows) = net.prefill(&both, &[0, 1], count).unwrap();
        let mut out = Vec::new();
        for _ in 0..count {
            let next = logits.argmax(-1, false);
            out.push(next.int64_value(&[0]) as u32);
            if out.len() < count {
                logits = rows.step(&next).unwrap();
            }
        }
        out
    })
}

#[test]
fn language_models_of_every_family_compute_what_transformers_does() {
    nothing_wrong("lm", |name, case, goldens| differences(name, &goldens.model(name), case, goldens));
    let goldens = Goldens::read();
    let families: std::collections::BTreeSet<&str> =
        goldens.cases("lm").map(|(name, _)| goldens.model(name).config.arch.model_type()).collect();
    assert_eq!(families.len(), FAMILIES.len(), "a family without a golden");
}

/// The label or the sum that an option of a reward asks for, of the numbers that a model gives.
fn read(config: &Config, options: Value, values: &[f64]) -> f64 {
    let options: ReadingOptions = serde_json::from_value(options).unwrap();
    Reading::of(&options, config.head, &config.labelled()).unwrap().score(values)
}

/// The last numbers of a row are those of its objectives, in order, and their gated sum.
#[test]
fn single_objectives_of_a_gated_model_are_read_by_name_and_by_number() {
    let goldens = Goldens::read();
    let case = &goldens.0["cases"]["armorm"];
    let net = no_grad(|| goldens.model("armorm").net(Kind::Float)).unwrap();
    let (rows, ratings) = (goldens.rows(case), case["ratings"].as_array().unwrap());
    for ((row, ratings), sum) in rows.iter().zip(ratings).zip(case["scores"].as_array().unwrap()) {
        let end = row.iter().rposition(|id| Some(i64::from(*id)) != net.config.pad).unwrap();
        let values = gated(&net, &row[..=end], &goldens);
        let ratings = numbers(ratings);
        assert_eq!(ratings.len(), 19);
        for (k, rating) in ratings.iter().enumerate() {
            for label in [json!(k), json!(format!("objective_{k}"))] {
                let found = read(&net.config, json!({ "label": label }), &values);
                assert!((found - rating).abs() < TOLERANCE, "objective {label}: {found} instead of {rating}");
            }
        }
        let both = read(&net.config, json!({ "weights": { "objective_2": 2.0, "18": -1.0 } }), &values);
        assert!((both - (2.0 * ratings[2] - ratings[18])).abs() < 3.0 * TOLERANCE);
        assert!((read(&net.config, json!({}), &values) - numbers(sum)[0]).abs() < TOLERANCE);
    }
}

/// Of a row whose second half is an answer. The gate is not told where an answer begins: it looks.
fn gated(net: &Net, row: &[u32], goldens: &Goldens) -> Vec<f64> {
    let (prompt, answer) = row.split_at(row.len() / 2);
    let opening: Vec<u32> = serde_json::from_value(goldens.0["pattern"].clone()).unwrap();
    let packed = pack(&[Group { prompt, completions: vec![answer] }], 0, Device::Cpu).unwrap();
    to_vec(&no_grad(|| packed.gated_scores(net, &opening)).unwrap().select(0, 0)).unwrap()
}

/// The same beside a shorter answer to the same prompt, where that is no part of what the gate reads.
fn scores(net: &Net, row: &[u32], goldens: &Goldens) -> Vec<f64> {
    let (prompt, answer) = row.split_at(row.len() / 2);
    let packed = pack(&[Group { prompt, completions: vec![&answer[..1], answer] }], 0, Device::Cpu).unwrap();
    let Head::Gated(_) = net.config.head else {
        return to_vec(&no_grad(|| packed.scores(net)).unwrap().select(0, 1)).unwrap();
    };
    gated(net, row, goldens)[net.config.labels.len()..].to_vec()
}

#[test]
fn classifiers_of_every_family_score_as_transformers_does() {
    nothing_wrong("score", |name, case, goldens| {
        let net = no_grad(|| goldens.model(name).net(Kind::Float)).unwrap();
        let rows = goldens.rows(case);
        let off = |(row, expected): (&Vec<u32>, &Value)| {
            // The last token that is no padding.
            let end = row.iter().rposition(|id| Some(i64::from(*id)) != net.config.pad).unwrap();
            let gap = worst(&scores(&net, &row[..=end], goldens), &numbers(expected));
            (gap > TOLERANCE).then(|| format!("{name}: scores of {} tokens differ by {gap}", row.len()))
        };
        rows.iter().zip(case["scores"].as_array().unwrap()).filter_map(off).collect()
    });
}

/// A PEFT folder of a case, and the model that it changes.
fn adapter(goldens: &Goldens, name: &str, case: &Value) -> (Adapter, Model) {
    let folder = root().join("fixtures/families").join(name);
    (Adapter::load(&folder, Device::Cpu).unwrap(), goldens.model(case["base"].as_str().unwrap()))
}

#[test]
fn adapters_change_every_family_as_peft_does() {
    nothing_wrong("adapter", |name, case, goldens| {
        let (adapter, base) = adapter(goldens, name, case);
        differences(name, &adapter.applied_to(&base).unwrap(), case, goldens)
    });
}

/// Soft tokens take positions as peft's prompt tuning gives them, also where positions are learned embeddings.
#[test]
fn soft_tokens_stand_before_a_prompt_as_peft_puts_them() {
    nothing_wrong("soft", |name, case, goldens| {
        let (adapter, base) = adapter(goldens, name, case);
        let net = no_grad(|| base.net_with(&[adapter], Kind::Float)).unwrap();
        differences_of(name, &net, &[1.0], case, goldens)
    });
}

/// What is saved is what was read: the same tensors under the same names, and the same configuration. With MOTRAIN_FAMILIES=FOLDER the saved
/// models stay there, for `families.py --check FOLDER/*`.
#[test]
fn every_family_is_written_as_it_was_read() {
    let goldens = Goldens::read();
    for kind in ["lm", "score"] {
        for (name, _) in goldens.cases(kind) {
            let model = goldens.model(name);
            let folder = tempfile::tempdir().unwrap();
            model.save_weights(folder.path()).unwrap();
            if let Some(kept) = std::env::var_os("MOTRAIN_FAMILIES") {
                model.save_weights(&Path::new(&kept).join(name)).unwrap();
            }
            let again = Model::load(folder.path(), Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(again.config, model.config, "{name}");
            assert!(again.params.iter().zip(&model.params).all(|(a, b)| a == b), "{name}");
            let said = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
            assert_eq!(Config::parse(&said).unwrap().0, model.config, "{name}");
        }
    }
}

/// What lies as products are fastest gives what it gives as it is.
#[test]
fn networks_in_bf16_compute_the_same_laid_out() {
    let goldens = Goldens::read();
    for (name, case) in goldens.cases("lm") {
        let (model, row) = (goldens.model(name), &goldens.rows(case)[0]);
        let kind = Kind::BFloat16;
        let laid_out = logits(&no_grad(|| model.net(kind)).unwrap(), row);
        let plain = logits(&no_grad(|| model.training_net(kind, 0, false)).unwrap(), row);
        let gap = worst(&to_vec(&laid_out.reshape([-1])).unwrap(), &to_vec(&plain.reshape([-1])).unwrap());
        assert!(gap < 0.1, "{name}: logits differ by {gap}");
    }
}
