//! Llama 2 and 3, SmolLM 1 and 2, and all that say they are Llama.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Usual};
use crate::model::config::Config;
use crate::model::head::Head;
use crate::model::shape::{Shape, bias};
use serde_json::json;

pub struct Llama;

impl Arch for Llama {
    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn class(&self) -> &'static str {
        "Llama"
    }

    fn usual(&self) -> Usual {
        Usual { bos: Some(1), eos: Some(2), ..Usual::default() }
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = Shape::usual(f, 10_000.0)?;
        shape.qkv_bias = bias(f, "attention_bias", false)?;
        shape.o_bias = shape.qkv_bias;
        shape.mlp_bias = bias(f, "mlp_bias", false)?;
        Ok(shape)
    }
}

/// What a plain Llama's config.json says, for models that come from no such file.
#[derive(Clone, Debug)]
pub struct LlamaSizes {
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
    pub eos: Vec<i64>,
    pub pad: Option<i64>,
    pub head: Head,
}

impl LlamaSizes {
    /// The configuration, or what of it makes no model.
    pub fn config(&self) -> Said<Config> {
        let one_eos = self.eos.len() == 1;
        let scores = self.head == Head::Score;
        let mut fields = json!({
            "architectures": [if scores { "LlamaForSequenceClassification" } else { "LlamaForCausalLM" }],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "eos_token_id": if one_eos { json!(self.eos[0]) } else { json!(self.eos) },
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
        if scores {
            fields["id2label"] = json!({ "0": "reward" });
        }
        Ok(Config::parse(&fields.to_string())?.0)
    }
}
