//! What model folders and adapters say is read as transformers and peft read it, or refused by its name (goldens from tests/goldens/weights.py).

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use motrain_engine::Result;
use motrain_engine::model::{Adapter, Head, Mask, Mix, Model};
use motrain_engine::train::logprob::to_vec;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

/// Largest absolute difference of logits, which lie between −5 and 5.
const TOLERANCE: f64 = 1e-4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn fixtures() -> PathBuf {
    root().join("fixtures/weights")
}

/// The logits at the last token; a reward model's score there.
fn answer(model: &Model, ids: &Tensor) -> Vec<f64> {
    no_grad(|| {
        let net = model.net(Kind::Float)?;
        let positions = Tensor::arange(ids.size()[1], (Kind::Int64, Device::Cpu)).unsqueeze(0);
        let hidden = net.hidden(ids, &positions, &Mask::Causal, None)?;
        to_vec(&net.head(&hidden.select(1, -1))?.view([-1]))
    })
    .unwrap()
}

/// Loads a folder; one without weights of its own gets those of the base.
fn load(folder: &Path) -> Result<Model> {
    let own =
        std::fs::read_dir(folder).unwrap().flatten().any(|e| e.path().extension().is_some_and(|x| x == "safetensors"));
    if own {
        return Model::load(folder, Device::Cpu);
    }
    let whole = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), whole.path().join("config.json")).unwrap();
    std::fs::copy(fixtures().join("base/model.safetensors"), whole.path().join("model.safetensors")).unwrap();
    Model::load(whole.path(), Device::Cpu)
}

/// The base with an adapter, mixed in by differences, and by factors where it has nothing else.
fn mixed(folder: &Path) -> Result<Model> {
    let base = || Model::load(&fixtures().join("base"), Device::Cpu);
    let adapter = Adapter::load(folder, Device::Cpu)?;
    if adapter.same_shape(&adapter) {
        let by_factors = Mix::of_factors(base()?, vec![Adapter::load(folder, Device::Cpu)?])?.at(&[1.0])?;
        let by_difference = Mix::of_adapters(base()?, vec![adapter], &["one".into()])?.at(&[1.0])?;
        assert!(
            by_factors.params.iter().zip(&by_difference.params).all(|(a, b)| a.1.allclose(&b.1, 1e-5, 1e-6, false))
        );
        return Ok(by_difference);
    }
    Mix::of_adapters(base()?, vec![adapter], &["one".into()])?.at(&[1.0])
}

#[test]
fn folders_and_adapters_are_read_as_transformers_and_peft_read_them() {
    let goldens: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("goldens/weights.json")).unwrap()).unwrap();
    let ids: Vec<i64> = serde_json::from_value(goldens["ids"].clone()).unwrap();
    let ids = Tensor::from_slice(&ids).unsqueeze(0);
    let mut wrong = Vec::new();
    for case in goldens["cases"].as_array().unwrap() {
        let (name, result) = match (case["model"].as_str(), case["adapter"].as_str()) {
            (Some(name), _) => (name, load(&fixtures().join("models").join(name))),
            (_, name) => (name.unwrap(), mixed(&fixtures().join("adapters").join(name.unwrap()))),
        };
        match (result, case["refused"].as_str()) {
            (Err(e), Some(word)) if e.to_string().contains(word) => {}
            (Err(e), word) => wrong.push(format!("{name}: {e} ({word:?})")),
            (Ok(_), Some(word)) => wrong.push(format!("{name}: is not refused for {word}")),
            (Ok(model), None) => {
                let expected: Vec<f64> = serde_json::from_value(case["answer"].clone()).unwrap();
                let found = answer(&model, &ids);
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                if found.len() != expected.len() || worst > TOLERANCE {
                    wrong.push(format!("{name}: {found:?} instead of {expected:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An adapter that changes a matrix which is embedding and head at once has no one meaning.
#[test]
fn adapters_of_a_tied_matrix_are_refused() {
    for name in ["head", "embedding", "whole_head", "whole_embedding"] {
        let mut base = load(&fixtures().join("models/tied")).unwrap();
        assert_eq!(base.config.head, Head::TiedLm);
        base.params.iter_mut().for_each(|(_, p)| *p = p.detach());
        let adapter = Adapter::load(&fixtures().join("adapters").join(name), Device::Cpu).unwrap();
        let message = adapter.applied_to(&base).err().unwrap().to_string();
        assert!(message.contains("the base has one matrix as embedding and as head"), "{name}: {message}");
    }
}
