//! generation_config.json of a Hugging Face folder: how its policy is meant to be sampled, field by field.
//!
//! What changes the drawing of tokens and is not done here is refused by its name; training and evaluation, which have their own
//! settings, take nothing from the file but the tokens that end an answer.

use crate::files::write_json;
use crate::files::{read_fields, warn};
use crate::{Error, Result};
use motrain_core::options::check_value;
use motrain_core::plan::GenerationConfig;
use serde_json::{Map, Value, json};
use std::path::Path;

pub const FILE: &str = "generation_config.json";

type Fields = Map<String, Value>;

const DRAWN: [&str; 3] = ["temperature", "top_k", "top_p"];

/// Fields that no one draws by here, with the values that change nothing.
const REFUSED: [(&str, &[&str]); 27] = [
    ("bad_words_ids", &["[]"]),
    ("begin_suppress_tokens", &["[]"]),
    ("constraints", &["[]"]),
    ("diversity_penalty", &["0", "0.0"]),
    ("dola_layers", &[]),
    ("encoder_no_repeat_ngram_size", &["0"]),
    ("encoder_repetition_penalty", &["1", "1.0"]),
    ("exponential_decay_length_penalty", &[]),
    ("force_words_ids", &["[]"]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("guidance_scale", &["1", "1.0"]),
    ("max_time", &[]),
    ("min_length", &["0"]),
    ("min_new_tokens", &["0"]),
    ("no_repeat_ngram_size", &["0"]),
    ("num_beam_groups", &["1"]),
    ("num_beams", &["1"]),
    ("num_return_sequences", &["1"]),
    ("penalty_alpha", &["0", "0.0"]),
    ("repetition_penalty", &["1", "1.0"]),
    ("sequence_bias", &["[]", "{}"]),
    ("stop_strings", &["[]"]),
    ("suppress_tokens", &["[]"]),
    ("token_healing", &["false"]),
    ("watermarking_config", &[]),
    ("use_mtp", &["false"]),
];

/// The same for fields that matter only where tokens are drawn by chance.
const REFUSED_IF_DRAWN: [(&str, &[&str]); 5] = [
    ("epsilon_cutoff", &["0", "0.0"]),
    ("eta_cutoff", &["0", "0.0"]),
    ("min_p", &["0", "0.0"]),
    ("top_h", &["1", "1.0"]),
    ("typical_p", &["1", "1.0"]),
];

/// Fields that do not change which tokens are drawn: of caches, of what is returned, of speculation (whose result is the same), of beams
/// where there are none, and notes. `max_length` counts the prompt; lengths are `max_new_tokens` here.
const HARMLESS: [&str; 41] = [
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "do_sample",
    "early_stopping",
    "eos_token_id",
    "generation_kwargs",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_length",
    "max_matching_ngram_size",
    "max_new_tokens",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
];

/// How the folder says that its policy is sampled. A file that says nothing about it, or none, means the policy's own distribution; what
/// else it leaves out is as in transformers, but for 128 new tokens.
pub fn sampling(folder: &Path) -> Result<GenerationConfig> {
    let path = folder.join(FILE);
    let said = read_fields(&path)?;
    let sampling = drawn_by(&said, &path).map_err(|what| Error::file(&path, what))?;
    check_value(&path.display().to_string(), &sampling)?;
    Ok(sampling)
}

fn drawn_by(said: &Fields, path: &Path) -> std::result::Result<GenerationConfig, String> {
    let says = |key: &str| said.get(key).is_some_and(|v| !v.is_null());
    let wrong = |key: &str, wanted: &str| Err(format!("{key} is {}; {wanted} is expected", said[key]));
    let number = |key: &str, other: f64| match said.get(key).and_then(Value::as_f64) {
        None if says(key) => wrong(key, "a number").map(|()| other),
        found => Ok(found.unwrap_or(other)),
    };
    let count = |key: &str, other: usize| match said.get(key).and_then(Value::as_u64) {
        None if says(key) => wrong(key, "a whole number").map(|()| other),
        found => Ok(found.map_or(other, |n| n as usize)),
    };
    let shaped = DRAWN.iter().find(|key| says(key));
    let sampled = match said.get("do_sample").unwrap_or(&Value::Null) {
        Value::Bool(sampled) => *sampled,
        Value::Null if shaped.is_none() => true,
        Value::Null => {
            let key = shaped.unwrap_or(&DRAWN[0]);
            warn(
                path,
                &format!("{key} stands without do_sample, so transformers takes the likeliest token, and so do we"),
            );
            false
        }
        _ => return wrong("do_sample", "true or false").map(|()| GenerationConfig::default()),
    };
    refuse(said, &REFUSED)?;
    if sampled {
        refuse(said, &REFUSED_IF_DRAWN)?;
    }
    let known = |key: &str| REFUSED.iter().chain(&REFUSED_IF_DRAWN).any(|(k, _)| *k == key) || DRAWN.contains(&key);
    for key in said.keys().filter(|key| !known(key) && !HARMLESS.contains(&key.as_str())) {
        warn(path, &format!("{key} = {} is not known, and changes nothing here", said[key]));
    }
    // transformers draws from the 50 likeliest tokens where a file asks for sampling and says no more.
    let top_k = if says("do_sample") { 50 } else { 0 };
    let max_new_tokens = count("max_new_tokens", 128)?;
    if !sampled {
        return Ok(GenerationConfig { max_new_tokens, temperature: 0.0, top_k: 0, top_p: 1.0 });
    }
    Ok(GenerationConfig {
        max_new_tokens,
        temperature: number("temperature", 1.0)?,
        top_k: count("top_k", top_k)?,
        top_p: number("top_p", 1.0)?,
    })
}

fn refuse(said: &Fields, fields: &[(&str, &[&str])]) -> std::result::Result<(), String> {
    for (key, neutral) in fields {
        let Some(value) = said.get(*key).filter(|v| !v.is_null()) else { continue };
        if !neutral.contains(&value.to_string().as_str()) {
            return Err(format!("{key} = {value} is not done when motrain draws tokens; remove it to sample without"));
        }
    }
    Ok(())
}

/// The tokens that end an answer, as far as the file says.
pub fn stops(said: &Fields) -> std::result::Result<Vec<u32>, String> {
    let one = |v: &Value| {
        let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("eos_token_id holds {v}, which is no token id"))
    };
    match said.get("eos_token_id").unwrap_or(&Value::Null) {
        Value::Null => Ok(vec![]),
        Value::Array(list) => list.iter().map(one).collect(),
        id => Ok(vec![one(id)?]),
    }
}

