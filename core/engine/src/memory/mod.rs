//! Memory that is known beforehand: what of it a stage takes at its fullest, from shapes and options alone. A stage says its own (`Work::footprint`), of
//! what is here: models that are loaded (`loading.rs`), training, drawing and scoring (`uses.rs`), rows of data (`rows.rs`). What a network's passes
//! take is `model/passes.rs`.

mod known;
mod loading;
mod rows;
mod uses;

pub use crate::model::F32;
pub use known::{Known, Shaped};
pub use loading::opening;
pub use rows::{Prompts, longest_pair, longest_prompt, longest_row};
pub use uses::{Drawing, Scorer, Scorers, Taken, Trainee};

use crate::model::{Config, Passes};
use std::collections::BTreeMap;

/// Where memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Masters,
    Gradients,
    Optimizer,
    Weights,
    Reference,
    Activations,
    Freed,
    Logits,
    Cache,
    Rewards,
    Files,
    Runtime,
}

impl Part {
    pub fn words(self) -> &'static str {
        match self {
            Self::Masters => "master weights",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimizer state",
            Self::Weights => "weights computed with",
            Self::Reference => "reference",
            Self::Activations => "activations",
            Self::Freed => "freed, kept by the allocator",
            Self::Logits => "logits",
            Self::Cache => "keys and values",
            Self::Rewards => "reward models",
            Self::Files => "weights being read",
            Self::Runtime => "motrain and libtorch",
        }
    }
}

/// Bytes by where they go. Floats, since sizes of a config.json may multiply to more than an integer holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(BTreeMap<Part, f64>);

impl Parts {
    pub fn with(mut self, part: Part, bytes: f64) -> Self {
        *self.0.entry(part).or_default() += bytes;
        self
    }

    pub fn and(self, other: &Self) -> Self {
        other.0.iter().fold(self, |all, (part, bytes)| all.with(*part, *bytes))
    }

    /// The same where some of it is there several times.
    pub fn times(mut self, times: usize, some: impl IntoIterator<Item = Part>) -> Self {
        for part in some {
            self.0.entry(part).and_modify(|bytes| *bytes *= times as f64);
        }
        self
    }

    pub fn total(&self) -> f64 {
        self.0.values().sum::<f64>()
    }

    /// The largest first; none of nothing.
    pub fn by_size(&self) -> Vec<(Part, f64)> {
        let mut all: Vec<(Part, f64)> = self.0.iter().map(|(p, b)| (*p, *b)).filter(|(_, b)| *b > 0.0).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }
}

/// What a stage takes, moment by moment, and what of it later stages build on.
#[derive(Debug, Default)]
pub struct Footprint {
    pub moments: Vec<(&'static str, Parts)>,
    /// The model that the stage makes.
    pub makes: Option<Shaped>,
    /// Tokens of the longest row that the stage makes: its prompt, its answer.
    pub rows: Option<(f64, f64)>,
    /// Whose memory cannot be known.
    pub uncounted: Vec<String>,
}

impl Footprint {
    /// What is there at once at some time of the stage.
    pub fn moment(&mut self, name: &'static str, parts: Parts) {
        self.moments.push((name, parts));
    }

    /// Some moments of the same kind.
    pub fn moments(&mut self, name: &'static str, all: impl IntoIterator<Item = Parts>) {
        self.moments.extend(all.into_iter().map(|parts| (name, parts)));
    }

    /// The fullest moment.
    fn fullest(self) -> (&'static str, Parts) {
        let fuller = |a: &(&str, Parts), b: &(&str, Parts)| a.1.total().total_cmp(&b.1.total());
        self.moments.into_iter().max_by(fuller).unwrap_or_default()
    }
}

/// A stage at its fullest.
#[derive(Debug)]
pub struct Estimate {
    pub stage: String,
    /// When it is.
    pub moment: &'static str,
    pub parts: Parts,
    pub uncounted: Vec<String>,
}

impl Estimate {
    pub fn of(stage: &str, mut footprint: Footprint, machine: Machine) -> Self {
        let uncounted = std::mem::take(&mut footprint.uncounted);
        let (moment, parts) = footprint.fullest();
        Self { stage: stage.into(), moment, parts: parts.with(Part::Runtime, machine.runtime()), uncounted }
    }
}

/// Whose memory is meant, and the bytes of a number in the type of computing.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub gpu: bool,
    pub bytes: f64,
}

impl Machine {
    /// A network's passes there.
    fn passes(self, config: &Config) -> Passes<'_> {
        Passes { config, bytes: self.bytes, fused: !self.gpu && motrain_kernels::fast() }
    }

    /// What is there before any tensor. On a CPU: the peak of a run of the embedded model (0.9 M parameters, batches of one, no answer of more than 4
    /// tokens), 0.21 GB, less its tensors and files (docs/performance.md). On a GPU: a CUDA context with libtorch's kernels and cuBLAS' workspace; not
    /// measured.
    fn runtime(self) -> f64 {
        if self.gpu { 0.6e9 } else { 0.19e9 }
    }
}
