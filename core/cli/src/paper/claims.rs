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
pub enum Verdict {
    Held,
    NotHeld,
    Undecided,
}

impl fmt::Display for Verdict {
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
    pub verdict: Verdict,
}

impl Claim {
    fn new(claim: String, figure: &str, statistic: &str, by_seed: Vec<f64>) -> Self {
        let interval = mean_interval(&by_seed);
        let verdict = match interval {
            Some([low, _]) if by_seed.len() >= ENOUGH && low > 0.0 => Verdict::Held,
            Some([_, high]) if by_seed.len() >= ENOUGH && high < 0.0 => Verdict::NotHeld,
            _ => Verdict::Undecided,
        };
        let mean = mean(&by_seed);
        Self { claim, figure: figure.into(), statistic: statistic.into(), by_seed, mean, interval, verdict }
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
mod tests {
    use super::*;
    use motrain_core::Weights;
    use motrain_core::metrics::report::Scored;
    use motrain_engine::plan::Plan;
    use motrain_engine::stage::compare::Match;
    use std::collections::BTreeMap;

    #[test]
    fn three_seeds_decide_and_one_does_not() {
        let verdict = |values: &[f64]| Claim::new("c".into(), "fig2", "s", values.to_vec()).verdict;
        assert_eq!(verdict(&[0.2]), Verdict::Undecided);
        assert_eq!(verdict(&[0.2, 0.21]), Verdict::Undecided);
        assert_eq!(verdict(&[0.2, 0.21, 0.19]), Verdict::Held);
        assert_eq!(verdict(&[-0.2, -0.21, -0.19]), Verdict::NotHeld);
        assert_eq!(verdict(&[0.2, -0.21, 0.3]), Verdict::Undecided);
    }

    /// A method whose points are these at evenly spaced weights.
    fn front(points: &[[f64; 2]]) -> Method {
        let last = (points.len() - 1) as f64;
        let scored: Vec<Scored> = points
            .iter()
            .enumerate()
            .map(|(i, p)| Scored {
                weights: Weights::new(vec![i as f64 / last, 1.0 - i as f64 / last]).unwrap(),
                rewards: p.iter().map(|r| vec![*r]).collect(),
                watched: BTreeMap::new(),
            })
            .collect();
        motrain_core::metrics::report::method("m", &scored, &[0.0, 0.0], 0)
    }

    /// Even and wide; inside it; inside that; wide, but bunched at its ends; a point; wide and even, but the wrong way round.
    const ARC: [[f64; 2]; 5] = [[0.0, 1.0], [0.4, 0.9], [0.7, 0.7], [0.9, 0.4], [1.0, 0.0]];
    const LINE: [[f64; 2]; 5] = [[0.1, 0.8], [0.3, 0.6], [0.45, 0.45], [0.6, 0.3], [0.8, 0.1]];
    const INNER: [[f64; 2]; 5] = [[0.1, 0.5], [0.2, 0.4], [0.3, 0.3], [0.4, 0.2], [0.5, 0.1]];
    const ENDS: [[f64; 2]; 5] = [[0.0, 1.0], [0.02, 0.99], [0.05, 0.97], [0.98, 0.03], [1.0, 0.0]];
    const POINT: [[f64; 2]; 5] = [[0.5, 0.5], [0.51, 0.5], [0.5, 0.49], [0.49, 0.5], [0.5, 0.51]];
    const WRONG: [[f64; 2]; 5] = [[1.0, 0.0], [0.9, 0.4], [0.7, 0.7], [0.4, 0.9], [0.0, 1.0]];

    #[test]
    fn statistics_of_known_fronts() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(dominance(&front(&ARC), &front(&LINE)), 1.0);
        near(dominance(&front(&LINE), &front(&ARC)), -1.0);
        near(dominance(&front(&ARC), &front(&ARC)), 0.0);
        // The ends of one lie outside, the middle of the other.
        near(
            dominance(&front(&[[0.0, 1.0], [0.4, 0.4], [1.0, 0.0]]), &front(&[[0.1, 0.9], [0.6, 0.6], [0.7, 0.1]])),
            -1.0 / 3.0,
        );
        near(extent(&front(&ARC)), 2.0);
        near(extent(&front(&LINE)), 1.4);
        near(steered(&front(&ARC)), 1.0);
        near(steered(&front(&WRONG)), -1.0);
        near(steered(&front(&POINT)), -0.005);
    }

    /// A stage and its front.
    type Stage = (String, &'static [[f64; 2]]);

    /// Three seeds of stages, whose fronts are `points` and `points` slightly grown.
    fn runs(stages: &[(&str, &[[f64; 2]])]) -> Vec<Seed> {
        let plan = serde_json::json!({ "name": "p", "seed": 0, "device": "cpu", "dtype": "f32", "stages": [] });
        let plan: Plan = serde_json::from_value(plan).unwrap();
        let run = |seed: u64| {
            let grown = |points: &[[f64; 2]]| {
                points.iter().map(|p| p.map(|r| r * (1.0 + seed as f64 * 1e-3))).collect::<Vec<_>>()
            };
            let method = |(id, points): &(&str, &[[f64; 2]])| ((*id).to_owned(), (vec![], front(&grown(points))));
            let methods = stages.iter().map(method).collect();
            Seed { seed, run: "r".into(), plan: plan.clone(), methods, matches: BTreeMap::new() }
        };
        (0..3).map(run).collect()
    }

    /// The verdict on each claim, by its beginning.
    fn verdicts(seeds: &[Seed], claims: &[&str]) -> Vec<Verdict> {
        let all = all(seeds);
        let of = |claim: &&str| {
            all.iter().find(|c| c.claim.contains(*claim)).unwrap_or_else(|| panic!("no {claim}")).verdict
        };
        claims.iter().map(of).collect()
    }

    #[test]
    fn fronts_hold_claims_and_the_other_way_round_they_do_not() {
        let claims = [
            "MO-ODPO has a larger front than Rewarded Soups",
            "MO-ODPO dominates more of RiC's front",
            "ODPO Soups' points lie further apart",
            "P-MORL is less steerable",
        ];
        let stages = |ours, others, wide, blind| {
            runs(&[
                ("hh_fig2_mo_odpo", ours),
                ("hh_fig2_rewarded_soups", others),
                ("hh_fig2_ric", others),
                ("hh_fig2_odpo_soups", wide),
                ("hh_fig2_p_morl", blind),
            ])
        };
        assert_eq!(verdicts(&stages(&LINE, &INNER, &ARC, &POINT), &claims), [Verdict::Held; 4]);
        assert_eq!(verdicts(&stages(&INNER, &LINE, &POINT, &ARC), &claims[..2]), [Verdict::NotHeld; 2]);
        assert_eq!(verdicts(&stages(&ARC, &LINE, &POINT, &ARC), &claims[2..3]), [Verdict::NotHeld]);
        assert_eq!(verdicts(&stages(&POINT, &LINE, &POINT, &ARC), &claims[3..]), [Verdict::NotHeld]);
    }

    /// With more than ten alphas or epochs the last is not the last as text: "9" comes after "11".
    #[test]
    fn figures_compare_the_first_with_the_last_by_number() {
        let even = "hh: the lowest alpha spaces its points less evenly";
        let point = "tldr: the highest alpha's points lie closer together";
        let wider = "tldr: MO-ODPO's front widens with epochs";
        let growth = "tldr: RiC plateaus while MO-ODPO goes on growing";
        let of = |first: &'static [[f64; 2]], between: &'static [[f64; 2]], last: &'static [[f64; 2]], id: &str| {
            let at = |i: usize| {
                if i == 0 {
                    first
                } else if i == 11 {
                    last
                } else {
                    between
                }
            };
            (0..12).map(|i| (format!("{id}_{i}"), at(i))).collect::<Vec<_>>()
        };
        let made = |figures: &[Vec<Stage>]| {
            runs(&figures.iter().flatten().map(|(id, points)| (id.as_str(), *points)).collect::<Vec<_>>())
        };
        let hh = [of(&ENDS, &ENDS, &ARC, "hh_fig5")];
        assert_eq!(verdicts(&made(&hh), &[even]), [Verdict::Held]);
        let other = [of(&ARC, &ARC, &ENDS, "hh_fig5")];
        assert_eq!(verdicts(&made(&other), &[even]), [Verdict::NotHeld]);
        let tldr = [
            of(&ARC, &ARC, &POINT, "tldr_fig5"),
            of(&POINT, &POINT, &ARC, "tldr_fig6"),
            of(&LINE, &ARC, &LINE, "tldr_fig6ric"),
        ];
        let held = verdicts(&made(&tldr), &[point, wider, growth]);
        assert_eq!(held, [Verdict::Held; 3]);
        let back = [
            of(&POINT, &POINT, &ARC, "tldr_fig5"),
            of(&ARC, &ARC, &POINT, "tldr_fig6"),
            of(&LINE, &ARC, &LINE, "tldr_fig6ric"),
        ];
        assert_eq!(verdicts(&made(&back), &[point, wider, growth]), [Verdict::NotHeld; 3]);
    }

    #[test]
    fn win_rates_are_held_against_a_half_and_against_each_other() {
        let compared = |rates: [(&str, f64); 3]| {
            let mut seeds = runs(&[("hh_fig4_x", &POINT)]);
            for seed in &mut seeds {
                let one = |(against, rate): &(&str, f64)| Match {
                    method: "MO-ODPO".into(),
                    against: (*against).into(),
                    prompts: 10,
                    wins: 0,
                    losses: 0,
                    none: 10,
                    unjudged: 0,
                    win_rate: 0.0,
                    win_rate_half: rate + seed.seed as f64 * 1e-3,
                    ci: [0.0, 1.0],
                    dimensions: vec![],
                };
                seed.matches.insert("hh_fig4".into(), rates.iter().map(one).collect());
            }
            verdicts(
                &seeds,
                &["wins more often than RiC", "wins more often than P-MORL", "wins least often against P-MORL"],
            )
        };
        use Verdict::{Held, NotHeld};
        assert_eq!(compared([("RiC", 0.7), ("P-MORL", 0.6), ("ODPO Soups", 0.8)]), [Held, Held, Held]);
        assert_eq!(compared([("RiC", 0.3), ("P-MORL", 0.4), ("ODPO Soups", 0.8)]), [NotHeld, NotHeld, NotHeld]);
    }
}
