//! Turns a Llama GGUF file with a byte-level BPE tokenizer (as SmolLM2's) into a Hugging Face folder.

mod metadata;
mod tokenizer;

use crate::Result;
use crate::gguf::Gguf;
use crate::model::{Config, Head, LlamaSizes, Model};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// Writes `folder` from the GGUF file. Weights are dequantised to f32.
pub fn import(file: &Path, folder: &Path) -> Result<()> {
    let gguf = Gguf::open(file)?;
    metadata::check(&gguf)?;
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let config = config(&gguf, &tokens)?;
    metadata::agrees(&gguf, &config)?;
    let tensors = tensors(&gguf, &config)?;
    let tokenizer = tokenizer::read(&gguf, &tokens, &config)?;
    let model = Model::assemble(config, tensors, Device::Cpu).map_err(|what| gguf.error(what))?;
    model.save(folder, &tokenizer)
}

fn config(gguf: &Gguf, tokens: &[String]) -> Result<Config> {
    let int = |key: &str| gguf.need_int(&format!("llama.{key}"));
    let heads = int("attention.head_count")?;
    let hidden_size = int("embedding_length")?;
    let ids = tokenizer::ids(gguf, tokens)?;
    let tied = !gguf.names().any(|n| n == "output.weight");
    let sizes = LlamaSizes {
        vocab_size: tokens.len() as i64,
        hidden_size,
        intermediate_size: int("feed_forward_length")?,
        layers: int("block_count")?,
        heads,
        kv_heads: gguf.int("llama.attention.head_count_kv")?.unwrap_or(heads),
        head_dim: match gguf.int("llama.attention.key_length")? {
            Some(length) => length,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        },
        context: int("context_length")?,
        // Stored as f32; the shortest decimal that rounds to it is what the checkpoint's author wrote.
        rms_norm_eps: shortest(gguf.need_float("llama.attention.layer_norm_rms_epsilon")?),
        rope_theta: shortest(gguf.float("llama.rope.freq_base")?.unwrap_or(10_000.0)),
        bos: ids.bos,
        eos: ids.eos,
        pad: ids.pad,
        head: if tied { Head::TiedLm } else { Head::Lm },
    };
    sizes.config().map_err(|what| gguf.error(what))
}

fn shortest(value: f64) -> f64 {
    format!("{}", value as f32).parse().unwrap_or(value)
}

/// All tensors under the checkpoint's names; a tensor that has none is refused.
fn tensors(gguf: &Gguf, config: &Config) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in gguf.names() {
        let Some((target, rotary_heads)) = target_name(name, config) else {
            unknown.push(name);
            continue;
        };
        let tensor = gguf.tensor(name)?;
        let tensor = match rotary_heads {
            Some(heads) => undo_rotary_order(&tensor, heads, config)?,
            None => tensor,
        };
        tensors.insert(target, tensor);
    }
    if unknown.is_empty() {
        return Ok(tensors);
    }
    let (total, shown) = (unknown.len(), unknown[..unknown.len().min(10)].join(", "));
    let more = if total > 10 { format!(" and {} more", total - 10) } else { String::new() };
    Err(gguf.error(format!(
        "holds tensors that change what the model computes and that motrain does not know: {shown}{more}; import a model without them \
         (scaled rotation, biases, experts and adapters are not supported)"
    )))
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
    // Written as llama.cpp writes it: "00" would be another tensor of the same layer.
    let layer = layer.parse::<usize>().ok().filter(|l| l.to_string() == layer && *l < config.shape.layers.len())?;
    let (target, heads) = match part {
        "attn_norm.weight" => ("input_layernorm", None),
        "attn_q.weight" => ("self_attn.q_proj", Some(config.shape.heads)),
        "attn_k.weight" => ("self_attn.k_proj", Some(config.shape.kv_heads)),
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
fn undo_rotary_order(t: &Tensor, heads: i64, config: &Config) -> Result<Tensor> {
    let (rows, columns) = (heads * config.shape.head_dim, config.shape.hidden_size);
    if t.size() != [rows, columns] {
        // `assemble` says what shape it should have.
        return Ok(t.shallow_clone());
    }
    let view = t.f_view([heads, config.shape.head_dim / 2, 2, columns])?;
    Ok(view.f_transpose(1, 2)?.f_reshape([rows, columns])?)
}

#[cfg(test)]
mod tests;