/// Adds to the folder's file how its policy was evaluated. The file is replaced, not written over: it may be a hard link.
pub fn save(folder: &Path, sampling: &GenerationConfig) -> Result<()> {
    let path = folder.join(FILE);
    let mut said = read_fields(&path)?;
    for (key, _) in REFUSED.iter().chain(&REFUSED_IF_DRAWN) {
        said.shift_remove(*key);
    }
    let drawn = json!({ "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p });
    for (key, value) in drawn.as_object().into_iter().flatten() {
        // transformers refuses to save these beside greedy decoding.
        if sampling.temperature > 0.0 {
            said.insert(key.clone(), value.clone())
        } else {
            said.shift_remove(key)
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
    use crate::files::read_json;

    #[test]
    fn a_policy_is_sampled_as_it_was_evaluated() {
        let folder = tempfile::tempdir().unwrap();
        let unsaid = sampling(folder.path()).unwrap();
        assert_eq!((unsaid.max_new_tokens, unsaid.temperature, unsaid.top_k, unsaid.top_p), (128, 1.0, 0, 1.0));
        write_json(&folder.path().join(FILE), &json!({ "eos_token_id": 2 })).unwrap();
        for asked in [
            GenerationConfig { max_new_tokens: 32, temperature: 0.7, top_k: 5, top_p: 0.9 },
            GenerationConfig { max_new_tokens: 8, temperature: 0.0, top_k: 0, top_p: 1.0 },
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

    fn said(file: Value) -> std::result::Result<GenerationConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        write_json(&folder.path().join(FILE), &file).unwrap();
        let place = folder.path().display().to_string() + "/";
        sampling(folder.path()).map_err(|e| e.to_string().replace(&place, ""))
    }

    /// As in transformers: sampling is asked for by do_sample, and then 50 tokens are left of no other number.
    #[test]
    fn what_a_file_leaves_out_is_as_in_transformers() {
        let drawn = |file: Value| said(file).map(|s| (s.temperature, s.top_k, s.top_p)).unwrap();
        assert_eq!(drawn(json!({ "do_sample": true, "temperature": 0.6, "top_p": 0.9 })), (0.6, 50, 0.9));
        assert_eq!(drawn(json!({ "do_sample": true, "top_k": 0, "temperature": null })), (1.0, 0, 1.0));
        assert_eq!(drawn(json!({ "temperature": 0.6 })), (0.0, 0, 1.0));
        assert_eq!(drawn(json!({ "do_sample": false, "min_p": 0.1, "typical_p": 0.5 })), (0.0, 0, 1.0));
        assert_eq!(drawn(json!({ "bos_token_id": 1, "_from_model_config": true, "use_cache": true })), (1.0, 0, 1.0));
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_name() {
        let message = said(json!({ "repetition_penalty": 1.1 })).unwrap_err();
        assert_eq!(
            message,
            "generation_config.json: repetition_penalty = 1.1 is not done when motrain draws tokens; remove it to sample without"
        );
        for (key, neutral) in REFUSED.iter().chain(&REFUSED_IF_DRAWN) {
            for value in neutral.iter().chain(&["null"]) {
                said(json!({ *key: serde_json::from_str::<Value>(value).unwrap() })).unwrap();
            }
            assert!(said(json!({ *key: 7.5 })).unwrap_err().contains(key));
        }
        for (key, value) in
            [("temperature", json!("hot")), ("top_k", json!(-1)), ("do_sample", json!("yes")), ("top_p", json!(7))]
        {
            assert!(said(json!({ "do_sample": true, key: value })).unwrap_err().contains(key), "{key}");
        }
    }

    #[test]
    fn evaluation_leaves_no_settings_that_it_did_not_use() {
        let folder = tempfile::tempdir().unwrap();
        write_json(&folder.path().join(FILE), &json!({ "eos_token_id": 2, "repetition_penalty": 1.1 })).unwrap();
        save(folder.path(), &GenerationConfig::default()).unwrap();
        assert_eq!(sampling(folder.path()).unwrap(), GenerationConfig::default());
    }
}
