//! Soups: one policy from specialists by mixing their parameters (Rewarded Soups; ODPO Soups).

use crate::model::{Adapter, Mix};
use crate::session::{Stage, save_model};
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::plan::{Adapters, ModelRef, Soup, Specialists};

/// Raised when this stage's results change.
pub const REVISION: u32 = 1;

pub fn run(stage: Stage, spec: &Soup) -> Result<()> {
    let (mix, text) = load(stage, &spec.of)?;
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    save_model(&stage.folder(), &mix.at(&spec.weights)?, &text)
}

/// Loads specialists: all of them models, or all of them PEFT adapter folders.
pub fn load(stage: Stage, spec: &Specialists) -> Result<(Mix, Text)> {
    let (base, text) = stage.load(&spec.base)?;
    let folders: Vec<_> = spec.parts.iter().map(|p| stage.session.model_folder(p)).collect();
    let names: Vec<String> = spec.parts.iter().map(ModelRef::to_string).collect();
    let adapters = folders.iter().filter(|f| Adapter::is_one(f)).count();
    if adapters == 0 {
        if spec.adapters == Adapters::Factor {
            return Err(Error::invalid(
                "soup: adapters = \"factor\" needs PEFT adapter folders, and the parts are models",
            ));
        }
        let parts = spec.parts.iter().map(|p| Ok(stage.load(p)?.0)).collect::<Result<_>>()?;
        return Ok((Mix::of_models(base, parts, &names)?, text));
    }
    if adapters < folders.len() {
        return Err(Error::invalid("soup: some parts are PEFT adapters and some are models; give one kind"));
    }
    let parts = folders.iter().map(|f| Adapter::load(f, stage.session.device)).collect::<Result<Vec<_>>>()?;
    let mix = match spec.adapters {
        Adapters::Delta => Mix::of_adapters(base, parts, &names)?,
        Adapters::Factor => Mix::of_factors(base, parts)?,
    };
    Ok((mix, text))
}
