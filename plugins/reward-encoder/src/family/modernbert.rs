//! ModernBERT: rotary positions, and windows in all but every third layer.

use super::{Activation, Body, Network, Parts, Sizes};
use crate::fields::{Fields, Said};
use crate::head::{Pool, Top};
use crate::tokens::Room;
use crate::weights::Weights;
use candle_core::Tensor;
use candle_transformers::models::modernbert::{Config, ModernBert};
use serde_json::Value;
use std::collections::BTreeMap;

pub const HARMLESS: &[&str] = &[
    "causal_mask",
    "decoder_bias",
    "deterministic_flash_attn",
    "embedding_dropout",
    "initializer_cutoff_factor",
    "layer_norm_eps",
    "mlp_dropout",
    "pad_token_id",
    "position_embedding_type",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_pred_ignore_index",
    "sparse_prediction",
];

pub fn make(f: &mut Fields, weights: Weights, labels: Option<usize>) -> Said<Network> {
    let sizes = Sizes::take(f)?;
    if !(sizes.hidden / sizes.heads).is_multiple_of(2) {
        return Err(format!(
            "says hidden_size = {} and num_attention_heads = {}, which makes heads of an odd size",
            sizes.hidden, sizes.heads
        ));
    }
    for bias in ["attention_bias", "mlp_bias", "norm_bias", "classifier_bias"] {
        f.only(bias, false)?;
    }
    Activation::take(f, "hidden_activation", &[Activation::Gelu])?;
    let known = [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh];
    let activation = Activation::take(f, "classifier_activation", &known)?;
    let pool = match f.take::<String>("classifier_pooling")?.as_deref() {
        None | Some("cls") => Pool::First,
        Some("mean") => Pool::Mean,
        Some(other) => return Err(format!("says classifier_pooling = \"{other}\"; this plugin knows cls and mean")),
    };
    let (global, local) = thetas(f)?;
    let config = Config {
        vocab_size: sizes.vocab,
        hidden_size: sizes.hidden,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        intermediate_size: sizes.inner,
        max_position_embeddings: sizes.positions.min(1_000_000),
        layer_norm_eps: f.or("norm_eps", 1e-5)?,
        pad_token_id: 0,
        global_attn_every_n_layers: every(f, sizes.layers)?,
        global_rope_theta: global,
        local_attention: f.or("local_attention", 128)?,
        local_rope_theta: local,
        classifier_config: None,
    };
    // Embeddings are normed before it.
    let weights = weights.without("model.layers.0.attn_norm.weight")?;
    let top = Top {
        pool,
        dense: "head.dense",
        bias: false,
        activation,
        norm: Some(("head.norm", config.layer_norm_eps)),
        classifier: "classifier",
    };
    let room = Room { vocab: sizes.vocab, positions: config.max_position_embeddings, types: 0 };
    Parts { hidden: sizes.hidden, top, room }.build(weights, labels, |vb| {
        let body = ModernBert::load(vb, &config)?;
        Ok(Box::new(move |ids: &Tensor, _: &Tensor| body.forward(ids, &ids.ones_like()?)) as Body)
    })
}

/// The bases of the rotations in layers without and with a window: transformers 5 has them in rope_parameters.
fn thetas(f: &mut Fields) -> Said<(f64, f64)> {
    let (mut global, mut local) =
        (f.or("global_rope_theta", 160_000.0)?, f.take::<f64>("local_rope_theta")?.unwrap_or(10_000.0));
    f.only("rope_scaling", Value::Null)?;
    let layers = f.take::<BTreeMap<String, BTreeMap<String, Value>>>("rope_parameters")?.unwrap_or_default();
    for (kind, said) in layers {
        let theta = match kind.as_str() {
            "full_attention" => &mut global,
            "sliding_attention" => &mut local,
            other => {
                return Err(format!(
                    "says rope_parameters of \"{other}\"; this plugin knows full_attention and sliding_attention"
                ));
            }
        };
        for (name, value) in said {
            match (name.as_str(), value.as_f64()) {
                ("rope_theta", Some(number)) => *theta = number,
                ("rope_type", _) if value == "default" => {}
                _ => {
                    return Err(format!(
                        "says rope_parameters.{kind}.{name} = {value}; this plugin knows the default rotation"
                    ));
                }
            }
        }
    }
    if !(global.is_finite() && local.is_finite() && global > 0.0 && local > 0.0) {
        return Err(format!("says rope_theta = {global} and {local}, which makes no rotation"));
    }
    Ok((global, local))
}

/// Every which layer has no window.
fn every(f: &mut Fields, layers: usize) -> Said<usize> {
    let every = f.take::<usize>("global_attn_every_n_layers")?;
    let Some(kinds) = f.take::<Vec<String>>("layer_types")? else { return Ok(every.unwrap_or(3).max(1)) };
    let full: Vec<usize> = (0..kinds.len()).filter(|&i| kinds[i] == "full_attention").collect();
    let found = full.get(1).copied().unwrap_or(layers.max(1));
    let expected = |i: usize| if i.is_multiple_of(found) { "full_attention" } else { "sliding_attention" };
    if kinds.len() != layers || (0..layers).any(|i| kinds[i] != expected(i)) {
        return Err(format!(
            "says layer_types = {kinds:?}; this plugin knows full_attention at equal distances from the first layer on"
        ));
    }
    Ok(found)
}
