use super::*;
use motrain_core::Weights;
use motrain_core::metrics::report::Scored;
use motrain_engine::plan::Plan;
use motrain_engine::stage::compare::Match;
use std::collections::BTreeMap;

#[test]
fn three_seeds_decide_and_one_does_not() {
    let claim = |values: &[f64]| Claim::new("c".into(), "fig2", "s", [-1.0, 1.0], values.to_vec());
    let standing = |values: &[f64]| claim(values).standing;
    assert_eq!(standing(&[0.2]), Standing::Undecided);
    assert_eq!(standing(&[0.2, 0.21]), Standing::Undecided);
    assert_eq!(standing(&[0.2, 0.21, 0.19]), Standing::Held);
    assert_eq!(standing(&[-0.2, -0.21, -0.19]), Standing::NotHeld);
    assert_eq!(standing(&[0.2, -0.21, 0.3]), Standing::Undecided);
    // What cannot be is in no interval.
    assert_eq!(claim(&[0.9, -0.5, 0.8]).interval.unwrap()[1], 1.0);
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
    near(domination(&front(&ARC), &front(&LINE)), 0.2);
    near(domination(&front(&LINE), &front(&ARC)), -0.25);
    near(domination(&front(&ARC), &front(&ARC)), 0.0);
    // Farther out in the middle, but not at the ends.
    near(
        domination(&front(&[[0.1, 0.9], [0.8, 0.8], [0.9, 0.1]]), &front(&[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])),
        -0.1,
    );
    near(highest(&front(&LINE)), 0.8);
    near(highest(&front(&WRONG)), 0.0);
    near(at_the_ends(&front(&ENDS)), 1.0);
    near(at_the_ends(&front(&POINT)), 0.0);
    near(at_the_ends(&front(&LINE)), 0.4);
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
        "hh: MO-ODPO's front dominates Rewarded Soups's",
        "hh: MO-ODPO's front dominates RiC's",
        "hh: ODPO Soups reach higher single rewards",
        "hh: P-MORL is less steerable",
        "hh, smaller policy: MO-ODPO has the largest front",
    ];
    let stages = |ours, others, wide, blind| {
        let of = |figure: &str| {
            [("mo_odpo", ours), ("rewarded_soups", others), ("ric", others), ("odpo_soups", wide), ("p_morl", blind)]
                .map(|(method, points)| (format!("hh_{figure}_{method}"), points))
        };
        let all: Vec<Stage> = [of("fig2"), of("fig3")].concat();
        runs(&all.iter().map(|(id, points)| (id.as_str(), *points)).collect::<Vec<_>>())
    };
    use Standing::{Held, NotHeld, Undecided};
    assert_eq!(standings(&stages(&LINE, &INNER, &ARC, &POINT), &claims), [Held, Held, Held, Held, Undecided]);
    let otherwise = [Undecided, Undecided, NotHeld, NotHeld, Undecided];
    assert_eq!(standings(&stages(&LINE, &ARC, &POINT, &ARC), &claims), otherwise);
    assert_eq!(standings(&stages(&ARC, &LINE, &POINT, &INNER), &claims), [Held, Held, NotHeld, Held, Held]);
}

/// A verdict that would be there alone is not there among others that are as likely by chance.
#[test]
fn many_claims_are_held_to_more() {
    let mut seeds = runs(&[("hh_fig2_mo_odpo", &LINE), ("hh_fig2_p_morl", &INNER), ("hh_fig2_ric", &INNER)]);
    // P-MORL gains 1.45, 1.5 and 1.62 times what INNER does: a difference from LINE that is clear alone.
    let grown = |by: f64| front(&INNER.map(|p| p.map(|r| r * by)));
    for (seed, by) in seeds.iter_mut().zip([1.45, 1.5, 1.62]) {
        seed.methods.get_mut("hh_fig2_p_morl").unwrap().1 = grown(by);
    }
    let all = all(&seeds);
    let found = all.iter().find(|c| c.claim.contains("less steerable")).unwrap();
    assert!((0.02..0.05).contains(&found.p_value.unwrap()), "{:?}", found.p_value);
    assert_eq!((found.standing, found.among_all), (Standing::Held, Standing::Undecided));
    let certain = all.iter().find(|c| c.claim.contains("dominates RiC")).unwrap();
    assert_eq!(certain.among_all, Standing::Held);
}

