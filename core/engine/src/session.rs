//! What a stage works with: the run that it is part of, its folder, seeds, device and progress bar.

use crate::folder::RunFolder;
use crate::model::Model;
use crate::names;
use crate::others::{Others, stage_ref};
use crate::steer::Loader;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use motrain_core::conditioner::Conditioner;
use motrain_core::durable;
use motrain_core::plan::{Component, Lora, ModelRef};
use motrain_core::registry::Registry;
use motrain_core::rng::{Rng, rng, sub_seed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Device, Kind};

/// The stages of a plan, as a run asks for them.
pub trait Stages: Others {
    /// What `{"stage": id}` in a component's options stands for; nothing where there is no such stage.
    fn value(&self, session: &Session, id: &str) -> Option<Result<Value>>;
}

/// A run: what all stages share.
pub struct Session<'a> {
    pub stages: &'a dyn Stages,
    pub registry: &'a Registry,
    pub folder: &'a RunFolder,
    /// The hash of each stage, under which its work lies.
    pub hashes: BTreeMap<String, String>,
    pub device: Device,
    pub dtype: Kind,
}

/// One stage of a run.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub session: &'a Session<'a>,
    pub id: &'a str,
}

impl<'a> Cx<'a> {
    pub fn folder(&self) -> PathBuf {
        self.session.stage_folder(self.id)
    }

    /// The sub-seed of one purpose at one step.
    pub fn seed(&self, purpose: &str, index: u64) -> u64 {
        sub_seed(self.session.stages.seed(), &format!("{}/{purpose}", self.id), index)
    }

    pub fn rng(&self, purpose: &str, index: u64) -> Rng {
        rng(self.session.stages.seed(), &format!("{}/{purpose}", self.id), index)
    }

    /// Loads a model to draw from, and its tokenizer.
    pub fn load(&self, model: &ModelRef) -> Result<(Model, Tokenizer)> {
        self.session.loader().load_still(model)
    }

    /// Loads one for training, made into what is trained: with an adapter if one is to be trained, and then the base in the type of computing. An
    /// adapter's gains are of so many `objectives`.
    pub fn load_trained(
        &self,
        model: &ModelRef,
        lora: Option<&Lora>,
        objectives: usize,
        made: impl FnOnce(Model) -> Result<Model>,
    ) -> Result<(Model, Tokenizer)> {
        let loader = self.session.loader();
        let Some(options) = lora else {
            let (model, tokenizer) = loader.load(model)?;
            return Ok((made(model)?, tokenizer));
        };
        let (base, start, folder) = loader.load_base(model)?;
        let tokenizer = loader.tokenizer(model, &base)?;
        let mut base = made(base)?;
        base.attach(options, &folder, start, objectives, self.seed("lora", 0))?;
        tracing::info!("{}: LoRA trains {} of {} parameters", self.id, base.trained_count(), base.parameter_count());
        Ok((base, tokenizer))
    }

    /// Saves the stage's model, in the end or after an epoch, replacing a half-written one.
    pub fn save_model(&self, model: &Model, tokenizer: &Tokenizer, epoch: Option<f64>) -> Result<()> {
        let folder = self.folder().join(names::model(epoch));
        let partial = durable::beside(&folder, "partial");
        durable::remove(&partial).map_err(|e| Error::io(&partial, e))?;
        model.save(&partial, tokenizer)?;
        durable::publish(&partial, &folder).map_err(|e| Error::io(&folder, e))
    }

    /// What a stage that a signal stopped ends with.
    pub fn interrupted(&self, kept: String) -> Error {
        Error::Interrupted { stage: self.id.into(), kept, run: self.session.folder.root().to_owned() }
    }

    /// A progress bar on standard error; hidden where that is no terminal.
    pub fn progress(&self, total: usize) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>18} [{bar:24}] {pos}/{len} {msg} left {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        ProgressBar::new(total as u64).with_style(style).with_prefix(self.id.to_owned())
    }
}

impl Session<'_> {
    /// The sub-seed of what stages share, so that methods are compared on the same draws.
    pub fn seed(&self, purpose: &str, index: u64) -> u64 {
        sub_seed(self.stages.seed(), purpose, index)
    }

    pub fn rng(&self, purpose: &str, index: u64) -> Rng {
        rng(self.stages.seed(), purpose, index)
    }

    pub fn stage_folder(&self, id: &str) -> PathBuf {
        self.hashes
            .get(id)
            .map_or_else(|| self.folder.root().join(names::STAGES).join(id), |hash| self.folder.stage(id, hash))
    }

    /// The folder of a model: given, or made by a stage.
    pub fn model_folder(&self, model: &ModelRef) -> PathBuf {
        match model {
            ModelRef::Path(path) => PathBuf::from(path),
            ModelRef::Stage { stage, epoch } => self.stage_folder(stage).join(names::model(*epoch)),
        }
    }

    /// Replaces `{"stage": id}` in a component's options by what that stage says it stands for, and with an `epoch` by its model after it.
    pub fn resolve(&self, options: &Value) -> Result<Value> {
        Ok(match options {
            Value::Object(map) => match stage_ref(map) {
                Some((id, epoch)) => match (self.stages.options(id), epoch) {
                    (Some(_), Some(_)) => json!(self.stage_folder(id).join(names::model(epoch))),
                    (_, None) if let Some(value) = self.stages.value(self, id) => value?,
                    _ => return Err(Error::invalid(format!("there is no stage \"{id}\""))),
                },
                None => map.iter().map(|(k, v)| Ok((k.clone(), self.resolve(v)?))).collect::<Result<_>>()?,
            },
            Value::Array(list) => list.iter().map(|v| self.resolve(v)).collect::<Result<_>>()?,
            other => other.clone(),
        })
    }

    /// Loads the models of a steering.
    pub fn loader(&self) -> Loader<'_> {
        Loader { folder: Box::new(|model| self.model_folder(model)), device: self.device, dtype: self.dtype }
    }

    pub fn conditioner(&self, component: &Component) -> Result<Box<dyn Conditioner>> {
        Ok(self.registry.conditioners.build(&component.name, &self.resolve(&component.options)?)?)
    }
}
