//! Which two of a prompt's completions a label rule makes a pair of.

use crate::Result;
use crate::decode::Completion;
use crate::train::log::Metrics;
use motrain_core::Weights;
use motrain_core::label::{LabelRule, surest};

/// Two completions by index, and how likely the first is the better one.
pub struct Chosen {
    pub which: [usize; 2],
    pub label: f64,
    /// Scaled score differences first − second, one per objective.
    pub margins: Vec<f64>,
}

/// What the completions of a prompt teach.
pub enum Found {
    Pair(Chosen),
    /// Fewer than two have scores.
    Unscored,
    Identical,
    Tie,
}

/// Of the scored completions that differ, the pair that the rule is surest of.
pub fn choose(
    rule: &dyn LabelRule,
    weights: &Weights,
    completions: &[Completion],
    scores: &[Option<Vec<f64>>],
) -> Result<Found> {
    let scored: Vec<usize> = (0..completions.len()).filter(|&i| scores[i].is_some()).collect();
    let own: Vec<Vec<f64>> = scores.iter().flatten().cloned().collect();
    let every = (0..own.len()).flat_map(|a| (a + 1..own.len()).map(move |b| (a, b)));
    let differ = |&(a, b): &(usize, usize)| completions[scored[a]].tokens != completions[scored[b]].tokens;
    let different: Vec<(usize, usize)> = every.filter(differ).collect();
    Ok(match surest(rule, weights, &own, different.iter().copied())? {
        Some(pair) => Found::Pair(Chosen {
            which: [scored[pair.first], scored[pair.second]],
            label: pair.label,
            margins: own[pair.first].iter().zip(&own[pair.second]).map(|(x, y)| x - y).collect(),
        }),
        None if own.len() < 2 => Found::Unscored,
        None if different.is_empty() => Found::Identical,
        None => Found::Tie,
    })
}

/// Prompts that teach nothing, by why.
#[derive(Default)]
pub struct Counts {
    pub ties: usize,
    pub identical: usize,
    pub unscored: usize,
}

impl Counts {
    /// Counts what is no pair.
    pub fn add(&mut self, found: Found) -> Option<Chosen> {
        match found {
            Found::Pair(pair) => return Some(pair),
            Found::Unscored => self.unscored += 1,
            Found::Identical => self.identical += 1,
            Found::Tie => self.ties += 1,
        }
        None
    }

    pub fn report(&self, metrics: &mut Metrics) {
        metrics.insert("pairs/ties".into(), self.ties as f64);
        metrics.insert("pairs/identical".into(), self.identical as f64);
        if self.unscored > 0 {
            metrics.insert("pairs/unscored".into(), self.unscored as f64);
        }
    }
}
