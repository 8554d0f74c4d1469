//! Checkpoints of a training stage: written aside, then renamed, so that one is either whole or not there. Each is a Hugging Face
//! folder with the optimiser's state and the position beside it. Randomness needs no state: every draw is seeded by its step.

use crate::model::{Llama, write_json};
use crate::optim::Optim;
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::advantage::ValueHead;
use motrain_core::sampler::FrontPoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Device;

/// Where a stage stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done.
    pub step: usize,
    /// KL (nats per completion) of the last steps, for the KL stop.
    pub recent_kl: Vec<f64>,
    /// Whether the KL stop has ended the stage.
    pub stopped: bool,
    /// The front last told to the weight sampler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<FrontPoint>,
    /// The value head of REINFORCE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueHead>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    state: State,
    /// Bytes of each file, to tell a truncated checkpoint.
    files: BTreeMap<String, u64>,
}

const KEEP: usize = 2;

/// Saves `checkpoint-<step>` in the stage's folder and removes all but the newest two.
pub fn save(stage: &Path, model: &Llama, text: &Text, optim: &dyn Optim, state: &State) -> Result<()> {
    let folder = stage.join(format!("checkpoint-{}", state.step));
    if folder.exists() {
        return Ok(());
    }
    let partial = stage.join(format!("checkpoint-{}.partial", state.step));
    let _ = std::fs::remove_dir_all(&partial);
    let written = write(&partial, model, text, optim, state);
    if let Err(error) = written {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(Error::invalid(format!(
            "the checkpoint of step {} could not be saved ({error}); the one before it is kept; make room and resume",
            state.step
        )));
    }
    std::fs::rename(&partial, &folder).map_err(|e| Error::io(&folder, e))?;
    let mut all = list(stage);
    while all.len() > KEEP {
        let (_, oldest) = all.remove(0);
        std::fs::remove_dir_all(&oldest).map_err(|e| Error::io(&oldest, e))?;
    }
    Ok(())
}

fn write(folder: &Path, model: &Llama, text: &Text, optim: &dyn Optim, state: &State) -> Result<()> {
    model.save(folder, text)?;
    crate::model::write_tensors(&folder.join("optimizer.safetensors"), &optim.state())?;
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let length = entry.metadata().map_err(|e| Error::io(folder, e))?.len();
        files.insert(entry.file_name().to_string_lossy().into_owned(), length);
    }
    let saved =
        serde_json::to_value(Saved { state: state.clone(), files }).map_err(|e| Error::invalid(e.to_string()))?;
    write_json(&folder.join("state.json"), &saved)
}

/// Checkpoints of a stage, oldest first.
fn list(stage: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(stage).into_iter().flatten().flatten();
    let step = |p: &Path| p.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok();
    let mut all: Vec<(usize, PathBuf)> = entries.filter_map(|e| Some((step(&e.path())?, e.path()))).collect();
    all.sort();
    all
}

/// Model, optimiser state and position.
pub type Loaded = (Llama, BTreeMap<String, tch::Tensor>, State);

/// The newest checkpoint of a stage: model, optimiser state and position. `None` where there is none.
pub fn load(stage: &Path, device: Device) -> Result<Option<Loaded>> {
    let Some((_, folder)) = list(stage).pop() else { return Ok(None) };
    let damaged = |what: String| {
        Error::file(&folder, format!("this checkpoint {what}; delete the folder to resume from the one before it"))
    };
    let path = folder.join("state.json");
    let text = std::fs::read_to_string(&path).map_err(|e| damaged(format!("has no readable state.json ({e})")))?;
    let saved: Saved = serde_json::from_str(&text).map_err(|e| damaged(format!("has a damaged state.json ({e})")))?;
    for (name, bytes) in &saved.files {
        let found = std::fs::metadata(folder.join(name)).map(|m| m.len()).unwrap_or(0);
        if found != *bytes {
            return Err(damaged(format!("is truncated: {name} has {found} bytes of {bytes}")));
        }
    }
    let model = Llama::load(&folder, device)?;
    let mut optimizer = BTreeMap::new();
    crate::model::read_file(&folder.join("optimizer.safetensors"), &mut optimizer)?;
    Ok(Some((model, optimizer, saved.state)))
}
