//! The rules alone, on distributions that are written down.

use super::{EVERY, ONE, REFERENCE, TWO, logits, mixed, near, normal, rule};
use motrain_core::rng::rng;
use motrain_engine::decode::{Divergence, Rule};
use motrain_engine::train::logprob::to_vec;
use rand::Rng as _;
use tch::{Kind, Tensor};

#[test]
fn mod_of_each_divergence() {
    for (divergence, wanted) in [
        (Divergence::ReverseKl, [0.422134, 0.308928, 0.268938]),
        (Divergence::Alpha(1.0), [0.350945, 0.393367, 0.255688]),
        (Divergence::Alpha(0.5), [0.386191, 0.353409, 0.260400]),
        (Divergence::Jsd, [0.403345, 0.344146, 0.252509]),
    ] {
        near(&mixed(rule(divergence), &[&ONE, &TWO], &[0.6, 0.4], Some(&REFERENCE)), &wanted, 1e-6);
    }
    // α → 0 is reverse KL.
    let (small, reverse) = (rule(Divergence::Alpha(1e-4)), rule(Divergence::ReverseKl));
    let of = |rule| mixed(rule, &[&ONE, &TWO], &[0.6, 0.4], None);
    near(&of(small), &of(reverse), 1e-3);
}

#[test]
fn dera_at_each_strength() {
    for (strength, wanted) in [(0.5, [0.604930, 0.250465, 0.144606]), (2.0, [0.842407, 0.114613, 0.042980])] {
        for divergence in EVERY {
            let found = mixed(Rule { strength, ..rule(divergence) }, &[&ONE], &[1.0], Some(&REFERENCE));
            near(&found, &wanted, 1e-6);
        }
    }
}

/// `π_ref^(1−Σλᵢ)·Π πᵢ^λᵢ`, whether a strength or the weights themselves add up to something other than 1.
#[test]
fn strength_and_weights_are_one_formula() {
    let wanted = |powers: [f64; 2]| {
        let rest = 1.0 - powers[0] - powers[1];
        normal((0..3).map(|i| ONE[i].powf(powers[0]) * TWO[i].powf(powers[1]) * REFERENCE[i].powf(rest)))
    };
    for (strength, weights) in
        [(1.0, [0.6, 0.4]), (1.5, [0.6, 0.4]), (1.0, [0.9, 0.6]), (1.0, [1.5, -0.5]), (2.0, [0.3, 0.2])]
    {
        let powers = weights.map(|w| strength * w);
        let found = mixed(Rule { strength, ..rule(Divergence::ReverseKl) }, &[&ONE, &TWO], &weights, Some(&REFERENCE));
        near(&found, &wanted(powers), 1e-6);
    }
    // Of the others, the mix goes as far from the reference as the strength says.
    let divergence = Divergence::Alpha(1.0);
    let mix = mixed(rule(divergence), &[&ONE, &TWO], &[0.6, 0.4], None);
    let found = mixed(Rule { strength: 3.0, ..rule(divergence) }, &[&ONE, &TWO], &[0.6, 0.4], Some(&REFERENCE));
    near(&found, &normal((0..3).map(|i| mix[i].powi(3) / REFERENCE[i].powi(2))), 1e-6);
}

