//! Token ids and logits of every family against those of transformers (tests/goldens/encoders.py).

use reward_encoder::{Cut, Model, Reading};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Row {
    first: String,
    second: Option<String>,
    cut: String,
    max: usize,
    ids: Vec<u32>,
    logits: Vec<f64>,
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

/// transformers refuses such pairs; a run must go on.
#[test]
fn a_hypothesis_loses_only_what_does_not_fit_by_itself() {
    let model = Model::classifier(&tests().join("fixtures/encoders/bert"), Some(20)).unwrap();
    let ids = |first: &str, second: &str, cut| {
        model.ids(&Reading { first: first.into(), second: Some(second.into()), cut }).unwrap()
    };
    let (short, long) = ("a cat", "word ".repeat(50));
    let pair = ids(&long, &long, Cut::First);
    assert_eq!((pair.len(), &pair[..2]), (20, &[pair[0], pair[19]][..]), "no premise, and a hypothesis of 17 tokens");
    assert_eq!(ids(&long, short, Cut::First).len(), 20);
    assert_eq!(ids(&long, &long, Cut::Second), [&pair[..1], &pair[2..], &pair[19..]].concat());
}

#[test]
fn logits_are_those_of_transformers() {
    let text = std::fs::read_to_string(tests().join("goldens/encoders.json")).unwrap();
    let golden: BTreeMap<String, Vec<Row>> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 9);
    let mut wrong = Vec::new();
    for (name, rows) in &golden {
        let mut apart = 0f64;
        for row in rows {
            let model = Model::classifier(&tests().join("fixtures/encoders").join(name), Some(row.max)).unwrap();
            let cut = match row.cut.as_str() {
                "beginning" => Cut::Beginning,
                "second" => Cut::Second,
                _ => Cut::First,
            };
            let reading = Reading { first: row.first.clone(), second: row.second.clone(), cut };
            let (ids, logits) = (model.ids(&reading).unwrap(), model.logits(&reading).unwrap());
            assert_eq!(ids, row.ids, "{name}: {:?} {:?}", row.first, row.second);
            assert_eq!(logits.len(), row.logits.len());
            apart = logits.iter().zip(&row.logits).map(|(a, b)| (a - b).abs()).fold(apart, f64::max);
        }
        println!("{name}: {apart:.1e}");
        if apart.is_nan() || apart > 1e-4 {
            wrong.push(format!("{name}: {apart}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
