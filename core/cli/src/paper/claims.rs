//! What the paper says, each sentence as a number that must be above 0, with its uncertainty over seeds. The claims are registered here, some twenty
//! for two tasks; by chance alone one of twenty may be decided, so that beside each verdict stands the one that Holm's correction leaves. A claim that
//! must hold everywhere (at every weight, against each method) is tested where it holds least: it is held or undecided, since noise alone
//! makes the least of several numbers negative.

use super::{Seed, place};
use motrain_core::metrics::report::{Method, Point};
use motrain_core::metrics::stats::{holm, mean, mean_interval, t_test};
use motrain_engine::stage::rewards::Rewards;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// Seeds from which a claim is decided.
const ENOUGH: usize = 3;
/// The chance at which a claim is decided though nothing is behind it.
const LEVEL: f64 = 0.05;
/// What MO-ODPO is compared with: stages and names.
const OTHERS: [(&str, &str); 4] =
    [("rewarded_soups", "Rewarded Soups"), ("odpo_soups", "ODPO Soups"), ("p_morl", "P-MORL"), ("ric", "RiC")];

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
    /// 95 % over seeds, within what the statistic can be.
    pub interval: Option<[f64; 2]>,
    /// Two-sided, of a mean of 0.
    pub p_value: Option<f64>,
    #[serde(rename = "verdict")]
    pub standing: Standing,
    /// The verdict once all claims of the page are held against each other.
    #[serde(rename = "verdict_holm")]
    pub among_all: Standing,
}

impl Claim {
    /// A claim whose statistic is the least of several numbers.
    fn everywhere(claim: String, figure: &str, statistic: &str, range: [f64; 2], by_seed: Vec<f64>) -> Self {
        let mut out = Self::new(claim, figure, statistic, range, by_seed);
        if out.mean <= 0.0 {
            out.p_value = out.p_value.map(|_| 1.0);
            out.standing = Standing::Undecided;
            out.among_all = out.standing;
        }
        out
    }

    /// `range` is what the statistic can be.
    fn new(claim: String, figure: &str, statistic: &str, range: [f64; 2], by_seed: Vec<f64>) -> Self {
        let within = |x: f64| x.clamp(range[0], range[1]);
        let interval = mean_interval(&by_seed).map(|ends| ends.map(within));
        let p_value = t_test(&by_seed);
        let mean = mean(&by_seed);
        let (figure, statistic) = (figure.into(), statistic.into());
        let decided = by_seed.len() >= ENOUGH && p_value.is_some_and(|p| p < LEVEL);
        let standing = Standing::of(decided, mean);
        Self { claim, figure, statistic, by_seed, mean, interval, p_value, standing, among_all: standing }
    }

    pub fn measured(&self) -> String {
        let seeds = self.by_seed.len();
        match self.interval {
            Some([low, high]) => format!("{}: {:.3} [{low:.3}, {high:.3}], {seeds} seeds", self.statistic, self.mean),
            None => format!("{}: {:.3}, one seed", self.statistic, self.mean),
        }
    }
}

impl Standing {
    fn of(decided: bool, mean: f64) -> Self {
        match decided {
            true if mean > 0.0 => Self::Held,
            true if mean < 0.0 => Self::NotHeld,
            _ => Self::Undecided,
        }
    }
}

const ANY: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// By how much `a`'s point is better than `b`'s at the weight where that is least, each at its own weight: above 0, `a` dominates, whatever is
/// asked for. Points are those that were asked for, not the best of all, which noise would choose.
fn domination(a: &Method, b: &Method) -> f64 {
    let gain = |p: &Point| {
        let other = b.points.iter().find(|q| q.weights.is_near(&p.weights))?;
        Some(p.weights.dot(&p.rewards) - p.weights.dot(&other.rewards))
    };
    a.points.iter().filter_map(gain).fold(f64::INFINITY, f64::min)
}

