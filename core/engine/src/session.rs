//! What a stage works with: its folder, seeds, device, logs, progress bar, and the way back after an interruption.

use crate::checkpoint::{self, State};
use crate::folder::RunFolder;
use crate::log::{Log, Metrics};
use crate::model::Llama;
use crate::optim::{self, Optim};
use crate::plan::{Component, ModelRef, Optimizer, Plan};
use crate::text::Text;
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use motrain_core::conditioner::Conditioner;
use motrain_core::durable;
use motrain_core::registry::Registry;
use motrain_core::rng::{Rng, rng, sub_seed};
use motrain_core::stop;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// A run: the plan and what all stages share.
pub struct Session<'a> {
    pub plan: &'a Plan,
    pub registry: &'a Registry,
    pub folder: &'a RunFolder,
    /// The hash of each stage, under which its work lies.
    pub hashes: BTreeMap<String, String>,
    pub device: Device,
    pub kind: Kind,
}

/// An error once a signal has asked to stop. Loops that take long ask at each turn.
pub fn obey() -> Result<()> {
    Ok(stop::obey()?)
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
        sub_seed(self.session.plan.seed, &format!("{}/{purpose}", self.id), index)
    }

    pub fn rng(&self, purpose: &str, index: u64) -> Rng {
        rng(self.session.plan.seed, &format!("{}/{purpose}", self.id), index)
    }

    /// Loads a model and its tokenizer.
    pub fn load(&self, model: &ModelRef) -> Result<(Llama, Text)> {
        let folder = self.session.model_folder(model);
        let model = Llama::load(&folder, self.session.device)?;
        let text = Text::load(&folder, &model.config)?;
        Ok((model, text))
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
        sub_seed(self.plan.seed, purpose, index)
    }

    pub fn rng(&self, purpose: &str, index: u64) -> Rng {
        rng(self.plan.seed, purpose, index)
    }

    pub fn stage_folder(&self, id: &str) -> PathBuf {
        self.hashes
            .get(id)
            .map_or_else(|| self.folder.root().join("stages").join(id), |hash| self.folder.stage(id, hash))
    }

    /// The folder of a model: given, or made by a stage.
    pub fn model_folder(&self, model: &ModelRef) -> PathBuf {
        match model {
            ModelRef::Path(path) => PathBuf::from(path),
            ModelRef::Stage { stage } => self.stage_folder(stage).join("model"),
        }
    }

    /// Replaces `{"stage": id}` in a component's options by what that stage says it stands for.
    pub fn resolve(&self, options: &Value) -> Result<Value> {
        Ok(match options {
            Value::Object(map) => match map.get("stage") {
                Some(Value::String(id)) if map.len() == 1 => match self.plan.stage(id) {
                    Some(stage) => stage.work.value(self, id)?,
                    None => return Err(Error::invalid(format!("there is no stage \"{id}\""))),
                },
                _ => map.iter().map(|(k, v)| Ok((k.clone(), self.resolve(v)?))).collect::<Result<_>>()?,
            },
            Value::Array(list) => list.iter().map(|v| self.resolve(v)).collect::<Result<_>>()?,
            other => other.clone(),
        })
    }

    pub fn conditioner(&self, component: &Component) -> Result<Box<dyn Conditioner>> {
        Ok(self.registry.conditioners.build(&component.name, &self.resolve(&component.options)?)?)
    }
}

/// A training stage: model, optimiser and position, with checkpoints and logs.
pub struct Trainer<'a> {
    stage: Cx<'a>,
    pub model: Llama,
    pub text: Text,
    optim: Box<dyn Optim>,
    spec: Optimizer,
    pub state: State,
    /// Where the last whole step ended, and whether the parameters have moved since.
    whole: State,
    moved: bool,
    total: usize,
    checkpoint_every: usize,
    pub log: Log,
    bar: ProgressBar,
    started: Instant,
}

impl<'a> Trainer<'a> {
    /// Starts from `model`, or from the stage's newest checkpoint.
    pub fn start(
        stage: Cx<'a>,
        model: Llama,
        text: Text,
        spec: &Optimizer,
        total: usize,
        checkpoint_every: usize,
    ) -> Result<Self> {
        let saved = checkpoint::load(&stage.folder(), stage.session.device)?;
        let (mut model, optim_state, state) = match saved {
            Some((model, optim, state)) => (model, Some(optim), state),
            None => (model, None, State::default()),
        };
        model.require_grad()?;
        let mut optim = optim::build(spec, &model.params)?;
        if let Some(saved) = optim_state {
            optim.restore(saved)?;
        }
        let log = Log::open(stage, state.step)?;
        let bar = stage.progress(total);
        bar.set_position(state.step as u64);
        bar.reset_eta();
        Ok(Self {
            stage,
            model,
            text,
            optim,
            spec: spec.clone(),
            whole: state.clone(),
            moved: false,
            state,
            total,
            checkpoint_every,
            log,
            bar,
            started: Instant::now(),
        })
    }