/// The equations in numbers, of distributions over many tokens, some of them all but impossible.
#[test]
fn rules_hold_in_tails() {
    let mut rng = rng(5, "tails", 0);
    let mut draw = |spread: f64| normal((0..200).map(|_| (spread * rng.random::<f64>()).exp()));
    let (one, two, three, reference) = (draw(40.0), draw(30.0), draw(5.0), draw(20.0));
    let (parts, weights) = ([&one[..], &two, &three], [0.5, 0.2, 0.3]);
    let all =
        |f: &dyn Fn(&[f64; 3], f64) -> f64| normal((0..200).map(|i| f(&[one[i], two[i], three[i]], reference[i])));
    let sum = |p: &[f64; 3], f: &dyn Fn(f64) -> f64| (0..3).map(|k| weights[k] * f(p[k])).sum::<f64>();
    let reverse = all(&|p, _| sum(p, &f64::ln).exp());
    near(&mixed(rule(Divergence::ReverseKl), &parts, &weights, None), &reverse, 1e-5);
    for alpha in [1.0, 0.5] {
        let wanted = all(&|p, _| sum(p, &|q| q.powf(-alpha)).powf(-1.0 / alpha));
        near(&mixed(rule(Divergence::Alpha(alpha)), &parts, &weights, None), &wanted, 1e-5);
    }
    let jsd = all(&|p, r| {
        let g = sum(p, &|q| (2.0 * (q / r) / (1.0 + q / r)).ln());
        r * g.exp() / (2.0 - g.exp())
    });
    near(&mixed(rule(Divergence::Jsd), &parts, &weights, Some(&reference)), &jsd, 1e-4);
}

/// Specialists that are optimal for their rewards, π_k ∝ π₀·exp(R_k/β), mix to what is optimal for the weighted reward.
#[test]
fn exact_specialists_give_the_closed_form() {
    let rewards = [[0.9, 0.1, 0.4, 0.0], [0.2, 0.8, 0.5, 0.3]];
    let (start, beta) = ([0.4, 0.3, 0.2, 0.1], 0.2);
    let optimal = |reward: &dyn Fn(usize) -> f64| normal((0..4).map(|i| start[i] * (reward(i) / beta).exp()));
    let parts: Vec<Vec<f64>> = rewards.iter().map(|r| optimal(&|i| r[i])).collect();
    for w in [0.0, 0.3, 0.5, 1.0] {
        let wanted = optimal(&|i| w * rewards[0][i] + (1.0 - w) * rewards[1][i]);
        let found = mixed(rule(Divergence::ReverseKl), &[&parts[0], &parts[1]], &[w, 1.0 - w], None);
        near(&found, &wanted, 1e-6);
    }
    // Strength λ is training with β/λ.
    let found = mixed(Rule { strength: 2.5, ..rule(Divergence::ReverseKl) }, &[&parts[0]], &[1.0], Some(&start));
    let wanted = normal((0..4).map(|i| start[i] * (2.5 * rewards[0][i] / beta).exp()));
    near(&found, &wanted, 1e-6);
}

#[test]
fn tokens_outside_the_nucleus_of_the_mix_are_not_drawn() {
    let strong = Rule { strength: 3.0, top_p: 0.85, ..rule(Divergence::ReverseKl) };
    // The tail, which the reference calls even less likely, would be lifted to the first place.
    let (aligned, reference) = ([0.6, 0.3, 0.1], [0.5, 0.49999, 0.00001]);
    let free = mixed(Rule { top_p: 1.0, ..strong }, &[&aligned], &[1.0], Some(&reference));
    assert!(free[2] > 0.9, "{free:?}");
    let held = mixed(strong, &[&aligned], &[1.0], Some(&reference));
    near(&held, &normal([0.6f64.powi(3) / 0.25, 0.3f64.powi(3) / 0.49999f64.powi(2), 0.0].into_iter()), 1e-5);
}

/// Impossible tokens of a part without weight stay possible.
#[test]
fn what_a_part_without_weight_rules_out_is_drawn() {
    let parts = [logits(&ONE), Tensor::from_slice(&[f32::NEG_INFINITY, 0.0, 0.0]).unsqueeze(0), logits(&TWO)];
    let shares = Tensor::from_slice(&[0.6f32, 0.0, 0.4, 0.0]).unsqueeze(0);
    for divergence in EVERY {
        let found = rule(divergence).mix(&parts, Some(&logits(&REFERENCE)), &shares).unwrap();
        let found = to_vec(&found.softmax(-1, Kind::Float).view([-1])).unwrap();
        near(&found, &mixed(rule(divergence), &[&ONE, &TWO], &[0.6, 0.4], Some(&REFERENCE)), 1e-6);
    }
}
