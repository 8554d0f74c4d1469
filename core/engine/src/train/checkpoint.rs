//! Checkpoints of a training stage: written aside, then renamed, so that one is either whole or not there. Each is a Hugging Face
//! folder with the optimiser's state and the position beside it. Randomness needs no state: every draw is seeded by its step.

use crate::files::write_json;
use crate::model::Model;
use crate::names;
use crate::optim::Optim;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::durable;
use motrain_core::metrics::stats::Moments;
use motrain_core::rng::sha256_hex;
use motrain_core::sampler::FrontPoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Kind;

/// Where a stage stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done.
    pub step: usize,
    /// KL (nats per completion) of the last steps, for the KL stop.
    pub recent_kl: Vec<f64>,
    /// Disagreement about objectives in the last steps, where `drift.stop` asks for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recent_drift: BTreeMap<String, Vec<f64>>,
    /// Whether the KL, or disagreement, has ended the stage.
    pub stopped: bool,
    /// The front last told to the weight sampler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<FrontPoint>,
    /// Of each objective's scores so far, where they are normalised by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moments>,
    /// What a component of the stage has learnt, in its own words.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub kept: Value,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    state: State,
    /// Bytes of each file, to tell a truncated checkpoint.
    files: BTreeMap<String, u64>,
    /// SHA-256 of the small ones: reading weights twice would take too long.
    #[serde(default)]
    sha256: BTreeMap<String, String>,
    /// SHA-256 of the position: only those whose it is could tell what is wrong with the rest of it.
    #[serde(default)]
    position: Option<String>,
}

impl State {
    fn sha256(&self) -> std::result::Result<String, serde_json::Error> {
        Ok(sha256_hex(&serde_json::to_vec(self)?))
    }
}

const KEEP: usize = 2;
/// Files below this size are hashed.
const SMALL: u64 = 1 << 24;

/// Saves `checkpoint-<step>` in the stage's folder and removes all but the newest two.
pub fn save(stage: &Path, model: &Model, tokenizer: &Tokenizer, optim: &dyn Optim, state: &State) -> Result<()> {
    let folder = stage.join(format!("{}{}", names::CHECKPOINT, state.step));
    if folder.exists() {
        return Ok(());
    }
    let partial = durable::beside(&folder, "partial");
    let _ = std::fs::remove_dir_all(&partial);
    let written = write(&partial, model, tokenizer, optim, state)
        .and_then(|()| durable::publish(&partial, &folder).map_err(|e| Error::io(&folder, e)));
    if let Err(error) = written {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(Error::invalid(format!(
            "the checkpoint of step {} could not be saved ({error}); the one before it is kept; make room and resume",
            state.step
        )));
    }
    prune(stage)
}

/// Removes all but the newest checkpoints.
fn prune(stage: &Path) -> Result<()> {
    let mut all = list(stage);
    while all.len() > KEEP {
        let (_, oldest) = all.remove(0);
        std::fs::remove_dir_all(&oldest).map_err(|e| Error::io(&oldest, e))?;
    }
    Ok(())
}

fn write(folder: &Path, model: &Model, tokenizer: &Tokenizer, optim: &dyn Optim, state: &State) -> Result<()> {
    model.save_training(folder, tokenizer)?;
    crate::model::write_tensors(&folder.join(names::OPTIMIZER), &optim.state()?, Kind::Float)?;
    let (mut files, mut sha256) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = entry.metadata().map_err(|e| Error::io(folder, e))?.len();
        if bytes < SMALL {
            let content = std::fs::read(entry.path()).map_err(|e| Error::io(folder, e))?;
            sha256.insert(name.clone(), sha256_hex(&content));
        }
        files.insert(name, bytes);
    }
    let saved = |position: String| {
        serde_json::to_value(Saved { state: state.clone(), files, sha256, position: Some(position) })
    };
    let saved = state.sha256().and_then(saved).map_err(|e| Error::invalid(e.to_string()))?;
    write_json(&folder.join(names::STATE), &saved)
}

/// Checkpoints of a stage, oldest first.
fn list(stage: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(stage).into_iter().flatten().flatten();
    let step = |p: &Path| p.file_name()?.to_str()?.strip_prefix(names::CHECKPOINT)?.parse().ok();
    let mut all: Vec<(usize, PathBuf)> = entries.filter_map(|e| Some((step(&e.path())?, e.path()))).collect();
    all.sort();
    all
}

/// Optimiser state and position.
pub type Loaded = (BTreeMap<String, tch::Tensor>, State);

/// Puts what the newest whole checkpoint of a stage has of the model, or of its adapter, into `model`. Optimiser state and position; `None`
/// where there is none.
pub fn load(stage: &Path, model: &mut Model) -> Result<Option<Loaded>> {
    while let Some((_, folder)) = list(stage).pop() {
        let damage = match whole(&folder) {
            Ok(state) => {
                // A kill may have come while an old one was being removed.
                prune(stage)?;
                return read(&folder, model, state).map(Some);
            }
            Err(damage) => damage,
        };
        let aside = durable::beside(&folder, "damaged");
        let moved = durable::remove(&aside).and_then(|()| std::fs::rename(&folder, &aside));
        moved.map_err(|e| Error::io(&aside, e))?;
        let instead = match list(stage).last() {
            Some((before, _)) => format!("going on from that of step {before}"),
            None => "no other is left, so the stage begins anew".into(),
        };
        tracing::warn!("{}: this checkpoint {damage}; set aside; {instead}", folder.display());
    }
    Ok(None)
}

