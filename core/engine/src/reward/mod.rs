//! The rewards that a stage scores with, and reward models among them.

pub mod implicit;
mod model;
mod reading;

pub use model::{ModelSource, RewardModelOptions, Scorer, check_folder, check_made, encode_for_reward};
pub use reading::{Label, Output, Reading, ReadingOptions};

use crate::decode::{Completion, Completions};
use crate::stage::rewards::Rewards;
use crate::train::log::Metrics;
use crate::{Error, Result};
use motrain_core::data::{DataSpec, Row};
use motrain_core::registry::Registry;
use motrain_core::reward::{RewardSource, Sample, score_checked};
use motrain_core::scale::Scale;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

/// The rewards of an experiment, ready to score.
pub struct RewardSet {
    sources: Vec<(String, bool, Box<dyn RewardSource>)>,
    scales: BTreeMap<String, Scale>,
    spent: RefCell<Metrics>,
}

/// Scores of a batch of completions, one entry per completion; `None` where a source left one out.
pub struct Scores {
    /// Scaled scores, one per objective.
    pub objectives: Vec<Option<Vec<f64>>>,
    /// Raw scores of every reward by name.
    pub raw: RawScores,
}

impl Scores {
    /// Takes `penalty` off every scaled score of the completions that their policy did not finish, as TRL does of their one score: weights add
    /// up to 1, so a weighted score loses as much.
    pub fn penalise_cut(&mut self, completions: &[Completion], penalty: f64) {
        penalise_cut(&mut self.objectives, completions, penalty);
    }
}

/// Takes `penalty` off every number of the completions that their policy did not finish.
pub fn penalise_cut(scores: &mut [Option<Vec<f64>>], completions: &[Completion], penalty: f64) {
    let cut = scores.iter_mut().zip(completions).filter(|(_, c)| !c.finished);
    cut.flat_map(|(scores, _)| scores.iter_mut().flatten()).for_each(|score| *score -= penalty);
}

/// Adds the rewards that need libtorch to a registry.
pub fn register(registry: &mut Registry, device: &str, dtype: &str) -> Result<()> {
    model::register(registry, device, dtype)?;
    implicit::register(registry, device, dtype)
}

/// The options of such a reward that name models.
pub fn models_of(reward: &str) -> &'static [&'static str] {
    match reward {
        "reward_model" => &["model"],
        implicit::NAME => &implicit::MODELS,
        _ => &[],
    }
}

pub type RawScores = BTreeMap<String, Vec<Option<f64>>>;

/// The scores that there are.
pub fn known(scores: &[Option<f64>]) -> Vec<f64> {
    scores.iter().flatten().copied().collect()
}

impl RewardSet {
    /// Builds the sources of a `rewards` stage; `resolve` turns stage references in options into folders.
    pub fn build(
        spec: &Rewards,
        registry: &Registry,
        resolve: impl Fn(&serde_json::Value) -> Result<serde_json::Value>,
        scales: BTreeMap<String, Scale>,
    ) -> Result<Self> {
        let sources = spec
            .sources
            .iter()
            .map(|s| {
                let built = registry.rewards.build(&s.source.name, &resolve(&s.source.options)?)?;
                Ok((s.name.clone(), s.watch, built))
            })
            .collect::<Result<_>>()?;
        Ok(Self { sources, scales, spent: RefCell::default() })
    }

    /// Refuses rows that a source cannot score, before any answer to them is drawn.
    pub fn check_rows(&self, spec: &DataSpec, rows: &[Row]) -> Result<()> {
        for (row, (name, _, source)) in rows.iter().flat_map(|row| self.sources.iter().map(move |s| (row, s))) {
            let placed = |what| Error::invalid(format!("{}: reward \"{name}\": {what}", row.place.of(spec)));
            source.check_row(&row.columns).map_err(placed)?;
        }
        Ok(())
    }

    pub fn objectives(&self) -> Vec<String> {
        self.sources.iter().filter(|(_, watch, _)| !watch).map(|(name, ..)| name.clone()).collect()
    }

    pub fn watched(&self) -> Vec<String> {
        self.sources.iter().filter(|(_, watch, _)| *watch).map(|(name, ..)| name.clone()).collect()
    }

    /// Seconds that each reward took since the last call, as `rewards/<name>/seconds`.
    pub fn take_seconds(&self) -> Metrics {
        self.spent.take()
    }

    /// Raw scores by reward, each source called once, those that can beside each other. The samples carry plain prompts.
    pub fn score_raw(&self, samples: &[Sample]) -> Result<RawScores> {
        let score = |name: &str, source: &dyn RewardSource| {
            let clock = Instant::now();
            let scores = score_checked(name, source, samples);
            (scores, clock.elapsed().as_secs_f64())
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = self
                .sources
                .iter()
                .map(|(name, _, source)| {
                    let source = source.as_ref();
                    source.beside_others().then(|| scope.spawn(move || score(name, source)))
                })
                .collect();
            started
                .into_iter()
                .zip(&self.sources)
                .map(|(thread, (name, _, source))| match thread {
                    None => Ok(score(name, source.as_ref())),
                    Some(thread) => thread.join(),
                })
                .collect()
        });
        let mut out = RawScores::new();
        for ((name, ..), result) in self.sources.iter().zip(results) {
            let (scores, seconds) = result
                .map_err(|_| Error::invalid(format!("reward \"{name}\" failed inside motrain; please report it")))?;
            *self.spent.borrow_mut().entry(format!("rewards/{name}/seconds")).or_default() += seconds;
            out.insert(name.clone(), scores?);
        }
        Ok(out)
    }

    /// Scores the completions of `rows`.
    pub fn score(&self, rows: &[&Row], completions: &Completions) -> Result<Scores> {
        let samples: Vec<Sample> = completions.with(rows).map(|(row, c)| c.sample(row)).collect();
        let raw = self.score_raw(&samples)?;
        let mut objectives = vec![Some(Vec::new()); samples.len()];
        for name in self.objectives() {
            let scale =
                self.scales.get(&name).ok_or_else(|| Error::invalid(format!("reward \"{name}\" has no scale")))?;
            for (scores, value) in objectives.iter_mut().zip(&raw[&name]) {
                match (&mut *scores, value) {
                    (Some(scores), Some(value)) => scores.push(scale.apply(*value)),
                    _ => *scores = None,
                }
            }
        }
        Ok(Scores { objectives, raw })
    }
}
