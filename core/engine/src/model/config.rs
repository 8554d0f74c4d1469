//! `config.json` of the Llama family.

use crate::{Error, Result};
use serde::Deserialize;
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

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_parameters: Option<Value>,
    rope_scaling: Option<Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    bos_token_id: Option<i64>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<i64>,
}

impl Config {
    /// Reads `config.json` of a Hugging Face folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !folder.is_dir() {
            return Err(Error::file(
                folder,
                "is no model folder; a Hugging Face folder with config.json, model.safetensors and tokenizer.json is needed",
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let raw: Raw = serde_json::from_str(&text)
            .map_err(|e| Error::file(&path, format!("is not the configuration of a Llama model: {e}")))?;
        raw.into_config().map_err(|what| Error::file(&path, what))
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

impl Raw {
    fn into_config(self) -> std::result::Result<Config, String> {
        if self.model_type != "llama" {
            return Err(format!("model_type is \"{}\"; motrain knows the Llama family (\"llama\")", self.model_type));
        }
        let rope = self.rope_parameters.clone().or(self.rope_scaling.clone()).unwrap_or(Value::Null);
        let rope_type = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        if rope_type != "default" {
            return Err(format!("rope type \"{rope_type}\" is not supported; motrain knows \"default\""));
        }
        if self.attention_bias || self.mlp_bias {
            return Err("biases in attention or MLP are not supported".into());
        }
        if let Some(act) = self.hidden_act.filter(|a| a != "silu") {
            return Err(format!("hidden_act \"{act}\" is not supported; motrain knows \"silu\""));
        }
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let sizes = [self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads, kv_heads];
        if sizes.iter().any(|s| *s <= 0) || self.num_attention_heads % kv_heads != 0 {
            return Err("sizes are not positive, or the attention heads are no multiple of the key-value heads".into());
        }
        let score = self.architectures.iter().any(|a| a.ends_with("ForSequenceClassification"));
        let theta = rope.get("rope_theta").and_then(Value::as_f64).or(self.rope_theta).unwrap_or(10_000.0);
        let eos = match self.eos_token_id {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).collect(),
            Some(id) => id.as_i64().into_iter().collect(),
            None => vec![],
        };
        Ok(Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads,
            head_dim: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads),
            context: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: theta,
            bos: self.bos_token_id,
            eos,
            pad: self.pad_token_id,
            head: match (score, self.tie_word_embeddings) {
                (true, _) => Head::Score,
                (false, true) => Head::TiedLm,
                (false, false) => Head::Lm,
            },
        })
    }
}
