//! How many numbers a model holds and trains, from config.json alone.

use super::adapter::is_linear;
use super::config::Config;
use super::lora;
use super::peft::{LoraConfig, Place};
use super::slots::slots;
use crate::Result;
use crate::plan::{Gains, Lora as LoraOptions};
use std::collections::HashMap;
use std::path::Path;

/// What of a model trains: its parameters, or low-rank changes of them.
pub struct Trained {
    /// Shapes of the tensors.
    pub shapes: Vec<Vec<i64>>,
    /// Of low-rank changes: what the ranks of a changed parameter add up to, by its name.
    pub(super) ranks: Option<HashMap<String, f64>>,
    pub(super) dropout: bool,
}

impl Trained {
    /// All parameters.
    pub fn whole(config: &Config) -> Self {
        Self { shapes: shapes(config), ranks: None, dropout: false }
    }

    /// An adapter, as `Lora::new` makes it, with a reward model's head.
    pub fn adapter(options: &LoraOptions, config: &Config) -> Result<Self> {
        let (_, said) = lora::said(options, config, Path::new(""))?;
        let mut trained = Self::of_changes(&said, config);
        trained.shapes.extend(lora::trained_head(config).map(|slot| slot.shape));
        Ok(Self { dropout: options.dropout > 0.0, ..trained })
    }

    /// The low-rank changes that adapter_config.json says.
    pub(super) fn of_changes(said: &LoraConfig, config: &Config) -> Self {
        let (mut shapes, mut ranks) = (Vec::new(), HashMap::new());
        let place = Place { names: config.arch.names(), linear: true };
        for slot in slots(config).iter().filter(|slot| is_linear(slot, config)) {
            for part in &slot.parts {
                let module = part.name.trim_end_matches(".weight");
                if said.changes(module, &place) {
                    let rank = said.rank(module);
                    shapes.extend([vec![rank, slot.shape[1]], vec![part.rows, rank]]);
                    *ranks.entry(slot.name.clone()).or_insert(0.0) += rank as f64;
                }
            }
        }
        Self { shapes, ranks: Some(ranks), dropout: false }
    }

    /// The changes that gains make of each change.
    pub fn with_gains(mut self, gains: Gains, objectives: usize) -> Self {
        let k = objectives as i64;
        // Factors of rank r alone: both dimensions of one are known by its place.
        let wider = |rank: i64| match gains {
            Gains::None => rank,
            Gains::Copies => rank * k,
            Gains::Diagonal => rank + k,
        };
        for pair in self.shapes.chunks_mut(2) {
            if let [a, b] = pair {
                (a[0], b[1]) = (wider(a[0]), wider(b[1]));
            }
        }
        let widened = |ranks: f64| wider(ranks as i64) as f64;
        self.ranks.iter_mut().flat_map(|ranks| ranks.values_mut()).for_each(|ranks| *ranks = widened(*ranks));
        self
    }

    pub fn numbers(&self) -> f64 {
        self.shapes.iter().map(|shape| numbers(shape)).sum::<f64>()
    }

    /// Of the largest tensor.
    pub fn largest(&self) -> f64 {
        self.shapes.iter().map(|shape| numbers(shape)).fold(0.0, f64::max)
    }
}

/// Shapes of a model's parameters.
fn shapes(config: &Config) -> Vec<Vec<i64>> {
    slots(config).into_iter().map(|slot| slot.shape).collect()
}

/// In a tensor. Sizes of a config.json may multiply to more than an integer holds.
pub fn numbers(shape: &[i64]) -> f64 {
    shape.iter().map(|size| *size as f64).product()
}
