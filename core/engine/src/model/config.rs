//! The configuration of the Llama family, and `config.json` as it is written. `config_json.rs` reads it.

use super::config_json;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// What the model ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Next-token logits through the transposed embedding.
    TiedLm,
    /// Next-token logits through a matrix of its own.
    Lm,
    /// One scalar per sequence: a reward model.
    Score,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub layers: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub context: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub bos: Option<i64>,
    /// Tokens that end a completion; the first is the one that training appends.
    pub eos: Vec<i64>,
    pub pad: Option<i64>,
    pub head: Head,
}

/// No size is larger: so products of two sizes can be computed, and no model that exists is kept out.
const MAX_SIZE: i64 = 1 << 30;

impl Config {
    /// Reads `config.json` of a Hugging Face folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if let Some(what) = other_than_a_model(folder) {
            return Err(Error::file(folder, what));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let (config, unknown) = Self::parse(&text).map_err(|what| Error::file(&path, what))?;
        if !unknown.is_empty() {
            tracing::warn!("{}: has no meaning for a Llama model: {}", path.display(), unknown.join(", "));
        }
        Ok(config)
    }

    /// The configuration that the text of a `config.json` says, and what of it has no meaning for a Llama model.
    pub fn parse(text: &str) -> std::result::Result<(Self, Vec<String>), String> {
        config_json::read(text)
    }

    /// Whether the sizes make a model.
    pub fn check(&self) -> std::result::Result<(), String> {
        for (name, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.context),
        ] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(format!("says {name} = {size}; it must be at least 1 and at most 2^30"));
            }
        }
        if self.heads % self.kv_heads != 0 {
            let (heads, kv) = (self.heads, self.kv_heads);
            return Err(format!(
                "says {heads} attention heads over {kv} key-value heads; the first must be a multiple of the second"
            ));
        }
        if self.head_dim % 2 != 0 {
            return Err(format!("says head_dim = {}; rotary positions need an even one", self.head_dim));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Err(format!("says rms_norm_eps = {}; it must be 0 or more", self.rms_norm_eps));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(format!("says rope_theta = {}; it must be above 0", self.rope_theta));
        }
        Ok(())
    }

    /// `config.json` as `transformers` reads it.
    pub fn to_json(&self) -> Value {
        let mut config = json!({
            "architectures": [if self.head == Head::Score { "LlamaForSequenceClassification" } else { "LlamaForCausalLM" }],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "eos_token_id": if self.eos.len() == 1 { json!(self.eos[0]) } else { json!(self.eos) },
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.context,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": self.pad,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.head != Head::Lm,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if self.head == Head::Score {
            config["id2label"] = json!({"0": "reward"});
            config["label2id"] = json!({"reward": 0});
        }
        config
    }

    pub fn queries_per_kv(&self) -> i64 {
        self.heads / self.kv_heads
    }
}

/// What a folder is that holds no model, with the way from there; `None` for a model's folder.
fn other_than_a_model(folder: &Path) -> Option<String> {
    const NEEDED: &str = "a Hugging Face folder with config.json, model.safetensors and tokenizer.json is needed";
    if !folder.is_dir() {
        let gguf = folder.is_file() && folder.extension().is_some_and(|e| e == "gguf");
        return Some(if gguf {
            format!("is a GGUF file; turn it into a folder first: motrain import {} FOLDER", folder.display())
        } else {
            format!("is no model folder; {NEEDED}")
        });
    }
    let has_config = folder.join("config.json").is_file();
    if folder.join("adapter_config.json").is_file() {
        let besides = if has_config { " beside a model" } else { ", and no model" };
        let base = base_of(folder).map_or("its base".into(), |base| format!("its base, \"{base}\","));
        return Some(format!(
            "holds a PEFT adapter{besides}: mix it into {base} with soup() in a script, or merge them with peft's merge_and_unload() and save \
             the model into a folder of its own"
        ));
    }
    if has_config {
        return None;
    }
    let files: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    if let Some(file) = files.iter().filter(|f| f.ends_with(".gguf")).min() {
        return Some(format!(
            "holds a GGUF file; turn it into a folder first: motrain import {} FOLDER",
            folder.join(file).display()
        ));
    }
    let inside = files.iter().filter(|f| folder.join(f).join("config.json").is_file()).min();
    let hint = inside.map_or(String::new(), |inside| format!("; {} is a model", folder.join(inside).display()));
    Some(format!("has no config.json; {NEEDED}{hint}"))
}

/// The base that an adapter was made for.
fn base_of(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    Some(config.get("base_model_name_or_path")?.as_str()?.to_owned())
}
