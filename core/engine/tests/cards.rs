//! The templates that docs/models.md gives for reward models without one write what the models' cards say, and such a model scores what
//! transformers scores of that text (goldens from tests/goldens/cards.py).

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use motrain_core::reward::Sample;
use motrain_core::{Prompt, Registry};
use motrain_engine::model::Config;
use motrain_engine::reward::encode_for_reward;
use motrain_engine::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a `const` of docs/models.md. Rhai writes such texts as JSON does.
fn template(name: &str) -> String {
    let docs = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    let start = format!("const {name} = ");
    let line = docs.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {start}"));
    serde_json::from_str(line.strip_suffix(';').unwrap()).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let goldens = std::fs::read(root().join("tests/goldens/cards.json")).unwrap();
    let all: Value = serde_json::from_slice(&goldens).unwrap();
    let cases = all[name].as_array().unwrap().clone();
    assert!(cases.iter().any(|case| case["messages"].as_array().unwrap().len() > 1));
    cases
}

fn prompt(case: &Value) -> Prompt {
    Prompt { messages: serde_json::from_value(case["messages"].clone()).unwrap() }
}

#[track_caller]
fn compare(name: &str, folder: &str) {
    let (folder, template) = (root().join("tests/fixtures").join(folder), template(name));
    let config = Config::load(&folder).unwrap();
    let tokenizer = Tokenizer::load(&folder, &config).unwrap().with_template(Some(&template)).unwrap();
    let mut registry = Registry::builtin();
    motrain_engine::reward::register(&mut registry, "cpu", "f32").unwrap();
    let model = registry.rewards.build("reward_model", &json!({ "model": folder, "template": template })).unwrap();
    for case in cases(name) {
        let (prompt, answer, finished) =
            (prompt(&case), case["answer"].as_str().unwrap(), case["finished"].as_bool().unwrap());
        let (asked, answered) = encode_for_reward(&tokenizer, &prompt, (answer, finished), 512).unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let found = [asked, answered].concat();
        let said = tokenizer.decode(&found).unwrap();
        assert!(found == ids, "{name} writes {said:?} ({found:?}), the card {} ({ids:?})", case["text"]);
        let score =
            model.score(&[Sample { prompt: &prompt, completion: answer, finished, row: &json!({}) }]).unwrap()[0];
        let wanted = case["score"].as_f64().unwrap();
        assert!((score - wanted).abs() < 1e-4, "{name}: {score} instead of {wanted} of {}", case["text"]);
    }
}

#[test]
fn the_template_of_ray2333s_models_is_their_cards() {
    compare("HH", "mixed/reward");
}

#[test]
fn the_template_of_beavers_models_is_their_cards() {
    compare("BEAVER", "cards/beaver");
}
