//! Steerable policies: what follows objective weights given at inference. Weights reach a policy through its prompt (the conditioner), and
//! through what answers at them: one network, a mix made for them, the policy trained for them. The second is a steering, one a file.

pub mod blend;
mod by;
mod file;
pub mod gained;
pub mod grid;
pub mod prompted;
pub mod soup;

pub use by::{AnySteer, By, Steer, SteerKind};
pub use file::{Opened, Steering, said_by, write};

use crate::decode::Decoder;
use crate::model::{Adapter, Model, tokenizer_folder};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::plan::ModelRef;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// Every way to steer.
pub const STEERINGS: &[SteerKind] = &[
    SteerKind::of::<prompted::Prompted>(),
    SteerKind::of::<soup::Specialists>(),
    SteerKind::of::<blend::Blending>(),
    SteerKind::of::<gained::Gained>(),
    SteerKind::of::<grid::Grid>(),
];

/// A policy that answers at any weights.
pub trait Steerable {
    /// What answers at `weights`.
    fn route(&self, weights: &Weights) -> Result<Route>;

    /// Whether prompts of two routes are answered together.
    fn together(&self, one: &Route, other: &Route) -> bool {
        one == other
    }

    /// What completions are drawn from: of each prompt on its route, or of all on one. They must be such that are answered together.
    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>>;

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

/// Refuses a folder of several models, of which none is what answers.
pub fn is_one_model(folder: &Path) -> Result<()> {
    match file::steered_otherwise(folder)? {
        Some(by) => Err(Error::file(
            folder,
            format!(
                "is steered by its parameters (\"by\": {:?} in steering.json), and no one model of it answers; evaluate it as a policy, or \
                     make one model at some weights with a soup stage",
                by.name()
            ),
        )),
        None => Ok(()),
    }
}

/// Where models come from, and where they go.
pub struct Loader<'a> {
    pub folder: Box<dyn Fn(&ModelRef) -> PathBuf + 'a>,
    pub device: Device,
    /// The type to compute in.
    pub dtype: Kind,
}

impl Loader<'_> {
    /// A model, or an adapter in its base, to train or to mix (f32).
    pub fn load(&self, model: &ModelRef) -> Result<(Model, Tokenizer)> {
        self.load_as(model, Kind::Float)
    }

    /// The same to draw from, in the type of computing.
    pub fn load_still(&self, model: &ModelRef) -> Result<(Model, Tokenizer)> {
        self.load_as(model, self.dtype)
    }

    fn load_as(&self, model: &ModelRef, dtype: Kind) -> Result<(Model, Tokenizer)> {
        let folder = (self.folder)(model);
        is_one_model(&folder)?;
        let opened = Model::open(&folder, self.device, dtype)?;
        let tokenizer = self.tokenizer(model, &opened)?;
        Ok((opened, tokenizer))
    }

    /// What an adapter trains on: a model in the type of computing, and its folder; of an adapter the base with the adapter in it, the adapter,
    /// and the base's folder.
    pub fn load_base(&self, model: &ModelRef) -> Result<(Model, Option<Adapter>, PathBuf)> {
        let folder = (self.folder)(model);
        is_one_model(&folder)?;
        if !Adapter::is_one(&folder) {
            return Ok((Model::load_as(&folder, self.device, self.dtype)?, None, folder));
        }
        let adapter = Adapter::load(&folder, self.device)?;
        adapter.can_go_on()?;
        let base = adapter.base()?;
        let merged = adapter.merged_into(Model::load_as(&base, self.device, self.dtype)?)?;
        Ok((merged, Some(adapter), base))
    }

    pub fn tokenizer(&self, model: &ModelRef, loaded: &Model) -> Result<Tokenizer> {
        let folder = tokenizer_folder(&(self.folder)(model))?;
        let tokenizer = Tokenizer::load(&folder, &loaded.config)?;
        tokenizer.tell_form(&folder);
        Ok(tokenizer)
    }
}
