//! Label rules.

use super::{Trials, same};
use motrain_core::Weights;
use motrain_core::label::{Label, LabelRule};

pub fn label(t: &mut Trials, rule: &dyn LabelRule, again: &dyn LabelRule) {
    let cases: [([f64; 2], [f64; 2]); 5] = [
        ([0.9, 0.1], [0.2, 0.3]),
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([1e300, 0.0], [-1e300, 0.0]),
        ([1e-300, 0.0], [0.0, 0.0]),
    ];
    let all = |rule: &dyn LabelRule| -> Result<Vec<[Label; 2]>, String> {
        let weights = Weights::new(vec![0.7, 0.3]).map_err(|e| e.to_string())?;
        let one = |a: &[f64], b: &[f64]| rule.label(&weights, a, b).map_err(|e| e.to_string());
        cases.iter().map(|(a, b)| Ok([one(a, b)?, one(b, a)?])).collect()
    };
    let Some(labels) = t.value("labels", || all(rule), |l| format!("{} pairs", l.len())) else { return };
    let fair = |pair: &[Label; 2]| match pair {
        [Label::First(p), Label::First(q)] => (p + q - 1.0).abs() < 1e-9,
        [Label::Tie, Label::Tie] => true,
        _ => false,
    };
    t.run("swapped pairs", || {
        if labels.iter().all(fair) {
            Ok("the other way round".into())
        } else {
            Err("p(a, b) + p(b, a) is not 1".into())
        }
    });
    t.run("repeatable", || all(again).and_then(|l| same(l, labels.clone())));
}