/// With more than ten alphas or epochs the last is not the last as text: "9" comes after "11".
#[test]
fn figures_compare_the_first_with_the_last_by_number() {
    let modes = "hh: the lowest alpha has more of its weights in two modes";
    let point = "tldr: the highest alpha's points lie closer together";
    let wider = "tldr: MO-ODPO's front widens with epochs";
    let growth = "tldr: RiC's front grows less with epochs";
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
    let share = |seeds: &[Seed]| all(seeds).iter().find(|c| c.claim.contains(modes)).unwrap().mean;
    // All five at the ends, against two of five.
    assert!((share(&made(&hh)) - 0.6).abs() < 1e-9);
    let other = [of(&ARC, &ARC, &ENDS, "hh_fig5")];
    assert!((share(&made(&other)) + 0.6).abs() < 1e-9);
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
fn the_lowest_win_rate_decides() {
    let compared = |rates: [f64; 4]| {
        let stages = ["mo_odpo", "rewarded_soups", "odpo_soups", "p_morl", "ric"].map(|m| format!("hh_fig2_{m}"));
        let mut seeds = runs(&stages.each_ref().map(|id| (id.as_str(), POINT.as_slice())));
        for seed in &mut seeds {
            for (id, (_, method)) in &mut seed.methods {
                method.name = id.clone();
            }
            let one = |(against, rate): (&String, f64)| Match {
                method: "MO-ODPO".into(),
                against: against.clone(),
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
            seed.matches.insert("hh_fig4".into(), stages[1..].iter().zip(rates).map(one).collect());
        }
        standings(&seeds, &["wins more often than each other method"])
    };
    assert_eq!(compared([0.7, 0.6, 0.8, 0.55]), [Standing::Held]);
    assert_eq!(compared([0.7, 0.3, 0.8, 0.9]), [Standing::Undecided]);
}

/// Gold scores by the order of the objectives, whatever their names.
#[test]
fn weighted_gold_decides_beside_the_rule() {
    let sources = serde_json::json!([
        { "name": "A", "source": { "name": "length" } }, { "name": "B", "source": { "name": "length" } },
        { "name": "z gold first", "source": { "name": "gold", "options": { "score": "hh_helpful" } }, "watch": true },
        { "name": "a gold second", "source": { "name": "gold", "options": { "score": "hh_harmless" } }, "watch": true },
    ]);
    let rewards = serde_json::json!({
        "id": "scales", "kind": "rewards", "sources": sources, "policy": "p", "prompts": { "paths": ["x"] },
    });
    let stage = |id: &str| {
        serde_json::json!({ "id": id, "kind": "evaluate", "name": "m", "policy": "p", "rewards": "scales",
            "conditioner": { "name": "none" }, "prompts": { "paths": ["x"] } })
    };
    let stages = ["mo_odpo", "rewarded_soups", "odpo_soups", "p_morl", "ric"].map(|m| format!("hh_fig2_{m}"));
    let made = |ours: f64| {
        let mut seeds = runs(&stages.each_ref().map(|id| (id.as_str(), ARC.as_slice())));
        for seed in &mut seeds {
            let list: Vec<_> = std::iter::once(rewards.clone()).chain(stages.iter().map(|id| stage(id))).collect();
            let plan = serde_json::json!({ "name": "p", "seed": 0, "device": "cpu", "dtype": "f32", "stages": list });
            seed.plan = serde_json::from_value(plan).unwrap();
            for (id, (objectives, method)) in &mut seed.methods {
                *objectives = vec!["A".into(), "B".into()];
                let better = if id.ends_with("mo_odpo") { ours } else { 0.0 } + seed.seed as f64 * 1e-4;
                method.points = [0.2, 0.8]
                    .map(|w| {
                        let watched = [("z gold first".to_owned(), w + better), ("a gold second".to_owned(), 1.0 - w)];
                        Point {
                            weights: Weights::new(vec![w, 1.0 - w]).unwrap(),
                            watched: watched.into(),
                            ..method.points[0].clone()
                        }
                    })
                    .into();
            }
        }
        let of = weighted_gold(&seeds[0], "hh_fig2_ric").unwrap();
        // (0.2 · 0.2 + 0.8 · 0.8 + 0.8 · 0.8 + 0.2 · 0.2) / 2
        assert!((of - 0.68).abs() < 1e-12, "{of}");
        standings(&seeds, &["more weighted gold than each other method's"])
    };
    assert_eq!((made(0.1), made(-0.1)), (vec![Standing::Held], vec![Standing::Undecided]));
}
