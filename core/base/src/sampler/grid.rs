//! Every weight of a grid in turn.

use super::WeightSampler;
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::rng::Rng;
use crate::weights::{grid_of, steps_of};
use crate::{Error, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn WeightSampler> = Builtin {
    name: "grid",
    summary: "every weight of a regular grid in turn",
    schema: schema::<Grid>(),
    build: |owner, options| Ok(Box::new(parse::<Grid>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Grid {
    /// The distance between neighbours.
    #[schemars(range(min = 1e-5, max = 1))]
    step: f64,
}

impl Default for Grid {
    fn default() -> Self {
        Self { step: 0.1 }
    }
}

impl Options for Grid {
    fn check(&self) -> Checked {
        steps_of(self.step).map(|_| ()).map_err(|what| ("step", what))
    }
}

impl Grid {
    pub(super) fn points(&self, objectives: usize) -> Result<Vec<Weights>> {
        grid_of(objectives, self.step).map_err(|what| Error::BadOption {
            owner: "sampler over a grid".into(),
            option: "step".into(),
            what,
        })
    }
}

impl WeightSampler for Grid {
    fn sample(&self, objectives: usize, index: u64, _rng: &mut Rng) -> Result<Weights> {
        let points = self.points(objectives)?;
        Ok(points[(index % points.len() as u64) as usize].clone())
    }
}
