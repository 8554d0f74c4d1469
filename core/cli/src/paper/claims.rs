//! What the paper says, as numbers that must be above 0, with their uncertainty over seeds. A claim is worded as what its number shows: the paper
//! speaks of domination, of higher extremes and of a collapse to two modes.

use super::{Seed, place};
use motrain_core::metrics::front::{dominates, non_dominated};
use motrain_core::metrics::report::Method;
use motrain_core::metrics::stats::{mean, mean_interval};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// Seeds from which a claim is decided.
const ENOUGH: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Held,
    NotHeld,
    Undecided,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
            Self::Undecided => "undecided",
        })
    }
}

#[derive(Serialize)]
pub struct Claim {
    pub claim: String,
    /// The figure that decides it.
    pub figure: String,
    /// What is measured; above 0 speaks for the claim.
    pub statistic: String,
    pub by_seed: Vec<f64>,
    pub mean: f64,
    /// 95 % over seeds.
    pub interval: Option<[f64; 2]>,
    #[serde(rename = "verdict")]
    pub standing: Standing,
}

impl Claim {
    fn new(claim: String, figure: &str, statistic: &str, by_seed: Vec<f64>) -> Self {
        let interval = mean_interval(&by_seed);
        let standing = match interval {
            Some([low, _]) if by_seed.len() >= ENOUGH && low > 0.0 => Standing::Held,
            Some([_, high]) if by_seed.len() >= ENOUGH && high < 0.0 => Standing::NotHeld,
            _ => Standing::Undecided,
        };
        let mean = mean(&by_seed);
        Self { claim, figure: figure.into(), statistic: statistic.into(), by_seed, mean, interval, standing }
    }

    pub fn measured(&self) -> String {
        let seeds = self.by_seed.len();
        match self.interval {
            Some([low, high]) => format!("{}: {:.3} [{low:.3}, {high:.3}], {seeds} seeds", self.statistic, self.mean),
            None => format!("{}: {:.3}, one seed", self.statistic, self.mean),
        }
    }
}

/// The share of `b`'s non-dominated points that some point of `a` dominates, minus the reverse.
fn dominance(a: &Method, b: &Method) -> f64 {
    let front = |m: &Method| {
        let points: Vec<Vec<f64>> = m.points.iter().map(|p| p.rewards.clone()).collect();
        non_dominated(&points).into_iter().map(|i| points[i].clone()).collect::<Vec<_>>()
    };
    let (a, b) = (front(a), front(b));
    let covered = |by: &[Vec<f64>], of: &[Vec<f64>]| {
        of.iter().filter(|p| by.iter().any(|q| dominates(q, p))).count() as f64 / of.len() as f64
    };
    covered(&a, &b) - covered(&b, &a)
}

/// How far apart the extremes lie, summed over objectives.
fn extent(m: &Method) -> f64 {
    let reach = |k: usize| {
        let values = m.points.iter().map(|p| p.rewards[k]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        high - low
    };
    (0..m.points[0].rewards.len()).map(reach).sum()
}

/// What an objective gains from weight 0 to weight 1, mean over objectives.
fn steered(m: &Method) -> f64 {
    let gain = |k: usize| {
        let by_weight = |a: &&motrain_core::metrics::report::Point, b: &&motrain_core::metrics::report::Point| {
            a.weights.values()[k].total_cmp(&b.weights.values()[k])
        };
        let most = m.points.iter().max_by(by_weight).map_or(0.0, |p| p.rewards[k]);
        most - m.points.iter().min_by(by_weight).map_or(0.0, |p| p.rewards[k])
    };
    let gains: Vec<f64> = (0..m.points[0].rewards.len()).map(gain).collect();
    mean(&gains)
}

/// All claims that the runs have the stages for.
pub fn all(seeds: &[Seed]) -> Vec<Claim> {
    let mut out = Vec::new();
    let ids: Vec<&String> = seeds[0].methods.keys().collect();
    let tasks: BTreeSet<&str> = ids.iter().filter_map(|id| place(id)).map(|(task, _)| task).collect();
    for task in &tasks {
        for (figure, size) in [("fig2", ""), ("fig3", ", smaller policy")] {
            fronts(seeds, task, figure, size, &mut out);
        }
        alphas(seeds, task, &mut out);
        epochs(seeds, task, &mut out);
        win_rates(seeds, task, &mut out);
    }
    out
}

/// A number per seed, if all seeds have the methods: `f` of the two stages' methods.
fn between(seeds: &[Seed], a: &str, b: &str, f: impl Fn(&Method, &Method) -> f64) -> Option<Vec<f64>> {
    seeds.iter().map(|s| Some(f(&s.methods.get(a)?.1, &s.methods.get(b)?.1))).collect()
}

fn fronts(seeds: &[Seed], task: &str, figure: &str, size: &str, out: &mut Vec<Claim>) {
    let id = |method: &str| format!("{task}_{figure}_{method}");
    let ours = id("mo_odpo");
    let others =
        [("rewarded_soups", "Rewarded Soups"), ("odpo_soups", "ODPO Soups"), ("p_morl", "P-MORL"), ("ric", "RiC")];
    for (method, name) in others {
        let other = id(method);
        if let Some(values) = between(seeds, &ours, &other, |a, b| a.hypervolume - b.hypervolume) {
            let claim = format!("{task}{size}: MO-ODPO has a larger front than {name}");
            out.push(Claim::new(claim, figure, "difference of hypervolumes", values));
        }
        if method != "odpo_soups"
            && let Some(values) = between(seeds, &ours, &other, dominance)
        {
            let claim = format!("{task}{size}: MO-ODPO dominates more of {name}'s front than the reverse");
            out.push(Claim::new(claim, figure, "share of points dominated, minus the reverse", values));
        }
    }
    if let Some(values) = between(seeds, &id("odpo_soups"), &ours, |a, b| extent(a) - extent(b)) {
        let claim = format!("{task}{size}: ODPO Soups' points lie further apart than MO-ODPO's");
        out.push(Claim::new(claim, figure, "difference of extents", values));
    }
    if let Some(values) = between(seeds, &ours, &id("p_morl"), |a, b| steered(a) - steered(b)) {
        let claim = format!("{task}{size}: P-MORL is less steerable than MO-ODPO");
        out.push(Claim::new(claim, figure, "difference of gains from weight 0 to 1", values));
    }
}

/// The first and the last of the numbered stages that begin with `prefix`.
fn ends<'a>(seeds: &'a [Seed], prefix: &str) -> Option<(&'a String, &'a String)> {
    let number = |id: &String| id.strip_prefix(prefix)?.parse::<usize>().ok();
    let mut ids: Vec<(usize, &String)> = seeds[0].methods.keys().filter_map(|id| number(id).map(|n| (n, id))).collect();
    ids.sort();
    let ((_, first), (_, last)) = (ids.first()?, ids.last()?);
    (ids.len() > 1).then_some((first, last))
}

