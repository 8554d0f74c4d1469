//! Families of models: what each reads from config.json, and under which names its checkpoints keep their tensors.

use super::family::{gemma2, gemma3, gpt_neox, gpt2, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3};
use super::shape::Shape;
use crate::fields::{Fields, Said};
use std::fmt;

/// A family of decoders. What its models compute is a `Shape`, which one network (`net.rs`) does for all families.
pub trait Arch: Sync {
    /// `model_type` in config.json.
    fn model_type(&self) -> &'static str;

    /// What its classes in transformers begin with: `Llama` of `LlamaForCausalLM`.
    fn class(&self) -> &'static str;

    /// Its classes as language model and as sequence classifier.
    fn classes(&self) -> [String; 2] {
        ["ForCausalLM", "ForSequenceClassification"].map(|end| format!("{}{end}", self.class()))
    }

    /// What holds where config.json says nothing.
    fn usual(&self) -> Usual;

    /// How its checkpoints name and lay out tensors.
    fn names(&self) -> &'static Names {
        &Names::LLAMA
    }

    /// What its models compute. Takes every field that it does something with, and those that change nothing.
    fn shape(&self, f: &mut Fields) -> Said<Shape>;
}

/// All families: a new one is one file in `family/` and one line here.
pub static FAMILIES: [&dyn Arch; 11] = [
    &llama::Llama,
    &mistral::Mistral,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
    &gpt2::Gpt2,
    &gpt_neox::GptNeoX,
    &olmo2::Olmo2,
    &smollm3::SmolLm3,
    &phi3::Phi3,
];

/// What config.json leaves to its class in transformers.
#[derive(Default)]
pub struct Usual {
    /// Whether the embedding serves as output head.
    pub tied: bool,
    pub bos: Option<i64>,
    pub eos: Option<i64>,
    pub pad: Option<i64>,
}

/// A checkpoint's names of modules, without `.weight` and `.bias`; those of a layer without its beginning.
pub struct Names {
    /// In config.json, the number of layers.
    pub layer_count: &'static str,
    /// Before every name but the heads'. Files of the bare model leave it out.
    pub prefix: &'static str,
    pub embed: &'static str,
    pub positions: Option<&'static str>,
    pub layers: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
    /// Norms of a layer, each where its name says. Those that a family does not have are none.
    pub before_attention: Option<&'static str>,
    pub after_attention: Option<&'static str>,
    pub before_mlp: Option<&'static str>,
    pub after_mlp: Option<&'static str>,
    /// Query, key and value: three matrices, or one.
    pub qkv: &'static [&'static str],
    pub qk_norms: [&'static str; 2],
    pub o: &'static str,
    /// Gate and up, or one matrix.
    pub up: &'static [&'static str],
    pub down: &'static str,
    /// Ends of names of tensors that say nothing.
    pub buffers: &'static [&'static str],
    /// Matrices of layers are stored `[in, out]`.
    pub transposed: bool,
    /// Query, key and value lie head by head, `[heads, 3, head_dim]`.
    pub by_head: bool,
}

impl Names {
    pub const LLAMA: Self = Self {
        layer_count: "num_hidden_layers",
        prefix: "model.",
        embed: "model.embed_tokens",
        positions: None,
        layers: "model.layers",
        norm: "model.norm",
        head: "lm_head",
        before_attention: Some("input_layernorm"),
        after_attention: None,
        before_mlp: Some("post_attention_layernorm"),
        after_mlp: None,
        qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
        o: "self_attn.o_proj",
        up: &["mlp.gate_proj", "mlp.up_proj"],
        down: "mlp.down_proj",
        buffers: &["rotary_emb.inv_freq"],
        transposed: false,
        by_head: false,
    };

    /// Of the matrix that query, key and value are stacked into.
    pub fn stacked_qkv(&self) -> &'static str {
        if self.qkv.len() == 1 { self.qkv[0] } else { "self_attn.qkv_proj" }
    }

    /// Of the matrix that gate and up are stacked into.
    pub fn stacked_up(&self) -> &'static str {
        if self.up.len() == 1 { self.up[0] } else { "mlp.gate_up_proj" }
    }
}

impl fmt::Debug for dyn Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

impl PartialEq for dyn Arch {
    fn eq(&self, other: &Self) -> bool {
        self.model_type() == other.model_type()
    }
}
