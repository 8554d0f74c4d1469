//! Soups: one policy from specialists by mixing their parameters (Rewarded Soups; ODPO Soups).

use super::{Makes, Ref, Work};
use crate::model::{Adapter, Mix};
use crate::plan::ModelRef;
use crate::session::Cx;
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::options::{Checked, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policies that began at the same one, a specialist per objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Specialists {
    /// The policy that all of them began at.
    pub base: ModelRef,
    /// Models or PEFT adapter folders (LoRA) of `base`, in the order of the objectives.
    #[schemars(length(min = 1, max = 32))]
    pub parts: Vec<ModelRef>,
    #[serde(default)]
    pub adapters: Adapters,
}

/// How LoRA adapters are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Adapters {
    /// The weights that they add: Σ wₖ·BₖAₖ.
    #[default]
    Delta,
    /// Their factors, as Rewarded Soups' code does: (Σ wₖBₖ)(Σ wₖAₖ).
    Factor,
}

/// One policy from specialists: `θ₀ + Σ wₖ·(θₖ − θ₀)` (Rewarded Soups).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soup {
    pub of: Specialists,
    /// One per part; any numbers, so that sums other than 1 extrapolate.
    #[schemars(length(min = 1, max = 32), inner(range(min = -100, max = 100)))]
    pub weights: Vec<f64>,
}

impl Options for Soup {
    fn check(&self) -> Checked {
        let (given, parts) = (self.weights.len(), self.of.parts.len());
        if given != parts {
            return Err(("weights", format!("has {given} numbers for {parts} parts")));
        }
        Ok(())
    }
}

impl Specialists {
    pub fn refs(&mut self) -> Vec<Ref<'_>> {
        std::iter::once(&mut self.base).chain(&mut self.parts).map(Ref::Model).collect()
    }
}

impl Work for Soup {
    const KIND: &'static str = "soup";
    const REVISION: u32 = 1;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        self.of.refs()
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::Policy]
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

fn run(stage: Cx, spec: &Soup) -> Result<()> {
    let (mix, text) = load(stage, &spec.of)?;
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    stage.save_model(&mix.at(&spec.weights)?, &text)
}

/// Loads specialists: all of them models, or all of them PEFT adapter folders.
pub fn load(stage: Cx, spec: &Specialists) -> Result<(Mix, Text)> {
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