/// Figure 5: on HH a low alpha collapses to two modes, on TL;DR a high one to a single point.
fn alphas(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let Some((low, high)) = ends(seeds, &format!("{task}_fig5_")) else { return };
    let values = |f: &dyn Fn(&Method, &Method) -> f64| between(seeds, low, high, f).unwrap_or_default();
    if task == "tldr" {
        let claim = format!("{task}: the highest alpha's points lie closer together than the lowest's");
        out.push(Claim::new(
            claim,
            "fig5",
            "extent at the lowest alpha minus at the highest",
            values(&|a, b| extent(a) - extent(b)),
        ));
    } else {
        let claim = format!("{task}: the lowest alpha spaces its points less evenly than the highest");
        let uneven = |a: &Method, b: &Method| a.unevenness - b.unevenness;
        out.push(Claim::new(
            claim,
            "fig5",
            "unevenness of gaps (CV) at the lowest alpha minus at the highest",
            values(&uneven),
        ));
    }
}

/// Figure 6: MO-ODPO spreads with epochs, RiC plateaus.
fn epochs(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let growth = |figure: &str, f: fn(&Method) -> f64| {
        let (first, last) = ends(seeds, &format!("{task}_{figure}_"))?;
        between(seeds, last, first, |a, b| f(a) - f(b))
    };
    if let Some(values) = growth("fig6", extent) {
        let claim = format!("{task}: MO-ODPO's front widens with epochs");
        out.push(Claim::new(claim, "fig6", "extent after the last epoch minus after the first", values));
    }
    let volume = |m: &Method| m.hypervolume;
    if let (Some(ours), Some(ric)) = (growth("fig6", volume), growth("fig6ric", volume)) {
        let claim = format!("{task}: RiC plateaus while MO-ODPO goes on growing");
        let values = ours.iter().zip(&ric).map(|(a, b)| a - b).collect();
        out.push(Claim::new(claim, "fig6", "growth of the hypervolume, MO-ODPO's minus RiC's", values));
    }
}

fn win_rates(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let stage = format!("{task}_fig4");
    let Some(first) = seeds[0].matches.get(&stage) else { return };
    let rate = |seed: &Seed, against: &str| {
        let found = seed.matches.get(&stage)?.iter().find(|m| m.against == against)?;
        Some(found.win_rate_half)
    };
    for m in first {
        let values: Option<Vec<f64>> = seeds.iter().map(|s| Some(rate(s, &m.against)? - 0.5)).collect();
        let claim = format!("{task}: MO-ODPO wins more often than {}", m.against);
        out.extend(values.map(|v| Claim::new(claim, "fig4", "win rate (a tie is half) minus 0.5", v)));
    }
    let least = |seed: &Seed| {
        let others: Vec<f64> =
            first.iter().filter(|m| m.against != "P-MORL").filter_map(|m| rate(seed, &m.against)).collect();
        Some(others.into_iter().fold(f64::INFINITY, f64::min) - rate(seed, "P-MORL")?)
    };
    if let Some(values) = seeds.iter().map(least).collect::<Option<Vec<f64>>>() {
        let claim = format!("{task}: MO-ODPO wins least often against P-MORL");
        out.push(Claim::new(claim, "fig4", "lowest other win rate minus that against P-MORL", values));
    }
}

#[cfg(test)]
mod tests;
