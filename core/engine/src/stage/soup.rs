//! Soups: one policy from specialists by mixing their parameters (Rewarded Soups; ODPO Soups).

use super::{Makes, Ref, Work};
use crate::memory::{F32, Footprint, Known, Part, Parts, Shaped};
use crate::session::Cx;
use crate::steer::Steer;
use crate::steer::soup::Specialists;
use crate::{Error, Result};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl Work for Soup {
    const KIND: &'static str = "soup";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Policy];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        self.of.models().into_iter().map(|(_, model)| Ref::Model(model)).collect()
    }

    fn common_base(&self) -> Option<&ModelRef> {
        self.of.common_base()
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let base = known.model(&self.of.base)?;
        let mut out = Footprint::default();
        // The base and its parts, and what is made of them.
        let all = F32 * base.numbers * (self.of.parts.len() as f64 + 2.0);
        out.moment("mixing", Parts::default().with(Part::Masters, all));
        out.makes = Some(Shaped::made(base.config.clone(), None, Some(&base)));
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

fn run(stage: Cx, options: &Soup) -> Result<()> {
    let (mix, text) = options.of.mix(&stage.session.loader())?;
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    stage.save_model(&mix.at(&options.weights)?, &text, None)
}
