//! Pairwise losses.

use super::{Trials, Tried, same};
use motrain_core::loss::{Other, PairBatch, PairLoss, PairwiseLoss};

fn pairs() -> PairBatch {
    PairBatch {
        policy_first: vec![-40.0, -3.0, -1e4],
        policy_second: vec![-55.0, -3.5, -10.0],
        reference_first: vec![-42.0, -3.0, -10.0],
        reference_second: vec![-50.0, -3.5, -1e4],
        tokens_first: vec![10, 1, 500],
        tokens_second: vec![12, 2, 1],
        label: vec![1.0, 0.7, 0.0],
        weights: vec![0.8, 0.2, 0.5, 0.5, 0.0, 1.0],
        margins: vec![0.4, -0.1, 0.0, 0.0, -1.0, 1.0],
        other: Some(Other {
            policy_first: vec![-41.0, -3.2, -20.0],
            policy_second: vec![-52.0, -3.1, -30.0],
            reference_first: vec![-42.5, -3.0, -11.0],
            reference_second: vec![-50.0, -3.4, -40.0],
        }),
    }
}

pub fn loss(t: &mut Trials, loss: &dyn PairwiseLoss, again: &dyn PairwiseLoss) {
    let evaluate = |l: &dyn PairwiseLoss, p: &PairBatch| l.evaluate(p).map_err(|e| e.to_string());
    let found =
        t.value("ordinary and extreme pairs", || evaluate(loss, &pairs()), |l| format!("losses {:.4?}", l.loss));
    let Some(found) = found else { return };
    t.run("repeatable", || evaluate(again, &pairs()).and_then(|l| same(l, found.clone())));
    t.run("empty batch", || evaluate(loss, &PairBatch::default()).map(|_| "no losses".into()));
    if loss.needs_other() {
        t.run("the same weights everywhere", || {
            evaluate(loss, &PairBatch { other: None, ..pairs() }).map(|l| format!("losses {:.4?}", l.loss))
        });
    }
    t.run("derivatives", || derivatives(|p| evaluate(loss, p), &found));
}

/// Against central differences, where the loss is smooth.
fn derivatives(evaluate: impl Fn(&PairBatch) -> Result<PairLoss, String>, exact: &PairLoss) -> Tried {
    let h = 1e-4;
    let moved = |by: fn(&mut PairBatch) -> Option<&mut Vec<f64>>, step: f64| {
        let mut p = pairs();
        by(&mut p).into_iter().flatten().for_each(|v| *v += step);
        evaluate(&p).map(|l| l.loss)
    };
    type Column = fn(&mut PairBatch) -> Option<&mut Vec<f64>>;
    let columns: [(&str, Column, &[f64]); 4] = [
        ("first", |p| Some(&mut p.policy_first), &exact.d_first),
        ("second", |p| Some(&mut p.policy_second), &exact.d_second),
        ("other_first", |p| p.other.as_mut().map(|o| &mut o.policy_first), &exact.d_other_first),
        ("other_second", |p| p.other.as_mut().map(|o| &mut o.policy_second), &exact.d_other_second),
    ];
    for (side, by, given) in columns {
        let (up, down) = (moved(by, h)?, moved(by, -h)?);
        for i in 0..given.len() {
            let difference = (up[i] - down[i]) / (2.0 * h);
            // Far from 0 the differences themselves are rounded.
            if (difference - given[i]).abs() > 1e-4 * (1.0 + exact.loss[i].abs()) {
                return Err(format!("pair {}: d_{side} is {}, central differences say {difference}", i + 1, given[i]));
            }
        }
    }
    Ok("as central differences".into())
}
