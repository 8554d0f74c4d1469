//! What a reward model is worth on pairs that it did not train on: accuracy and calibration, accuracy of each kind where rows name one (a column
//! `kind`), and on contrasts made of the held-out pairs, whose worse answer most objectives like less: a model
//! that chooses as a coin does may not have read the prompt, or not to the end. Human labels are noise enough to hide that from the accuracy alone.

use motrain_core::data::Pair;
use motrain_core::loss::{neg_log_sigmoid, sigmoid};
use motrain_core::metrics::stats::mean;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The better answers of pairs, each against that of another prompt, and against its own first half.
pub fn contrasts(pairs: &[Pair]) -> Vec<Pair> {
    let against = |pair: &Pair, rejected: String, finished: bool, kind: &str| Pair {
        rejected,
        margin: 0.0,
        finished: [pair.finished[0], finished],
        columns: json!({ "kind": kind }),
        ..pair.clone()
    };
    let elsewhere = pairs.iter().enumerate().filter_map(|(i, pair)| {
        let mut others = pairs[i + 1..].iter().chain(&pairs[..i]);
        let other = others.find(|o| o.prompt.first_user() != pair.prompt.first_user() && o.chosen != pair.chosen)?;
        Some(against(pair, other.chosen.clone(), other.finished[0], "answer to another prompt"))
    });
    let cut = pairs.iter().filter(|pair| pair.finished[0]).filter_map(|pair| {
        let words: Vec<&str> = pair.chosen.split_inclusive(char::is_whitespace).collect();
        let half = words[..words.len() / 2].concat().trim_end().to_owned();
        (!half.is_empty()).then(|| against(pair, half, true, "first half"))
    });
    elsewhere.chain(cut).collect()
}

/// The kind that a pair's row names.
pub fn kind(pair: &Pair) -> Option<String> {
    pair.columns["kind"].as_str().map(str::to_owned)
}

/// The share of margins that are positive.
pub fn accuracy(margins: &[f64]) -> f64 {
    mean(&margins.iter().map(|m| f64::from(u8::from(*m > 0.0))).collect::<Vec<_>>())
}

/// Accuracy and how many pairs, of each kind that is named.
pub fn by_kind<'a>(found: impl Iterator<Item = (Option<&'a str>, f64)>) -> Map<String, Value> {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (kind, margin) in found.filter_map(|(kind, margin)| Some((kind?, margin))) {
        kinds.entry(kind).or_default().push(margin);
    }
    let told = |(kind, margins): (&str, Vec<f64>)| {
        (kind.to_owned(), json!({ "accuracy": accuracy(&margins), "pairs": margins.len() }))
    };
    kinds.into_iter().map(told).collect()
}

/// Accuracy, mean loss and expected calibration error (10 equal bins of the predicted probability, folded to [0.5, 1]).
pub fn quality(margins: &[f64]) -> Value {
    let n = margins.len().max(1) as f64;
    let right = |m: &f64| f64::from(u8::from(*m > 0.0));
    let accuracy = margins.iter().map(right).sum::<f64>() / n;
    let loss = margins.iter().map(|m| neg_log_sigmoid(*m)).sum::<f64>() / n;
    let mut bins = vec![(0.0, 0.0, 0usize); 10];
    for m in margins {
        let confidence = sigmoid(m.abs());
        let bin = &mut bins[(((confidence - 0.5) * 20.0) as usize).min(9)];
        *bin = (bin.0 + confidence, bin.1 + right(m), bin.2 + 1);
    }
    let error = bins.iter().filter(|b| b.2 > 0).map(|b| (b.0 - b.1).abs()).sum::<f64>() / n;
    let table: Vec<_> = bins
        .iter()
        .filter(|b| b.2 > 0)
        .map(|b| json!({"confidence": b.0 / b.2 as f64, "accuracy": b.1 / b.2 as f64, "pairs": b.2}))
        .collect();
    json!({
        "accuracy": accuracy,
        "accuracy_std_error": (accuracy * (1.0 - accuracy) / n).sqrt(),
        "loss": loss,
        "calibration_error": error,
        "calibration": table,
        "pairs": margins.len(),
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use motrain_core::Prompt;
    use motrain_core::data::Place;

    #[test]
    fn quality_of_known_margins() {
        let report = quality(&[2.0, 2.0, 2.0, -2.0]);
        assert_eq!(report["accuracy"], 0.75);
        let confidence = sigmoid(2.0);
        assert!((report["calibration_error"].as_f64().unwrap() - (confidence - 0.75)).abs() < 1e-12);
    }

    #[test]
    fn accuracies_are_told_by_kind() {
        let found = [(Some("cut"), 1.0), (None, -1.0), (Some("cut"), -1.0), (Some("draws"), 0.5)];
        let told = Value::Object(by_kind(found.into_iter()));
        assert_eq!(told, json!({ "cut": { "accuracy": 0.5, "pairs": 2 }, "draws": { "accuracy": 1.0, "pairs": 1 } }));
    }

    #[test]
    fn contrasts_are_answers_of_other_prompts_and_halves() {
        let pair = |prompt: &str, chosen: &str| Pair {
            prompt: Prompt::user(prompt),
            chosen: chosen.into(),
            rejected: "no".into(),
            margin: 1.0,
            columns: json!({}),
            finished: [true, true],
            place: Place { file: 0, line: 1 },
        };
        let made = contrasts(&[pair("a", "one two three"), pair("a", "four"), pair("b", "five six")]);
        let told: Vec<_> = made.iter().map(|p| (kind(p).unwrap(), p.chosen.as_str(), p.rejected.as_str())).collect();
        let of = |kind: &str, chosen: &'static str, rejected: &'static str| (kind.to_owned(), chosen, rejected);
        let other = "answer to another prompt";
        assert_eq!(
            told,
            [
                of(other, "one two three", "five six"),
                of(other, "four", "five six"),
                of(other, "five six", "one two three"),
                of("first half", "one two three", "one"),
                of("first half", "five six", "five"),
            ]
        );
        assert!(made.iter().all(|p| p.margin == 0.0));
    }
}
