//! The rewards that a stage scores with, and reward models among them.

mod ensemble;
pub mod implicit;
mod model;
mod reading;
mod source;

pub use ensemble::Ensemble;
pub use model::{ModelSource, RewardModelOptions, Scorer, check_folder, check_made, encode_for_reward};
pub use reading::{Label, Output, Reading, ReadingOptions};
pub use source::{Reward, doubted, objectives};

use crate::decode::{Completion, Completions};
use crate::train::log::Metrics;
use crate::{Error, PROFILE, Result};
use motrain_core::data::{DataOptions, Row};
use motrain_core::registry::Registry;
use motrain_core::reward::{RewardSource, Sample, score_checked};
use motrain_core::scale::Scale;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

/// The rewards of an experiment, ready to score.
pub struct RewardSet {
    sources: Vec<(String, Box<dyn RewardSource>)>,
    objectives: Vec<String>,
    /// Objectives with second opinions, and the names of all that score them, their own first.
    doubted: Vec<(usize, Vec<String>)>,
    scales: BTreeMap<String, Scale>,
    spent: RefCell<Metrics>,
}

/// Scores of a batch of completions, one entry per completion; `None` where a source left one out.
#[derive(Default)]
pub struct Scores {
    /// Scaled scores, one per objective.
    pub objectives: Vec<Option<Vec<f64>>>,
    /// Raw scores of every reward by name.
    pub raw: RawScores,
    /// Of the objectives that have second opinions.
    pub ensembles: Vec<Ensemble>,
}

impl Scores {
    /// One completion's of each of several batches, as one batch.
    pub fn picked<'a>(from: impl IntoIterator<Item = (&'a Self, usize)>) -> Self {
        let mut out = Self::default();
        for (scores, i) in from {
            out.objectives.push(scores.objectives[i].clone());
            for (name, raw) in &scores.raw {
                out.raw.entry(name.clone()).or_default().push(raw[i]);
            }
            for (k, ensemble) in scores.ensembles.iter().enumerate() {
                let Ensemble { objective, name, scores } = ensemble;
                if out.ensembles.len() == k {
                    out.ensembles.push(Ensemble { objective: *objective, name: name.clone(), scores: vec![] });
                }
                out.ensembles[k].scores.push(scores[i].clone());
            }
        }
        out
    }

    /// Takes `penalty` off every scaled score of the completions that their policy did not finish, as TRL does of their one score: weights add
    /// up to 1, so a weighted score loses as much.
    pub fn penalise_cut(&mut self, completions: &[Completion], penalty: f64) {
        penalise_cut(&mut self.objectives, completions, penalty);
    }

    /// Makes of each objective with second opinions their mean less `penalty` times their variance, as Coste et al. 2023 do. Without a penalty the
    /// objective's own score stays.
    pub fn doubt(&mut self, penalty: f64) {
        if penalty == 0.0 {
            return;
        }
        for ensemble in &self.ensembles {
            for (scores, members) in self.objectives.iter_mut().zip(&ensemble.scores) {
                match (&mut *scores, members) {
                    (Some(scores), Some(members)) => scores[ensemble.objective] = ensemble::doubted(members, penalty),
                    _ => *scores = None,
                }
            }
        }
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
        rewards: &[Reward],
        registry: &Registry,
        resolve: impl Fn(&serde_json::Value) -> Result<serde_json::Value>,
        scales: BTreeMap<String, Scale>,
    ) -> Result<Self> {
        let sources = rewards
            .iter()
            .map(|s| {
                let built = registry.rewards.build(&s.source.name, &resolve(&s.source.options)?)?;
                Ok((s.name.clone(), built))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            sources,
            objectives: objectives(rewards),
            doubted: doubted(rewards),
            scales,
            spent: RefCell::default(),
        })
    }

    pub fn with_scales(self, scales: BTreeMap<String, Scale>) -> Self {
        Self { scales, ..self }
    }

    /// Refuses rows that a source cannot score, before any answer to them is drawn.
    pub fn check_rows(&self, options: &DataOptions, rows: &[Row]) -> Result<()> {
        for (row, (name, source)) in rows.iter().flat_map(|row| self.sources.iter().map(move |s| (row, s))) {
            let placed = |what| Error::invalid(format!("{}: reward \"{name}\": {what}", row.place.of(options)));
            source.check_row(&row.columns).map_err(placed)?;
        }
        Ok(())
    }

    pub fn objectives(&self) -> Vec<String> {
        self.objectives.clone()
    }

    /// Objectives that have second opinions.
    pub fn doubted(&self) -> impl Iterator<Item = &String> {
        self.doubted.iter().map(|(objective, _)| &self.objectives[*objective])
    }

    /// Seconds that each reward took since the last call, as `rewards/<name>/seconds`.
    pub fn take_seconds(&self) -> Metrics {
        self.spent.take()
    }

    /// Raw scores by reward, each source called once, those that can beside each other. The samples carry plain prompts.
    pub fn score_raw(&self, samples: &[Sample]) -> Result<RawScores> {
        let score = |name: &str, source: &dyn RewardSource| {
            let _part = tracing::trace_span!(target: PROFILE, "reward", name, samples = samples.len()).entered();
            let clock = Instant::now();
            let scores = score_checked(name, source, samples);
            (scores, clock.elapsed().as_secs_f64())
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = self
                .sources
                .iter()
                .map(|(name, source)| {
                    let source = source.as_ref();
                    source.beside_others().then(|| scope.spawn(move || score(name, source)))
                })
                .collect();
            started
                .into_iter()
                .zip(&self.sources)
                .map(|(thread, (name, source))| match thread {
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
        self.score_samples(&completions.with(rows).map(|(row, c)| c.sample(row)).collect::<Vec<_>>())
    }

    /// Scores any answers.
    pub fn score_samples(&self, samples: &[Sample]) -> Result<Scores> {
        let raw = self.score_raw(samples)?;
        let objectives = self.scaled(&self.objectives, &raw, samples.len())?;
        let ensembles = self.ensembles(&raw, samples.len())?;
        Ok(Scores { objectives, raw, ensembles })
    }

    /// What all that score an objective say of so many samples, of each objective that has second opinions.
    pub fn ensembles(&self, raw: &RawScores, samples: usize) -> Result<Vec<Ensemble>> {
        let one = |(objective, members): &(usize, Vec<String>)| {
            let (name, scores) = (self.objectives[*objective].clone(), self.scaled(members, raw, samples)?);
            Ok(Ensemble { objective: *objective, name, scores })
        };
        self.doubted.iter().map(one).collect()
    }

    /// Scaled scores of some rewards by sample; `None` where one of them left it out.
    fn scaled(&self, names: &[String], raw: &RawScores, samples: usize) -> Result<Vec<Option<Vec<f64>>>> {
        let scale =
            |name| self.scales.get(name).ok_or_else(|| Error::invalid(format!("reward \"{name}\" has no scale")));
        let columns = names.iter().map(|name| Ok((&raw[name], scale(name)?))).collect::<Result<Vec<_>>>()?;
        let of = |i: usize| columns.iter().map(|(raw, scale)| raw[i].map(|raw| scale.apply(raw))).collect();
        Ok((0..samples).map(of).collect())
    }
}