/// The position of a checkpoint whose files are as they were saved, or what is wrong with them.
fn whole(folder: &Path) -> std::result::Result<State, String> {
    let text =
        std::fs::read_to_string(folder.join(names::STATE)).map_err(|e| format!("has no readable state.json ({e})"))?;
    let saved: Saved = serde_json::from_str(&text).map_err(|e| format!("has a damaged state.json ({e})"))?;
    if saved.position.is_some() && saved.position != saved.state.sha256().ok() {
        return Err("has a damaged state.json (the position in it is not what was saved)".into());
    }
    for (name, bytes) in &saved.files {
        let found = std::fs::metadata(folder.join(name)).map(|m| m.len()).unwrap_or(0);
        if found != *bytes {
            return Err(format!("is truncated: {name} has {found} bytes of {bytes}"));
        }
    }
    for (name, sum) in &saved.sha256 {
        if std::fs::read(folder.join(name)).map_or(true, |found| sha256_hex(&found) != *sum) {
            return Err(format!("is damaged: {name} is not what was saved"));
        }
    }
    Ok(saved.state)
}

fn read(folder: &Path, model: &mut Model, state: State) -> Result<Loaded> {
    match &mut model.lora {
        Some(lora) => lora.restore(folder)?,
        // The configuration stays that of the source: the checkpoint's says f32.
        None => model.params = Model::load(folder, model.device())?.params,
    }
    let mut optimizer = BTreeMap::new();
    crate::model::read_file(&folder.join(names::OPTIMIZER), &mut optimizer)?;
    Ok((optimizer, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng};
    use serde_json::json;
    use tch::Device;

    #[test]
    fn the_position_survives_json_bit_by_bit() {
        let mut rng = motrain_core::rng::Rng::seed_from_u64(0);
        let recent_kl: Vec<f64> = (0..2000).map(|_| f64::from_bits(rng.random())).filter(|x| x.is_finite()).collect();
        let state = State { step: 3, recent_kl, ..State::default() };
        let saved = Saved { state: state.clone(), files: BTreeMap::new(), sha256: BTreeMap::new(), position: None };
        let read: Saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
        let bits = |s: &State| s.recent_kl.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.state), bits(&state));
    }

    fn model(step: usize) -> (Model, Tokenizer, Box<dyn Optim>, State) {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/hh/policy_small"));
        let model = Model::load(folder, Device::Cpu).unwrap();
        let tokenizer = Tokenizer::load(folder, &model.config).unwrap();
        let optim = crate::optim::build(&motrain_core::plan::Optimizer::default(), &model.params).unwrap();
        (model, tokenizer, optim, State { step, kept: json!({ "bias": 0.25 }), ..State::default() })
    }

    #[test]
    fn a_damaged_checkpoint_leaves_the_one_before_it() {
        let stage = tempfile::tempdir().unwrap();
        type Spoil = fn(&Path);
        let damage: [(&str, Spoil); 4] = [
            ("optimizer.safetensors", |p| std::fs::File::options().write(true).open(p).unwrap().set_len(10).unwrap()),
            ("config.json", |p| std::fs::write(p, std::fs::read_to_string(p).unwrap().replace('1', "2")).unwrap()),
            ("state.json", |p| std::fs::write(p, "").unwrap()),
            ("state.json", |p| std::fs::write(p, std::fs::read_to_string(p).unwrap().replace("0.25", "0.35")).unwrap()),
        ];
        let at = || load(stage.path(), &mut model(0).0).unwrap().map(|(_, state)| state.step);
        for (name, spoil) in damage {
            for step in [1, 2] {
                let (model, text, optim, state) = model(step);
                save(stage.path(), &model, &text, optim.as_ref(), &state).unwrap();
            }
            assert_eq!(at(), Some(2), "{name}");
            spoil(&stage.path().join("checkpoint-2").join(name));
            assert_eq!(at(), Some(1), "{name}");
            assert!(stage.path().join("checkpoint-2.damaged").is_dir(), "{name}");
        }
        std::fs::remove_file(stage.path().join("checkpoint-1/state.json")).unwrap();
        assert_eq!(at(), None);
    }

    #[test]
    fn what_a_kill_left_of_an_old_checkpoint_goes_at_the_next_start() {
        let stage = tempfile::tempdir().unwrap();
        for step in [3, 4] {
            let (model, text, optim, state) = model(step);
            save(stage.path(), &model, &text, optim.as_ref(), &state).unwrap();
        }
        let half_removed = stage.path().join("checkpoint-2");
        std::fs::create_dir(&half_removed).unwrap();
        std::fs::write(half_removed.join("config.json"), "{}").unwrap();
        assert_eq!(load(stage.path(), &mut model(0).0).unwrap().map(|(_, state)| state.step), Some(4));
        assert!(!half_removed.exists());
    }
}
