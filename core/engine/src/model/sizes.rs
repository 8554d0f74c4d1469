//! How many numbers a model holds and trains, from config.json alone.

use super::adapter::is_linear;
use super::config::Config;
use super::peft::{LoraConfig, Place};
use super::slots::{Slot, slots, slots_and_head};
use super::targets;
use crate::Result;
use motrain_core::plan::{Gains, Lora as LoraOptions};
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
        let (_, said) = targets::said(options, config, Path::new(""))?;
        let with_head = targets::mean_head(options, config.arch.names());
        let mut trained = Self::changes(&said, config, options.full, with_head);
        trained.shapes.extend(targets::trained_head(config).map(|slot| slot.shape));
        Ok(Self { dropout: options.dropout > 0.0, ..trained })
    }

    /// The low-rank changes that adapter_config.json says.
    pub(super) fn of_changes(said: &LoraConfig, config: &Config) -> Self {
        Self::changes(said, config, false, true)
    }

    /// Of `full` rank there is no A.
    fn changes(said: &LoraConfig, config: &Config, full: bool, with_head: bool) -> Self {
        let (mut shapes, mut ranks) = (Vec::new(), HashMap::new());
        let names = config.arch.names();
        let head = format!("{}.weight", names.head);
        let changed = |slot: &&Slot| is_linear(slot, config) || (with_head && slot.name == head);
        for slot in slots_and_head(config).iter().filter(changed) {
            let place = Place { names, linear: slot.name != head };
            for part in &slot.parts {
                let module = part.name.trim_end_matches(".weight");
                if said.changes(module, &place) {
                    let columns = slot.shape[1];
                    let (outer, rank) = if full { (0, columns) } else { (said.rank(module), said.rank(module)) };
                    shapes.extend([vec![outer, columns], vec![part.rows, rank]]);
                    *ranks.entry(slot.name.clone()).or_insert(0.0) += rank as f64;
                }
            }
        }
        Self { shapes, ranks: Some(ranks), dropout: false }
    }

    /// The changes that gains make of each change, and soft tokens.
    pub fn with_gains(mut self, lora: &LoraOptions, objectives: usize, config: &Config) -> Self {
        let (k, gains) = (objectives as i64, lora.gains);
        let wider = |ranks: f64| match gains {
            Gains::None => ranks,
            Gains::Copies => ranks * k as f64,
            Gains::Diagonal => ranks + k as f64,
        };
        let pairs = self.shapes.clone();
        for pair in pairs.chunks(2) {
            let [a, b] = pair else { continue };
            match gains {
                Gains::None => {}
                Gains::Copies => (1..k).for_each(|_| self.shapes.extend([a.clone(), b.clone()])),
                Gains::Diagonal => {
                    self.shapes.extend([vec![b[1]], vec![1]]);
                    (0..k).for_each(|_| self.shapes.extend([vec![1, a[1]], vec![b[0], 1]]));
                }
            }
        }
        self.ranks.iter_mut().flat_map(|ranks| ranks.values_mut()).for_each(|ranks| *ranks = wider(*ranks));
        if lora.soft_tokens > 0 {
            let set = vec![lora.soft_tokens as i64, config.shape.hidden_size];
            self.shapes.extend(std::iter::repeat_n(set, objectives));
        }
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
