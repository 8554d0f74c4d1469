//! GGUF files become folders that tokenize, answer and end as llama.cpp does (goldens from tests/goldens/gguf_files.py and gguf.mjs), or are
//! refused by the name of what would be lost.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use motrain_core::Prompt;
use motrain_engine::import::import;
use motrain_engine::model::{Mask, Model, Net};
use motrain_engine::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn check(name: &str, texts: &[String], golden: &Value) {
    let folder = tempfile::tempdir().unwrap();
    import(&root().join("fixtures/gguf").join(name), folder.path()).unwrap();
    let model = Model::load(folder.path(), Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(folder.path(), &model.config).unwrap();
    let tokens: Vec<Vec<u32>> = of(&golden["tokens"]);
    let found: Vec<Vec<u32>> = texts.iter().map(|t| tokenizer.encode_prompt(&Prompt::user(t)).unwrap()).collect();
    assert_eq!(found, tokens, "{name}: tokens");
    let (mut ends, wanted): (Vec<u32>, Vec<u32>) = (tokenizer.eos.clone(), of(&golden["ends"]));
    ends.sort_unstable();
    assert_eq!(ends, wanted, "{name}: tokens that end an answer");
    let shown: Vec<String> = of(&golden["shown"]);
    for ((ids, text_of), wanted) in tokens.iter().zip(texts).zip(&shown) {
        let ids = if ids.len() > 1 && ids[0] == 2 { &ids[1..] } else { ids };
        assert_eq!(tokenizer.decode(ids).unwrap(), *wanted, "{name}: {text_of}");
    }
    let net = no_grad(|| model.net(Kind::Float)).unwrap();
    let quantised = ["q8_0", "q4_0", "q4_1"].iter().any(|kind| name.starts_with(kind));
    for (prompt, answer) in tokens.iter().zip(of::<Vec<Vec<u32>>>(&golden["answers"])) {
        let worst = behind(&net, prompt, &answer);
        assert!(worst < if quantised { 0.3 } else { 0.05 }, "{name}: an answer is behind the best by {worst}");
    }
}

/// How far the logit of a greedy answer's token lies at most behind the best. llama.cpp multiplies in 16 bits and, for quantised files, in 8;
/// logits are about 2 apart.
fn behind(net: &Net, prompt: &[u32], answer: &[u32]) -> f64 {
    let ids: Vec<i64> = prompt.iter().chain(answer).map(|&id| i64::from(id)).collect();
    let (first, count) = (prompt.len() as i64 - 1, answer.len() as i64);
    let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let logits = no_grad(|| {
        let hidden = net.hidden(&Tensor::from_slice(&ids).unsqueeze(0), &positions, &Mask::Causal, None)?;
        net.head(&hidden.select(0, 0).narrow(0, first, count))
    });
    let logits = logits.unwrap();
    let chosen = Tensor::from_slice(&ids[prompt.len()..]).unsqueeze(1);
    let gaps = logits.amax(1, true) - logits.gather(1, &chosen, false);
    f64::try_from(gaps.max()).unwrap()
}

#[test]
fn files_are_read_as_llama_cpp_reads_them() {
    let goldens: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("goldens/gguf.json")).unwrap()).unwrap();
    let files = goldens["files"].as_object().unwrap();
    assert!(files.len() >= 18);
    for (name, golden) in files {
        check(name, &of::<Vec<String>>(&goldens["texts"]), golden);
    }
}

#[test]
fn what_would_be_lost_is_refused_by_its_name() {
    let mut refused = 0;
    for entry in std::fs::read_dir(root().join("fixtures/gguf")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(word) = name.strip_prefix("refused-").and_then(|n| n.strip_suffix(".gguf")) else { continue };
        let folder = tempfile::tempdir().unwrap();
        let message = import(&entry.path(), folder.path()).unwrap_err().to_string();
        // The file's own name holds the word too.
        let said = message.replace(&name, "");
        assert!(said.contains(word), "{message}");
        refused += 1;
    }
    assert_eq!(refused, 6);
}