    /// Whether there are steps left to do.
    fn running(&self) -> bool {
        self.state.step < self.total && !self.state.stopped
    }

    /// Does the steps that are left. A step that fails or is stopped is given up; what the whole ones before it did is saved.
    pub fn run(&mut self, mut step: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        while self.running() {
            let Err(error) = obey().and_then(|()| step(self)) else { continue };
            // After an update there is no way back to the step before.
            let saved = if self.moved || self.whole.step == 0 { Ok(()) } else { self.save() };
            return Err(match (error, saved) {
                (Error::Stopped, Err(error)) => error,
                (Error::Stopped, Ok(())) => {
                    self.stage.interrupted(format!(" after step {}; nothing is lost", self.whole.step))
                }
                (error, _) => error,
            });
        }
        Ok(())
    }

    /// Clips the gradients, moves the parameters and clears the gradients. Adds `lr` and `grad_norm` to the metrics. A number that is not
    /// finite ends the stage here, before a checkpoint could hold it.
    pub fn update(&mut self, metrics: &mut Metrics) -> Result<()> {
        let lr = optim::learning_rate(&self.spec, self.state.step, self.total);
        if let Some(loss) = metrics.get("loss").filter(|loss| !loss.is_finite()) {
            return Err(self.diverged(format!("the loss is {loss}"), lr));
        }
        let norm = optim::clip_gradients(&self.model.params, self.spec.max_grad_norm)?;
        if !norm.is_finite() {
            let place = optim::not_finite(&self.model.params, Tensor::grad)?;
            let what = place
                .map_or("the gradient is too large to square".into(), |place| format!("in the gradient of {place}"));
            return Err(self.diverged(what, lr));
        }
        self.moved = true;
        self.optim.step(&self.model.params, lr)?;
        if let Some(place) = optim::not_finite(&self.model.params, Tensor::shallow_clone)? {
            return Err(self.diverged(format!("after the update, in {place}"), lr));
        }
        optim::zero_gradients(&self.model.params)?;
        metrics.insert("lr".into(), lr);
        metrics.insert("grad_norm".into(), norm);
        Ok(())
    }

    fn diverged(&self, what: String, lr: f64) -> Error {
        let (step, stage) = (self.state.step + 1, self.stage.id);
        Error::invalid(format!(
            "step {step} of stage \"{stage}\" has diverged: {what}; lower optimizer.lr (it was {lr:e}); the last checkpoint is kept"
        ))
    }

    /// Logs a finished step, and saves when due.
    pub fn finish_step(&mut self, metrics: &Metrics, mut timings: Metrics, message: String) -> Result<()> {
        self.state.step += 1;
        let step = self.state.step;
        self.log.metrics(step, metrics)?;
        timings.insert("seconds".into(), self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
        self.log.timings(step, &timings)?;
        self.bar.set_position(step as u64);
        self.bar.set_message(message.clone());
        if self.bar.is_hidden() && (step.is_multiple_of(10) || step == self.total) {
            tracing::info!("{} step {step}/{} {message}", self.stage.id, self.total);
        }
        self.whole = self.state.clone();
        if step.is_multiple_of(self.checkpoint_every) || !self.running() {
            self.save()?;
        }
        self.moved = false;
        Ok(())
    }

    /// Saves where the last whole step ended.
    fn save(&self) -> Result<()> {
        self.log.sync()?;
        checkpoint::save(&self.stage.folder(), &self.model, &self.text, self.optim.as_ref(), &self.whole)
    }

    /// Saves the result as the stage's model.
    pub fn finish(self) -> Result<()> {
        self.bar.finish();
        save_model(&self.stage.folder(), &self.model, &self.text)
    }
}

/// Saves a stage's model, replacing a half-written one.
pub fn save_model(stage: &Path, model: &Llama, text: &Text) -> Result<()> {
    let folder = stage.join("model");
    let partial = durable::beside(&folder, "partial");
    durable::remove(&partial).map_err(|e| Error::io(&partial, e))?;
    model.save(&partial, text)?;
    durable::publish(&partial, &folder).map_err(|e| Error::io(&folder, e))
}
