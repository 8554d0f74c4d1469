//! steering.json, saved beside a policy: which steering it is, of what, and how weights enter prompts. Whoever has the folder has all that
//! answers at any weights.

use super::gained::{self, Gained};
use super::prompted::Prompted;
use super::{AnySteer, By, Loader, Steer, Steerable};
use crate::model::{Adapter, write_json};
use crate::names;
use crate::plan::{Component, GenerationConfig, Lora, ModelRef, StageId};
use crate::session::{Cx, Session};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, generation};
use motrain_core::conditioner::Conditioner;
use motrain_core::registry::Registry;
use motrain_core::{Prompt, Weights, durable};
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

/// Writes how a stage's finished policy is steered beside it: `lora` may have gains.
pub fn save(stage: Cx, objectives: Vec<String>, conditioner: &Component, lora: Option<&Lora>) -> Result<()> {
    let by: Box<dyn AnySteer> = match lora.is_some_and(Lora::is_steered) {
        true => Box::new(Gained::below(objectives.len())),
        false => Box::new(Prompted(ModelRef::Path(".".into()))),
    };
    write(stage.session, &stage.folder().join(names::MODEL), by.as_ref(), objectives, conditioner)
}

/// What other stages made is written out, so that the folder stands alone.
fn write(
    session: &Session,
    folder: &Path,
    by: &dyn AnySteer,
    objectives: Vec<String>,
    conditioner: &Component,
) -> Result<()> {
    let options = session.resolve(&conditioner.options)?;
    let conditioner = Component { name: conditioner.name.clone(), options };
    write_json(&folder.join(names::STEERING), &json!(Said::new(by, objectives, conditioner)))
}

/// A policy whose quality a stage tells, and how it was steered and sampled for that.
pub struct Judged<'a> {
    pub by: &'a By,
    /// The stage whose objectives it follows.
    pub rewards: &'a StageId,
    pub conditioner: &'a Component,
    pub sampling: &'a GenerationConfig,
}

/// Copies a model's folder; what its adapters are of comes to `above`, so that they stand alone there.
pub fn bring(model: &Path, to: &Path, above: &Path) -> Result<()> {
    durable::copy_folder(model, to).map_err(|e| Error::io(to, e))?;
    let place = above.join(names::BASE);
    let parts = model.join(gained::place(0));
    match [model, &parts].into_iter().find(|folder| Adapter::is_one(folder)) {
        Some(adapter) if !place.exists() => {
            durable::copy_folder(&Adapter::base_in(adapter)?, &place).map_err(|e| Error::io(&place, e))
        }
        _ => Ok(()),
    }
}

/// Brings a judged policy into an empty folder that stands alone: its models, how it is steered, and how it was sampled. A prompted one's
/// own steering.json, which says what it was trained on, stays.
pub fn publish(session: &Session, judged: &Judged, objectives: Vec<String>, folder: &Path) -> Result<()> {
    let mut by = judged.by.0.boxed();
    for (place, model) in by.models() {
        bring(&session.model_folder(model), &folder.join(&place), folder)?;
        *model = ModelRef::Path(place);
    }
    if by.name() != Prompted::NAME {
        write(session, folder, by.as_ref(), objectives, judged.conditioner)?;
    }
    generation::save(folder, judged.sampling)
}
