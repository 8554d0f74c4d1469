use super::*;
use motrain_core::Weights;
use motrain_core::metrics::report::Scored;
use motrain_engine::plan::Plan;
use motrain_engine::stage::compare::Match;
use std::collections::BTreeMap;

#[test]
fn three_seeds_decide_and_one_does_not() {
    let standing = |values: &[f64]| Claim::new("c".into(), "fig2", "s", values.to_vec()).standing;
    assert_eq!(standing(&[0.2]), Standing::Undecided);
    assert_eq!(standing(&[0.2, 0.21]), Standing::Undecided);
    assert_eq!(standing(&[0.2, 0.21, 0.19]), Standing::Held);
    assert_eq!(standing(&[-0.2, -0.21, -0.19]), Standing::NotHeld);
    assert_eq!(standing(&[0.2, -0.21, 0.3]), Standing::Undecided);
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
        let grown =
            |points: &[[f64; 2]]| points.iter().map(|p| p.map(|r| r * (1.0 + seed as f64 * 1e-3))).collect::<Vec<_>>();
        let method = |(id, points): &(&str, &[[f64; 2]])| ((*id).to_owned(), (vec![], front(&grown(points))));
        let methods = stages.iter().map(method).collect();
        Seed { seed, run: "r".into(), plan: plan.clone(), methods, matches: BTreeMap::new() }
    };
    (0..3).map(run).collect()
}

/// The standing on each claim, by its beginning.
fn standings(seeds: &[Seed], claims: &[&str]) -> Vec<Standing> {
    let all = all(seeds);
    let of =
        |claim: &&str| all.iter().find(|c| c.claim.contains(*claim)).unwrap_or_else(|| panic!("no {claim}")).standing;
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
    assert_eq!(standings(&stages(&LINE, &INNER, &ARC, &POINT), &claims), [Standing::Held; 4]);
    assert_eq!(standings(&stages(&INNER, &LINE, &POINT, &ARC), &claims[..2]), [Standing::NotHeld; 2]);
    assert_eq!(standings(&stages(&ARC, &LINE, &POINT, &ARC), &claims[2..3]), [Standing::NotHeld]);
    assert_eq!(standings(&stages(&POINT, &LINE, &POINT, &ARC), &claims[3..]), [Standing::NotHeld]);
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
    assert_eq!(standings(&made(&hh), &[even]), [Standing::Held]);
    let other = [of(&ARC, &ARC, &ENDS, "hh_fig5")];
    assert_eq!(standings(&made(&other), &[even]), [Standing::NotHeld]);
    let tldr = [
        of(&ARC, &ARC, &POINT, "tldr_fig5"),
        of(&POINT, &POINT, &ARC, "tldr_fig6"),
        of(&LINE, &ARC, &LINE, "tldr_fig6ric"),
    ];
    let held = standings(&made(&tldr), &[point, wider, growth]);
    assert_eq!(held, [Standing::Held; 3]);
    let back = [
        of(&POINT, &POINT, &ARC, "tldr_fig5"),
        of(&ARC, &ARC, &POINT, "tldr_fig6"),
        of(&LINE, &ARC, &LINE, "tldr_fig6ric"),
    ];
    assert_eq!(standings(&made(&back), &[point, wider, growth]), [Standing::NotHeld; 3]);
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
        standings(
            &seeds,
            &["wins more often than RiC", "wins more often than P-MORL", "wins least often against P-MORL"],
        )
    };
    use Standing::{Held, NotHeld};
    assert_eq!(compared([("RiC", 0.7), ("P-MORL", 0.6), ("ODPO Soups", 0.8)]), [Held, Held, Held]);
    assert_eq!(compared([("RiC", 0.3), ("P-MORL", 0.4), ("ODPO Soups", 0.8)]), [NotHeld, NotHeld, NotHeld]);
}
