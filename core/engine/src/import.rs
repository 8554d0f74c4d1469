//! Turns a Llama GGUF file with a byte-level BPE tokenizer (as SmolLM2's) into a Hugging Face folder.

use crate::gguf::{Gguf, Meta};
use crate::model::{Config, Head, Llama};
use crate::text::Text;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};
use tokenizers::Tokenizer;

/// Writes `folder` from the GGUF file. Weights are dequantised to f32.
pub fn import(file: &Path, folder: &Path) -> Result<()> {
    let gguf = Gguf::open(file)?;
    let architecture = gguf.text("general.architecture")?;
    if architecture != "llama" {
        return Err(Error::file(
            file,
            format!("holds a model of the \"{architecture}\" architecture; \"llama\" is known"),
        ));
    }
    let config = config(&gguf)?;
    let mut tensors = BTreeMap::new();
    for name in gguf.names() {
        let Some((target, rotary_heads)) = target_name(name, &config) else { continue };
        let tensor = gguf.tensor(name)?;
        let tensor = match rotary_heads {
            Some(heads) => undo_rotary_order(&tensor, heads)?,
            None => tensor,
        };
        tensors.insert(target, tensor);
    }
    let text = tokenizer(&gguf, &config).map_err(|what| Error::file(file, what))?;
    let model = Llama::assemble(config, tensors, Device::Cpu).map_err(|what| Error::file(file, what))?;
    model.save(folder, &text)
}

fn config(gguf: &Gguf) -> Result<Config> {
    let int = |key: &str| gguf.int(&format!("llama.{key}"));
    let heads = int("attention.head_count")?;
    let hidden_size = int("embedding_length")?;
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let id = |key: &str| gguf.int(&format!("tokenizer.ggml.{key}")).ok();
    let tied = !gguf.names().any(|n| n == "output.weight");
    Ok(Config {
        vocab_size: tokens.len() as i64,
        hidden_size,
        intermediate_size: int("feed_forward_length")?,
        layers: int("block_count")?,
        heads,
        kv_heads: int("attention.head_count_kv").unwrap_or(heads),
        head_dim: int("attention.key_length").unwrap_or(hidden_size / heads),
        context: int("context_length")?,
        // Stored as f32; the shortest decimal that rounds to it is what the checkpoint's author wrote.
        rms_norm_eps: shortest(gguf.float("llama.attention.layer_norm_rms_epsilon")?),
        rope_theta: shortest(gguf.float("llama.rope.freq_base").unwrap_or(10_000.0)),
        bos: id("bos_token_id"),
        eos: id("eos_token_id").into_iter().collect(),
        pad: id("padding_token_id"),
        head: if tied { Head::TiedLm } else { Head::Lm },
    })
}

fn shortest(value: f64) -> f64 {
    format!("{}", value as f32).parse().unwrap_or(value)
}

/// The checkpoint's name of a GGUF tensor, and the number of heads if its rows are in ggml's rotary order.
fn target_name(name: &str, config: &Config) -> Option<(String, Option<i64>)> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(target) = whole {
        return Some((target.into(), None));
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (target, heads) = match part {
        "attn_norm.weight" => ("input_layernorm", None),
        "attn_q.weight" => ("self_attn.q_proj", Some(config.heads)),
        "attn_k.weight" => ("self_attn.k_proj", Some(config.kv_heads)),
        "attn_v.weight" => ("self_attn.v_proj", None),
        "attn_output.weight" => ("self_attn.o_proj", None),
        "ffn_norm.weight" => ("post_attention_layernorm", None),
        "ffn_gate.weight" => ("mlp.gate_proj", None),
        "ffn_up.weight" => ("mlp.up_proj", None),
        "ffn_down.weight" => ("mlp.down_proj", None),
        _ => return None,
    };
    Some((format!("model.layers.{layer}.{target}.weight"), heads))
}

/// ggml rotates neighbouring rows, Hugging Face the halves of a head: rows `(head, i, half)` become `(head, half, i)`.
fn undo_rotary_order(t: &Tensor, heads: i64) -> Result<Tensor> {
    let (rows, columns) = t.size2()?;
    let view = t.f_view([heads, rows / heads / 2, 2, columns])?;
    Ok(view.f_transpose(1, 2)?.f_reshape([rows, columns])?)
}

/// Builds tokenizer.json from the tokens and merges in the file.
fn tokenizer(gguf: &Gguf, config: &Config) -> std::result::Result<Text, String> {
    let failed = |e: Error| e.to_string();
    let model = gguf.text("tokenizer.ggml.model").map_err(failed)?;
    let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    if model != "gpt2" {
        return Err(format!("has a \"{model}\" tokenizer; \"gpt2\" (byte-level BPE) is known"));
    }
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let pre_tokenizer = match pre {
        "smollm" => json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]
        }),
        "gpt-2" | "default" => byte_level.clone(),
        other => return Err(format!("has a \"{other}\" pre-tokenizer; \"smollm\" and \"gpt-2\" are known")),
    };
    let tokens = gguf.texts("tokenizer.ggml.tokens").map_err(failed)?;
    let merges = gguf.texts("tokenizer.ggml.merges").map_err(failed)?;
    let vocab: serde_json::Map<String, Value> = tokens.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    let added: Vec<Value> = special_ids(gguf)
        .into_iter()
        .map(|id| {
            json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string()).map_err(|e| format!("holds no usable tokenizer: {e}"))?;
    let token = |id: Option<i64>| id.and_then(|id| tokens.get(id as usize)).cloned();
    let eos = token(config.eos.first().copied());
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token(config.bos),
        "eos_token": eos.clone(),
        "pad_token": token(config.pad).or(eos.clone()),
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": false,
    });
    let template = gguf.text("tokenizer.chat_template").ok().map(str::to_owned);
    let eos = config.eos.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
    Text::new(tokenizer, settings, template, eos, config)
}

/// Ids of control tokens (type 3) and user-defined ones (type 4).
fn special_ids(gguf: &Gguf) -> Vec<usize> {
    match gguf.metadata.get("tokenizer.ggml.token_type") {
        Some(Meta::List(types)) => {
            let special = |m: &Meta| matches!(m, Meta::Int(3 | 4));
            types.iter().enumerate().filter(|(_, m)| special(m)).map(|(i, _)| i).collect()
        }
        _ => vec![],
    }
}
