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
