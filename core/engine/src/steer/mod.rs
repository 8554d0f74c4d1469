//! Steerable policies: what follows objective weights given at inference. Weights reach a policy through its prompt (the conditioner), and
//! through what answers at them: one network, a mix made for them, the policy trained for them. The second is a steering, one a file.

mod by;
mod file;
pub mod grid;
pub mod prompted;
pub mod soup;

pub use by::{AnySteer, By, Steer, SteerKind};
pub use file::{Judged, Opened, Steering, publish, said_by, save};

use crate::Result;
use crate::decode::Decoder;
use crate::model::Model;
use crate::plan::ModelRef;
use crate::tokenizer::Tokenizer;
use motrain_core::Weights;
use std::path::PathBuf;
use tch::{Device, Kind};

/// Every way to steer.
pub const STEERINGS: &[SteerKind] =
    &[SteerKind::of::<prompted::Prompted>(), SteerKind::of::<soup::Specialists>(), SteerKind::of::<grid::Grid>()];

/// A policy that answers at any weights.
pub trait Steerable {
    /// What answers at `weights`: prompts whose routes are the same are answered together.
    fn route(&self, weights: &Weights) -> Result<Route>;

    /// What completions are drawn from on a route.
    fn decoder(&self, route: &Route) -> Result<Box<dyn Decoder + '_>>;

    /// Positions that a prompt and its completion have together.
    fn context(&self) -> i64;
}

/// A choice of what answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// The same at all weights; so no weights are needed.
    Same,
    /// A mix, with the share of each part.
    Shares(Vec<f64>),
    /// One of several policies.
    Policy(usize),
}

/// Where models come from, and where they go.
pub struct Loader<'a> {
    pub folder: Box<dyn Fn(&ModelRef) -> PathBuf + 'a>,
    pub device: Device,
    /// The type to compute in.
    pub dtype: Kind,
}

impl Loader<'_> {
    pub fn load(&self, model: &ModelRef) -> Result<(Model, Tokenizer)> {
        let folder = (self.folder)(model);
        let model = Model::load(&folder, self.device)?;
        let tokenizer = Tokenizer::load(&folder, &model.config)?;
        Ok((model, tokenizer))
    }
}
