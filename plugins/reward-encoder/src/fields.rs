//! The fields of config.json, taken one by one, so that none is lost: what is left at the end was not understood.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// What a file says, or what is wrong with it.
pub type Said<T> = Result<T, String>;

pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn read(path: &Path) -> Said<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err("is no JSON object".into()),
            Err(e) => Err(format!("is not JSON: {e}")),
        }
    }

    /// A field's value; null says nothing.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Said<Option<T>> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|e| format!("{name}: {e}")),
        }
    }

    pub fn or<T: DeserializeOwned>(&mut self, name: &str, usual: T) -> Said<T> {
        Ok(self.take(name)?.unwrap_or(usual))
    }

    /// A size that is written out in every file: at least 1, and no more than could be.
    pub fn size(&mut self, name: &str) -> Said<usize> {
        match self.take::<usize>(name)? {
            Some(size) if (1..=10_000_000).contains(&size) => Ok(size),
            Some(size) => Err(format!("says {name} = {size}, which makes no model")),
            None => Err(format!("has no {name}")),
        }
    }

    /// Takes a field that changes what is computed unless it says `usual`.
    pub fn only(&mut self, name: &str, usual: impl Into<Value>) -> Said<()> {
        let usual = usual.into();
        match self.take::<Value>(name)? {
            Some(other) if other != usual => {
                Err(format!("says {name} = {other}; this plugin computes only {name} = {usual}"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is left and says something, but for `harmless` fields.
    pub fn end(self, harmless: &[&str]) -> Said<()> {
        let says = |v: &Value| match v {
            Value::Null | Value::Bool(false) => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        let known = |name: &str| HARMLESS.contains(&name) || harmless.contains(&name);
        match self.0.iter().find(|(name, value)| says(value) && !known(name)) {
            None => Ok(()),
            Some((name, value)) => {
                let value: String = value.to_string().chars().take(60).collect();
                Err(format!(
                    "says {name} = {value}, which this plugin does not know; take it out if it changes nothing"
                ))
            }
        }
    }
}

/// Fields that say nothing of what is computed, of any family.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_range",
    "label2id",
    "mask_token_id",
    "model_max_length",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "return_dict",
    "sentence_transformers",
    "sep_token_id",
    "task_specific_params",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
];
