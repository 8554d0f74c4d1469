//! steering.json, saved beside a policy: which steering it is, of what, and how weights enter prompts. Whoever has the folder has all that
//! answers at any weights.

use super::prompted::Prompted;
use super::{AnySteer, By, Loader, Steer, Steerable};
use crate::files::write_json;
use crate::names;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::conditioner::Conditioner;
use motrain_core::plan::{Component, ModelRef};
use motrain_core::registry::Registry;
use motrain_core::{Prompt, Weights};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// Raised when what an earlier motrain wrote would be read wrongly by this one, or the other way round.
const VERSION: u32 = 1;

/// How weights enter prompts.
pub struct Steering {
    pub objectives: Vec<String>,
    pub conditioner: Box<dyn Conditioner>,
}

impl Steering {
    /// x' at `weights`, one per objective.
    pub fn prompt(&self, weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        Ok(self.conditioner.render(&self.objectives, weights, prompt)?)
    }
}

/// steering.json. A motrain before versions wrote objectives and conditioner alone, of prompted policies.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    version: u32,
    /// The name of a steering.
    #[serde(default = "prompted")]
    by: String,
    objectives: Vec<String>,
    conditioner: Component,
    /// Its options; folders are below this one.
    #[serde(default = "itself")]
    of: Value,
}

fn prompted() -> String {
    Prompted::NAME.into()
}

fn itself() -> Value {
    json!(".")
}

impl Said {
    fn new(by: &dyn AnySteer, objectives: Vec<String>, conditioner: Component) -> Self {
        Self { version: VERSION, by: by.name().into(), objectives, conditioner, of: by.options() }
    }

    /// What a folder says, if it says anything.
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(names::STEERING);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            read => read.map_err(|e| Error::io(&path, e))?,
        };
        let wrong = |what: String| Error::file(&path, format!("does not say how the policy is steered: {what}"));
        let json: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if let Some(newer) = json["version"].as_u64().filter(|v| *v > u64::from(VERSION)) {
            let what = format!("has version {newer}, and this motrain reads {VERSION}; use the one that wrote it");
            return Err(Error::file(&path, what));
        }
        serde_json::from_value(json).map(Some).map_err(|e| wrong(e.to_string()))
    }

    /// The steering, of folders where they are.
    fn steering(&self, folder: &Path) -> Result<Box<dyn AnySteer>> {
        let path = folder.join(names::STEERING);
        let By(mut by) = By::read(&path, &self.by, self.of.clone())?;
        for (_, model) in by.models() {
            let ModelRef::Path(place) = model else {
                return Err(Error::file(&path, "names a stage, and stages are of runs; name a folder below this one"));
            };
            if !is_below(Path::new(place.as_str())) {
                return Err(Error::file(&path, format!("names {place:?}, which is not below its folder")));
            }
            *place = if place == "." { folder.to_owned() } else { folder.join(&*place) }.to_string_lossy().into_owned();
        }
        Ok(by)
    }
}

/// Whether a path stays where it begins.
fn is_below(path: &Path) -> bool {
    use std::path::Component::{CurDir, Normal};
    path.components().all(|part| matches!(part, Normal(_) | CurDir))
}

/// The steering of a folder that is no prompted policy.
pub fn steered_otherwise(folder: &Path) -> Result<Option<Box<dyn AnySteer>>> {
    let said = Said::read(folder)?.filter(|said| said.by != Prompted::NAME);
    said.map(|said| said.steering(folder)).transpose()
}

/// A policy's folder, opened: what answers, and how it says that it is steered.
pub struct Opened {
    pub policy: Box<dyn Steerable>,
    pub tokenizer: Tokenizer,
    folder: PathBuf,
    said: Option<Said>,
}

impl Opened {
    pub fn load(folder: &Path, device: Device, dtype: Kind) -> Result<Self> {
        let said = Said::read(folder)?;
        let by = match &said {
            Some(said) => said.steering(folder)?,
            None => Box::new(Prompted(ModelRef::Path(folder.to_string_lossy().into_owned()))),
        };
        let at = |model: &ModelRef| PathBuf::from(model.path().unwrap_or_default());
        let (policy, tokenizer) = by.load(&Loader { folder: Box::new(at), device, dtype })?;
        Ok(Self { policy, tokenizer, folder: folder.to_owned(), said })
    }

    /// How `weights` enter its prompts, with the components that `registry` has.
    pub fn steering(&self, registry: &Registry, weights: &Weights) -> Result<Steering> {
        let Some(said) = &self.said else {
            return Err(Error::file(&self.folder, "is not a steerable policy: it has no steering.json"));
        };
        let (given, wanted, names) = (weights.len(), said.objectives.len(), said.objectives.join(", "));
        if given != wanted {
            return Err(Error::invalid(format!("{given} weights for {wanted} objectives ({names})")));
        }
        let Component { name, options } = &said.conditioner;
        let conditioner = registry.conditioners.build(name, options);
        let conditioner = conditioner.map_err(|e| Error::file(&self.folder.join(names::STEERING), e.to_string()))?;
        Ok(Steering { objectives: said.objectives.clone(), conditioner })
    }
}

/// The objectives that a policy's folder says it follows, and how they enter its prompts, if it says anything.
pub fn said_by(folder: &Path) -> Result<Option<(Vec<String>, Component)>> {
    Ok(Said::read(folder)?.map(|said| (said.objectives, said.conditioner)))
}

/// Writes which steering a folder is, so that it stands alone.
pub fn write(folder: &Path, by: &dyn AnySteer, objectives: Vec<String>, conditioner: Component) -> Result<()> {
    write_json(&folder.join(names::STEERING), &json!(Said::new(by, objectives, conditioner)))
}
