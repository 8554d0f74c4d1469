//! A training stage under way: model, optimiser, position, checkpoints and logs. `Trainer::step` is the only place that divides by the number of
//! examples, adds up gradients over micro-batches and ranks, clips, refuses what is not finite and moves parameters.

use super::comm::{Comm, Local};
use super::log::{Log, Metrics};
use super::{checkpoint, checkpoint::State};
use crate::model::{Model, Net};
use crate::obey;
use crate::optim::{self, Optim};
use crate::session::Cx;
use crate::tokenizer::Tokenizer;
use crate::{Error, PROFILE, Result};
use indicatif::ProgressBar;
use motrain_core::plan::{Optimizer, Training};
use std::time::Instant;
use tch::Tensor;

/// A training stage: model, optimiser and position, with checkpoints and logs.
pub struct Trainer<'a> {
    stage: Cx<'a>,
    comm: &'a dyn Comm,
    pub model: Model,
    pub tokenizer: Tokenizer,
    optim: Box<dyn Optim>,
    options: Optimizer,
    pub state: State,
    /// Where the last whole step ended, and whether the parameters have moved since.
    whole: State,
    moved: bool,
    total: usize,
    checkpoint_every: usize,
    /// Steps after which the model is kept, with the epochs that end there.
    kept: Vec<(usize, f64)>,
    recompute: bool,
    pub log: Log,
    bar: ProgressBar,
    started: Instant,
}

impl<'a> Trainer<'a> {
    /// Starts from `model`, or from the stage's newest checkpoint.
    pub fn start(
        stage: Cx<'a>,
        mut model: Model,
        tokenizer: Tokenizer,
        options: &Optimizer,
        total: usize,
        train: &Training,
    ) -> Result<Self> {
        let saved = checkpoint::load(&stage.folder(), &mut model)?;
        let (optim_state, state) = saved.map_or((None, State::default()), |(optim, state)| (Some(optim), state));
        model.require_grad()?;
        let mut optim = optim::build(options, model.trained())?;
        if let Some(saved) = optim_state {
            optim.restore(saved)?;
        }
        let log = Log::open(stage, state.step)?;
        let bar = stage.progress(total);
        bar.set_position(state.step as u64);
        bar.reset_eta();
        Ok(Self {
            stage,
            comm: &Local,
            model,
            tokenizer,
            optim,
            options: options.clone(),
            whole: state.clone(),
            moved: false,
            state,
            total,
            checkpoint_every: train.checkpoint_every,
            kept: train.kept_at(total).collect(),
            recompute: train.gradient_checkpointing,
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
            let _part = tracing::trace_span!(target: PROFILE, "step", number = self.state.step + 1).entered();
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

    /// One update. `loss` gives the sum over a micro-batch's examples, on the graph; what moves the parameters is the mean over all `count`
    /// examples. Returns it with `lr` and `grad_norm`, or nothing where there are no examples.
    pub fn step<M>(
        &mut self,
        micros: impl IntoIterator<Item = M>,
        count: usize,
        loss: impl FnMut(&Net, M) -> Result<Tensor>,
    ) -> Result<Metrics> {
        let (dtype, seed) = (self.stage.session.dtype, self.stage.seed("dropout", self.state.step as u64));
        let net = || self.model.training_net(dtype, seed, self.recompute);
        match accumulate(&self.model, net, self.comm, micros, count, loss)? {
            Some(mean) => self.update(mean),
            None => Ok(Metrics::new()),
        }
    }

    /// Clips the gradients, moves the parameters and clears the gradients. A number that is not finite ends the stage here, before a
    /// checkpoint could hold it.
    fn update(&mut self, loss: f64) -> Result<Metrics> {
        let _part = tracing::trace_span!(target: PROFILE, "update").entered();
        let lr = optim::learning_rate(&self.options, self.state.step, self.total);
        if !loss.is_finite() {
            return Err(self.diverged(format!("the loss is {loss}"), lr));
        }
        let norm = optim::clip_gradients(self.model.trained(), self.options.max_grad_norm)?;
        if !norm.is_finite() {
            let place = optim::not_finite(self.model.trained(), Tensor::grad)?;
            let what = place
                .map_or("the gradient is too large to square".into(), |place| format!("in the gradient of {place}"));
            return Err(self.diverged(what, lr));
        }
        self.moved = true;
        self.optim.step(self.model.trained(), lr)?;
        if let Some(place) = optim::not_finite(self.model.trained(), Tensor::shallow_clone)? {
            return Err(self.diverged(format!("after the update, in {place}"), lr));
        }
        optim::zero_gradients(self.model.trained())?;
        Ok(Metrics::from([("loss".into(), loss), ("lr".into(), lr), ("grad_norm".into(), norm)]))
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
        self.keep(|at| at == step)?;
        if step.is_multiple_of(self.checkpoint_every) || !self.running() {
            self.save()?;
        }
        self.moved = false;
        Ok(())
    }

    /// Saves where the last whole step ended.
    fn save(&self) -> Result<()> {
        let _part = tracing::trace_span!(target: PROFILE, "checkpoint").entered();
        self.log.sync()?;
        checkpoint::save(&self.stage.folder(), &self.model, &self.tokenizer, self.optim.as_ref(), &self.whole)
    }

    /// Keeps the model for the epochs that end at such a step.
    fn keep(&self, due: impl Fn(usize) -> bool) -> Result<()> {
        let due = self.kept.iter().filter(|(at, _)| due(*at));
        due.into_iter().try_for_each(|(_, epoch)| self.stage.save_model(&self.model, &self.tokenizer, Some(*epoch)))
    }

    /// Saves the result as the stage's model, which is also that of epochs that a stop did not let begin.
    pub fn finish(self) -> Result<()> {
        self.bar.finish();
        self.keep(|at| at > self.state.step)?;
        self.stage.save_model(&self.model, &self.tokenizer, None)
    }
}

/// Adds up the gradient of the mean loss, micro-batch by micro-batch and rank by rank. `count` are this rank's examples. Returns the mean;
/// nothing where no rank has an example. One network serves all micro-batches: what casts the masters keeps nothing for the way back, so gradients go
/// through it once for each.
pub(super) fn accumulate<M>(
    model: &Model,
    net: impl FnOnce() -> Result<Net>,
    comm: &dyn Comm,
    micros: impl IntoIterator<Item = M>,
    count: usize,
    mut loss: impl FnMut(&Net, M) -> Result<Tensor>,
) -> Result<Option<f64>> {
    let mut all = [count as f64];
    comm.sum(&mut all)?;
    if all[0] == 0.0 {
        return Ok(None);
    }
    let (net, mut mean) = (net()?, [0.0]);
    for micro in micros {
        obey()?;
        let _part = tracing::trace_span!(target: PROFILE, "micro-batch").entered();
        let share = loss(&net, micro)?.f_div_scalar(all[0])?;
        let _part = tracing::trace_span!(target: PROFILE, "backward").entered();
        share.f_backward()?;
        net.backpropagate()?;
        mean[0] += f64::try_from(&share)?;
    }
    comm.sum_gradients(model.trained())?;
    comm.sum(&mut mean)?;
    Ok(Some(mean[0]))
}
