//! What a GGUF file's metadata says: each key is done, known to change nothing, or refused by its name.

use crate::Result;
use crate::gguf::{Gguf, Meta};
use crate::model::Config;

/// Keys under `llama.` that are read, or that change nothing here.
const MODEL: [&str; 15] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    // How far a scaled rotation was trained; without scaling (below) it says nothing.
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
    "vocab_size",
];

/// Keys under `llama.` with the values that mean that nothing is done.
const NEUTRAL: [(&str, &[f64]); 11] = [
    ("attention.scale", &[0.0]),
    ("expert_count", &[0.0]),
    ("expert_used_count", &[0.0]),
    ("expert_shared_count", &[0.0]),
    ("expert_group_count", &[0.0]),
    ("expert_group_used_count", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
    ("rope.scale_linear", &[0.0, 1.0]),
    ("rope.scaling.alpha", &[0.0]),
    ("rope.scaling.attn_factor", &[1.0]),
    ("rope.scaling.factor", &[0.0, 1.0]),
];

/// Keys under `tokenizer.` that are read, or that a byte-level BPE tokenizer has no use for.
const TOKENIZER: [&str; 27] = [
    "chat_template",
    "ggml.add_bos_token",
    "ggml.add_eos_token",
    "ggml.add_sep_token",
    "ggml.add_space_prefix",
    "ggml.bos_token_id",
    "ggml.cls_token_id",
    "ggml.eom_token_id",
    "ggml.eos_token_id",
    "ggml.eot_token_id",
    "ggml.fim_mid_token_id",
    "ggml.fim_pad_token_id",
    "ggml.fim_pre_token_id",
    "ggml.fim_rep_token_id",
    "ggml.fim_sep_token_id",
    "ggml.fim_suf_token_id",
    "ggml.mask_token_id",
    "ggml.merges",
    "ggml.model",
    "ggml.padding_token_id",
    "ggml.pre",
    "ggml.remove_extra_whitespaces",
    "ggml.scores",
    "ggml.seperator_token_id",
    "ggml.token_type",
    "ggml.tokens",
    "ggml.unknown_token_id",
];

/// Refuses what is no whole Llama model, and every key that would be lost. The tokens are read elsewhere.
pub fn check(gguf: &Gguf) -> Result<()> {
    let parts = gguf.int("split.count")?.unwrap_or(1);
    if parts > 1 {
        let at = gguf.int("split.no")?.unwrap_or(0).saturating_add(1);
        return Err(gguf.error(format!(
            "is file {at} of a GGUF that is split into {parts}; merge them with llama.cpp: llama-gguf-split --merge FIRST.gguf OUT.gguf"
        )));
    }
    if let Some(other) = gguf.text("general.type")?.filter(|kind| *kind != "model") {
        return Err(gguf.error(format!("holds no model: its general.type is \"{other}\"")));
    }
    let architecture = gguf.need_text("general.architecture")?;
    if architecture != "llama" {
        return Err(gguf.error(format!("holds a model of the \"{architecture}\" architecture; \"llama\" is known")));
    }
    let lost: Vec<String> =
        gguf.keys().filter(|(key, value)| is_lost(key, value)).map(|(key, v)| shown(key, v)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(gguf
        .error(format!("says what motrain does not know how to do: {}; import a model without it", lost.join(", "))))
}

fn is_lost(key: &str, value: &Meta) -> bool {
    if let Some(key) = key.strip_prefix("llama.") {
        return !MODEL.contains(&key) && !is_neutral(key, value);
    }
    if let Some(key) = key.strip_prefix("tokenizer.") {
        // Templates for other purposes lie beside the default one.
        return !TOKENIZER.contains(&key) && !key.starts_with("chat_template") && key != "huggingface.json";
    }
    // Everything else describes the file, or belongs to other programs: llama.cpp reads no other name.
    key.starts_with("adapter.")
}

fn is_neutral(key: &str, value: &Meta) -> bool {
    let number = match value {
        Meta::Int(i) => *i as f64,
        Meta::Float(f) => *f,
        Meta::Bool(b) => return key == "attention.causal" && *b,
        Meta::Text(kind) => return key == "rope.scaling.type" && (kind == "none" || kind == "linear"),
        Meta::List { .. } => return false,
    };
    NEUTRAL.iter().any(|(name, values)| *name == key && values.contains(&number))
}

fn shown(key: &str, value: &Meta) -> String {
    match value {
        Meta::Int(i) => format!("{key} = {i}"),
        Meta::Float(f) => format!("{key} = {f}"),
        Meta::Bool(b) => format!("{key} = {b}"),
        Meta::Text(text) if text.chars().count() < 40 => format!("{key} = \"{text}\""),
        Meta::Text(_) | Meta::List { .. } => key.to_owned(),
    }
}

/// Refuses what the file says twice, and differently, and what prompts would have to end with.
pub fn agrees(gguf: &Gguf, config: &Config) -> Result<()> {
    for (key, wanted) in [
        ("llama.attention.value_length", config.shape.head_dim),
        ("llama.rope.dimension_count", config.shape.head_dim),
        ("llama.vocab_size", config.shape.vocab_size),
    ] {
        if let Some(found) = gguf.int(key)?.filter(|found| *found != wanted) {
            return Err(
                gguf.error(format!("says {key} = {found}; motrain knows {wanted} only, as the rest of the file says"))
            );
        }
    }
    for key in ["tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"] {
        if gguf.flag(key)? == Some(true) {
            return Err(gguf.error(format!(
                "says {key}: prompts would end with that token, which motrain does not do; set it to false"
            )));
        }
    }
    Ok(())
}
