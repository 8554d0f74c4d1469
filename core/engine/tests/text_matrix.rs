//! Small model folders are read as transformers reads them, or refused where it refuses: rendered prompts, token ids, decoded text,
//! greedy answers (goldens from tests/goldens/text_matrix.py). A saved folder is read as the one that it was loaded from.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use motrain_core::{Message, Prompt};
use motrain_engine::decode::rollout;
use motrain_engine::files::Beside;
use motrain_engine::model::{Config, Model};
use motrain_engine::plan::GenerationConfig;
use motrain_engine::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, no_grad};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `base` with the fields of `over` in their place.
fn laid_over(mut base: Value, over: Option<&Value>) -> String {
    let none = Map::new();
    for (key, value) in over.and_then(Value::as_object).unwrap_or(&none) {
        base[key] = value.clone();
    }
    base.to_string()
}

/// Writes the folder of a case: the base's tokenizer and model with the case's files.
fn write(case: &Value, folder: &Path) {
    let base = goldens().join("text_matrix");
    let files = case["files"].as_object().unwrap();
    std::fs::copy(base.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let tokenizer = json(&base.join(format!("{}.json", case["base"].as_str().unwrap())));
    std::fs::write(folder.join("tokenizer.json"), laid_over(tokenizer, files.get("tokenizer.json"))).unwrap();
    let config = json(&base.join("config.json"));
    std::fs::write(folder.join("config.json"), laid_over(config, files.get("config.json"))).unwrap();
    for (name, content) in files.iter().filter(|(name, _)| !["tokenizer.json", "config.json"].contains(&name.as_str()))
    {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.as_str().map_or_else(|| content.to_string(), str::to_owned)).unwrap();
    }
}

fn load(folder: &Path) -> motrain_engine::Result<Tokenizer> {
    Tokenizer::load(folder, &Config::load(folder)?)
}

fn conversation(turns: &Value) -> Prompt {
    let turn = |t: &Value| Message { role: t[0].as_str().unwrap().into(), content: t[1].as_str().unwrap().into() };
    Prompt { messages: turns.as_array().unwrap().iter().map(turn).collect() }
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What differs from transformers in one folder.
fn differences(tokenizer: &Tokenizer, golden: &Value, expected: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: String, found: String, expected: String| {
        if found != expected {
            let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
            let near = |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
            wrong.push(format!("{what}\n  here         {}\n  transformers {}", near(&found), near(&expected)));
        }
    };
    for (at, row) in expected["conversations"].as_array().unwrap().iter().enumerate() {
        let prompt = conversation(&golden["conversations"][at]);
        if let Some(reason) = row["refuses"].as_str() {
            let error = tokenizer.render(&prompt).unwrap_err().to_string();
            same(format!("prompt {at}: refusal"), error.contains(reason).to_string(), "true".into());
            continue;
        }
        if let Some(rendered) = row["rendered"].as_str() {
            same(format!("prompt {at}: text"), format!("{:?}", tokenizer.render(&prompt)), format!("Ok({rendered:?})"));
        }
        let found = format!("{:?}", tokenizer.encode_prompt(&prompt));
        same(format!("prompt {at}: tokens"), found, format!("Ok({:?})", ids(&row["ids"])));
        if row["whole_ids"].is_array() {
            let whole = tokenizer.encode_conversation(&prompt, golden["answer"].as_str().unwrap(), true);
            let whole = whole.map(|(prompt, answer)| [prompt, answer].concat());
            same(format!("prompt {at}: whole"), format!("{whole:?}"), format!("Ok({:?})", ids(&row["whole_ids"])));
        }
    }
    let decoded = tokenizer.decode(&ids(&expected["decoded"][0])).unwrap();
    same("decoded".into(), decoded, expected["decoded"][1].as_str().unwrap().into());
    wrong
}

#[test]
fn folders_are_read_as_transformers_reads_them() {
    let golden = json(&goldens().join("text_matrix.json"));
    let mut wrong = Vec::new();
    let cases = golden["cases"].as_array().unwrap();
    for case in cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let folder = tempfile::tempdir().unwrap();
        write(case, folder.path());
        match (load(folder.path()), expected["refused"].as_str()) {
            (Err(_), Some(_)) => {}
            (Ok(_), Some(reason)) => wrong.push(format!("{name}: transformers refuses: {reason}")),
            (Err(e), None) => wrong.push(format!("{name}: refused: {e}")),
            (Ok(tokenizer), None) => {
                wrong.extend(differences(&tokenizer, &golden, expected).iter().map(|d| format!("{name}: {d}")));
                let again = tempfile::tempdir().unwrap();
                std::fs::copy(folder.path().join("config.json"), again.path().join("config.json")).unwrap();
                tokenizer.save(again.path()).unwrap();
                let saved = load(again.path()).unwrap();
                wrong.extend(differences(&saved, &golden, expected).iter().map(|d| format!("{name}, saved: {d}")));
                assert_eq!((saved.eos, saved.pad), (tokenizer.eos, tokenizer.pad), "{name}: saved");
            }
        }
    }
    assert!(cases.len() >= 60, "the matrix has only {} folders", cases.len());
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn answers_end_where_they_end_in_transformers() {
    let golden = json(&goldens().join("text_matrix.json"));
    let greedy = GenerationConfig { temperature: 0.0, max_new_tokens: 12, ..GenerationConfig::default() };
    for case in golden["cases"].as_array().unwrap().iter().filter(|c| c["expected"]["answer"].is_object()) {
        let folder = tempfile::tempdir().unwrap();
        write(case, folder.path());
        let model = Model::load(folder.path(), Device::Cpu).unwrap();
        let tokenizer = Tokenizer::load(folder.path(), &model.config).unwrap();
        let net = no_grad(|| model.net(Kind::Float)).unwrap();
        let prompt = tokenizer.encode_prompt(&conversation(&golden["conversations"][0])).unwrap();
        let answer = &rollout(&net, &tokenizer, &[prompt], 1, |_, _| 1, &greedy).unwrap()[0];
        let expected = &case["expected"]["answer"];
        assert_eq!(answer.tokens, ids(&expected["tokens"]), "{}", case["name"]);
        assert_eq!(answer.text, expected["text"].as_str().unwrap(), "{}", case["name"]);
    }
}
