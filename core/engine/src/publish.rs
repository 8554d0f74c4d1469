//! Policies in folders that stand alone: beside a stage's model how it is steered, and the run's `policy/`.

use crate::model::Adapter;
use crate::session::{Cx, Session};
use crate::steer::gained::Gained;
use crate::steer::prompted::Prompted;
use crate::steer::{self, AnySteer, By, Steer};
use crate::{Error, Result, generation, names};
use motrain_core::durable;
use motrain_core::plan::{Component, GenerationConfig, Lora, ModelRef, StageId};
use std::path::Path;

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
    steer::write(folder, by, objectives, Component { name: conditioner.name.clone(), options })
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
    let parts = model.join(names::part(0));
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
