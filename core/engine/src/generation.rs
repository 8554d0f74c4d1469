//! generation_config.json of a Hugging Face folder: how its policy is meant to be sampled.

use crate::Result;
use crate::model::write_json;
use crate::text::read_json;
use motrain_core::plan::Sampling;
use serde_json::{Map, Value, json};
use std::path::Path;

const FILE: &str = "generation_config.json";

/// How the folder says that its policy is sampled; what it does not say is the policy's own distribution, and 128 new tokens.
pub fn sampling(folder: &Path) -> Result<Sampling> {
    let said = read_json(&folder.join(FILE))?.unwrap_or(Value::Null);
    let number = |key: &str, other: f64| said.get(key).and_then(Value::as_f64).unwrap_or(other);
    let count = |key: &str, other: usize| said.get(key).and_then(Value::as_u64).map_or(other, |n| n as usize);
    let greedy = said.get("do_sample") == Some(&Value::Bool(false));
    Ok(Sampling {
        max_new_tokens: count("max_new_tokens", 128),
        temperature: if greedy { 0.0 } else { number("temperature", 1.0) },
        top_k: count("top_k", 0),
        top_p: number("top_p", 1.0),
    })
}

/// Adds to the folder's file how its policy was evaluated. The file is replaced, not written over: it may be a hard link.
pub fn save(folder: &Path, sampling: &Sampling) -> Result<()> {
    let path = folder.join(FILE);
    let mut said: Map<String, Value> =
        read_json(&path)?.and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
    let drawn = json!({ "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p });
    for (key, value) in drawn.as_object().into_iter().flatten() {
        // transformers refuses to save these beside greedy decoding.
        if sampling.temperature > 0.0 {
            said.insert(key.clone(), value.clone())
        } else {
            said.remove(key)
        };
    }
    said.insert("do_sample".into(), json!(sampling.temperature > 0.0));
    said.insert("max_new_tokens".into(), json!(sampling.max_new_tokens));
    let _ = std::fs::remove_file(&path);
    write_json(&path, &Value::Object(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_sampled_as_it_was_evaluated() {
        let folder = tempfile::tempdir().unwrap();
        let unsaid = sampling(folder.path()).unwrap();
        assert_eq!((unsaid.max_new_tokens, unsaid.temperature, unsaid.top_k, unsaid.top_p), (128, 1.0, 0, 1.0));
        write_json(&folder.path().join(FILE), &json!({ "eos_token_id": 2 })).unwrap();
        for asked in [
            Sampling { max_new_tokens: 32, temperature: 0.7, top_k: 5, top_p: 0.9 },
            Sampling { max_new_tokens: 8, temperature: 0.0, top_k: 0, top_p: 1.0 },
        ] {
            save(folder.path(), &asked).unwrap();
            assert_eq!(sampling(folder.path()).unwrap(), asked);
        }
        assert_eq!(read_json(&folder.path().join(FILE)).unwrap().unwrap()["eos_token_id"], 2);
    }

    #[test]
    fn a_file_that_is_not_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(sampling(folder.path()).unwrap_err().to_string().contains(FILE));
    }
}