/// Each objective's reward at its largest weight, mean over objectives.
fn highest(m: &Method) -> f64 {
    let most = |k: usize| {
        let by_weight = |a: &&Point, b: &&Point| a.weights.values()[k].total_cmp(&b.weights.values()[k]);
        m.points.iter().max_by(by_weight).map_or(0.0, |p| p.rewards[k])
    };
    mean(&(0..m.points[0].rewards.len()).map(most).collect::<Vec<_>>())
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

/// Ends that lie closer together than this are one.
const APART: f64 = 0.1;

/// The share of weights whose point lies at one of the two ends: within a tenth of the distance between the points of the first and the last
/// weight. 0 where these are one.
fn at_the_ends(m: &Method) -> f64 {
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
    let (Some(first), Some(last)) = (m.points.first(), m.points.last()) else { return 0.0 };
    let near = distance(&first.rewards, &last.rewards) / 10.0;
    if near < APART / 10.0 {
        return 0.0;
    }
    let ends = |p: &&Point| distance(&p.rewards, &first.rewards) <= near || distance(&p.rewards, &last.rewards) <= near;
    m.points.iter().filter(ends).count() as f64 / m.points.len() as f64
}

/// What an objective gains from weight 0 to weight 1, mean over objectives.
fn steered(m: &Method) -> f64 {
    let gain = |k: usize| {
        let by_weight = |a: &&Point, b: &&Point| a.weights.values()[k].total_cmp(&b.weights.values()[k]);
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
        fronts(seeds, task, &mut out);
        smaller(seeds, task, &mut out);
        answers(seeds, task, &mut out);
        alphas(seeds, task, &mut out);
        epochs(seeds, task, &mut out);
    }
    let p_values: Vec<f64> = out.iter().map(|c| c.p_value.unwrap_or(1.0)).collect();
    for (claim, left) in out.iter_mut().zip(holm(&p_values, LEVEL)) {
        claim.among_all = if left { claim.standing } else { Standing::Undecided };
    }
    out
}

/// A number per seed, if all seeds have the methods: `f` of the two stages' methods.
fn between(seeds: &[Seed], a: &str, b: &str, f: impl Fn(&Method, &Method) -> f64) -> Option<Vec<f64>> {
    seeds.iter().map(|s| Some(f(&s.methods.get(a)?.1, &s.methods.get(b)?.1))).collect()
}

/// Figure 2.
fn fronts(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let id = |method: &str| format!("{task}_fig2_{method}");
    for (method, name) in OTHERS.into_iter().filter(|(method, _)| *method != "odpo_soups") {
        let values = between(seeds, &id("mo_odpo"), &id(method), domination);
        let claim = format!("{task}: MO-ODPO's front dominates {name}'s");
        let statistic = "gain at the weight where it is least";
        out.extend(values.map(|v| Claim::everywhere(claim, "fig2", statistic, ANY, v)));
    }
    let mut claim = |what: &str, statistic: &str, values: Option<Vec<f64>>| {
        out.extend(values.map(|v| Claim::new(format!("{task}: {what}"), "fig2", statistic, ANY, v)));
    };
    let reached = between(seeds, &id("odpo_soups"), &id("mo_odpo"), |a, b| highest(a) - highest(b));
    claim(
        "ODPO Soups reach higher single rewards than MO-ODPO",
        "difference at each objective's largest weight",
        reached,
    );
    let gained = between(seeds, &id("mo_odpo"), &id("p_morl"), |a, b| steered(a) - steered(b));
    claim("P-MORL is less steerable than MO-ODPO", "difference of gains from weight 0 to 1", gained);
}

/// The least over what MO-ODPO is compared with, by seed; nothing if a stage is missing.
fn least(seeds: &[Seed], of: impl Fn(&Seed, &str) -> Option<f64>) -> Option<Vec<f64>> {
    let over = |seed: &Seed| OTHERS.iter().try_fold(f64::INFINITY, |low, (m, _)| Some(low.min(of(seed, m)?)));
    seeds.iter().map(over).collect()
}

/// Figure 3.
fn smaller(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let volume = |seed: &Seed, method: &str| Some(seed.methods.get(&format!("{task}_fig3_{method}"))?.1.hypervolume);
    let values = least(seeds, |seed, method| Some(volume(seed, "mo_odpo")? - volume(seed, method)?));
    let claim = format!("{task}, smaller policy: MO-ODPO has the largest front");
    out.extend(values.map(|v| Claim::everywhere(claim, "fig3", "hypervolume less the largest other one", ANY, v)));
}

/// Figure 4, by the paper's rule, and by the weighted gold scores of the same answers, where the task has some.
fn answers(seeds: &[Seed], task: &str, out: &mut Vec<Claim>) {
    let stage = format!("{task}_fig4");
    let rate = |seed: &Seed, method: &str| {
        let (_, against) = seed.methods.get(&format!("{task}_fig2_{method}"))?;
        Some(seed.matches.get(&stage)?.iter().find(|m| m.against == against.name)?.win_rate_half - 0.5)
    };
    let claim = format!("{task}: MO-ODPO wins more often than each other method");
    let statistic = "lowest win rate (a tie is half) minus 0.5";
    out.extend(least(seeds, rate).map(|v| Claim::everywhere(claim, "fig4", statistic, [-0.5, 0.5], v)));
    let gold = |seed: &Seed, method: &str| {
        let of = |method: &str| weighted_gold(seed, &format!("{task}_fig2_{method}"));
        Some(of("mo_odpo")? - of(method)?)
    };
    let claim = format!("{task}: MO-ODPO's answers have more weighted gold than each other method's");
    let statistic = "least difference of w·gold, mean of w = (0.8, 0.2) and (0.2, 0.8)";
    out.extend(least(seeds, gold).map(|v| Claim::everywhere(claim, "fig4", statistic, ANY, v)));
}

/// The mean of the watched gold scores, weighted, at the weights of Figure 4; nothing where there is not one for each objective.
fn weighted_gold(seed: &Seed, id: &str) -> Option<f64> {
    let scales = seed.plan.stage(id)?.rewards()?;
    let rewards = seed.plan.stage(&scales)?.work.downcast_ref::<Rewards>()?;
    let gold: Vec<&String> =
        rewards.sources.iter().filter(|s| s.watch && s.source.name == "gold").map(|s| &s.name).collect();
    let (objectives, method) = seed.methods.get(id)?;
    let at = |w: [f64; 2]| {
        let near = |p: &&Point| p.weights.values().iter().zip(w).all(|(a, b)| (a - b).abs() < 1e-6);
        let point = method.points.iter().find(near)?;
        let scores: Option<Vec<f64>> = gold.iter().map(|name| point.watched.get(*name).copied()).collect();
        Some(point.weights.dot(&scores?))
    };
    if gold.len() != objectives.len() || objectives.len() != 2 {
        return None;
    }
    Some((at([0.8, 0.2])? + at([0.2, 0.8])?) / 2.0)
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
            ANY,
            values(&|a, b| extent(a) - extent(b)),
        ));
    } else {
        let claim = format!("{task}: the lowest alpha has more of its weights in two modes than the highest");
        let statistic = "share of weights at the two ends, at the lowest alpha minus at the highest";
        let ends = |a: &Method, b: &Method| at_the_ends(a) - at_the_ends(b);
        out.push(Claim::new(claim, "fig5", statistic, [-1.0, 1.0], values(&ends)));
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
        out.push(Claim::new(claim, "fig6", "extent after the last epoch minus after the first", ANY, values));
    }
    let volume = |m: &Method| m.hypervolume;
    if let (Some(ours), Some(ric)) = (growth("fig6", volume), growth("fig6ric", volume)) {
        let claim = format!("{task}: RiC's front grows less with epochs than MO-ODPO's");
        let values = ours.iter().zip(&ric).map(|(a, b)| a - b).collect();
        out.push(Claim::new(claim, "fig6", "growth of the hypervolume, MO-ODPO's minus RiC's", ANY, values));
    }
}

#[cfg(test)]
mod tests;
