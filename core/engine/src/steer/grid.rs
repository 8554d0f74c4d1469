//! Policies trained for one weight vector each (MORLHF); the nearest answers.

use super::{Loader, Route, Steer, Steerable};
use crate::decode::Decoder;
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::options::Checked;
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::{Device, Kind, no_grad};

/// A policy trained for one weight vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyAt {
    pub weights: Weights,
    pub policy: ModelRef,
}

/// Policies trained for one weight vector each (MORLHF); they are the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Grid(#[schemars(length(min = 1, max = 10_000))] pub Vec<PolicyAt>);

impl Steer for Grid {
    const NAME: &'static str = "grid";
    const OPTION: &'static str = "policies";

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        self.0.iter_mut().enumerate().map(|(i, at)| (format!("policies/{i}"), &mut at.policy)).collect()
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        let first = self.0.first().ok_or_else(|| Error::invalid("policies: there are none"))?;
        let (policy, tokenizer) = from.load_still(&first.policy)?;
        let grid = Policies {
            weights: self.0.iter().map(|at| at.weights.clone()).collect(),
            folders: self.0.iter().map(|at| (from.folder)(&at.policy)).collect(),
            context: policy.config.shape.context,
            device: from.device,
            dtype: from.dtype,
        };
        Ok((Box::new(grid), tokenizer))
    }

    fn own_weights(&self) -> Option<Vec<Weights>> {
        Some(self.0.iter().map(|at| at.weights.clone()).collect())
    }

    fn check_objectives(&self, objectives: usize) -> Checked {
        match self.0.iter().map(|at| &at.weights).find(|w| w.len() != objectives) {
            Some(w) => {
                Err(("policies", format!("{:?} has {} weights for {objectives} objectives", w.values(), w.len())))
            }
            None => Ok(()),
        }
    }

    fn held(&self) -> usize {
        self.0.len()
    }
}

/// The grid's policies, loaded when asked for: only one answers at a time.
struct Policies {
    weights: Vec<Weights>,
    folders: Vec<PathBuf>,
    context: i64,
    device: Device,
    dtype: Kind,
}

impl Steerable for Policies {
    fn route(&self, weights: &Weights) -> Result<Route> {
        let distance = |w: &Weights| w.values().iter().zip(weights.values()).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let order = |&a: &usize, &b: &usize| distance(&self.weights[a]).total_cmp(&distance(&self.weights[b]));
        let nearest = (0..self.weights.len()).min_by(order);
        let nearest = nearest.ok_or_else(|| Error::invalid("policies: there are none"))?;
        if !self.weights[nearest].is_near(weights) {
            let (wanted, near) = (weights.values(), self.weights[nearest].values());
            tracing::info!("no policy was trained for the weights {wanted:?}; the one for {near:?} answers");
        }
        Ok(Route::Policy(nearest))
    }

    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>> {
        let [Route::Policy(which), ..] = routes else {
            return Err(Error::invalid("a grid of policies answers at weights only; give one per objective"));
        };
        let folder = &self.folders[*which];
        Ok(Box::new(no_grad(|| Model::open(folder, self.device, self.dtype)?.net(self.dtype))?))
    }

    fn context(&self) -> i64 {
        self.context
    }
}
