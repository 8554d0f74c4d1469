//! DeBERTa-v2 and -v3: attention with relative positions of its own.

use super::{Activation, Body, Network, Parts, Sizes};
use crate::fields::{Fields, Said};
use crate::head::{Pool, Top};
use crate::tokens::Room;
use crate::weights::Weights;
use candle_core::Tensor;
use candle_transformers::models::debertav2::{Config, DebertaV2Model, HiddenAct};
use serde::Deserialize;

pub const HARMLESS: &[&str] =
    &["cls_dropout", "legacy", "pooler_dropout", "summary_activation", "summary_last_dropout", "summary_type"];

#[derive(Deserialize)]
#[serde(untagged)]
enum Kinds {
    One(String),
    List(Vec<String>),
}

pub fn make(f: &mut Fields, weights: Weights, labels: Option<usize>) -> Said<Network> {
    let sizes = Sizes::take(f)?;
    let types = f.or("type_vocab_size", 0)?;
    f.only("conv_kernel_size", 0)?;
    for field in ["conv_act", "conv_groups"] {
        f.take::<serde_json::Value>(field)?;
    }
    f.only("attention_head_size", sizes.hidden / sizes.heads)?;
    f.only("embedding_size", sizes.hidden)?;
    f.only("pooler_hidden_size", sizes.hidden)?;
    let config = Config {
        vocab_size: sizes.vocab,
        hidden_size: sizes.hidden,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        intermediate_size: sizes.inner,
        hidden_act: match Activation::take(f, "hidden_act", Activation::INNER)? {
            Activation::Relu => HiddenAct::Relu,
            Activation::GeluTanh => HiddenAct::GeluApproximate,
            Activation::Gelu | Activation::Tanh => HiddenAct::Gelu,
        },
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        max_position_embeddings: sizes.positions,
        type_vocab_size: types,
        initializer_range: 0.02,
        layer_norm_eps: f.or("layer_norm_eps", 1e-7)?,
        relative_attention: f.or("relative_attention", false)?,
        max_relative_positions: f.or("max_relative_positions", -1)?,
        pad_token_id: f.take("pad_token_id")?,
        position_biased_input: f.or("position_biased_input", true)?,
        pos_att_type: kinds(f)?,
        position_buckets: f.take("position_buckets")?,
        share_att_key: f.take("share_att_key")?,
        attention_head_size: None,
        embedding_size: None,
        norm_rel_ebd: norm(f)?,
        conv_kernel_size: None,
        conv_groups: None,
        conv_act: None,
        id2label: None,
        label2id: None,
        pooler_dropout: None,
        pooler_hidden_act: None,
        pooler_hidden_size: None,
        cls_dropout: None,
    };
    check_span(&config)?;
    let known = [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh];
    let activation = Activation::take(f, "pooler_hidden_act", &known)?;
    let top =
        Top { pool: Pool::First, dense: "pooler.dense", bias: true, activation, norm: None, classifier: "classifier" };
    // Where positions are relative only, none is the last; but no model was trained beyond it.
    let room = Room { vocab: sizes.vocab, positions: sizes.positions, types };
    Parts { hidden: sizes.hidden, top, room }.build(weights, labels, |vb| {
        let body = DebertaV2Model::load(vb.pp("deberta"), &config)?;
        Ok(Box::new(move |ids: &Tensor, types: &Tensor| body.forward(ids, Some(types.clone()), None)) as Body)
    })
}

/// "p2c|c2p", or a list.
fn kinds(f: &mut Fields) -> Said<Vec<String>> {
    let kinds = match f.take::<Kinds>("pos_att_type")? {
        None => vec![],
        Some(Kinds::One(text)) => text.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect(),
        Some(Kinds::List(list)) => list,
    };
    match kinds.iter().find(|kind| !["c2p", "p2c"].contains(&kind.as_str())) {
        Some(other) => Err(format!("says pos_att_type = \"{other}\"; this plugin knows c2p and p2c")),
        None => Ok(kinds),
    }
}

fn norm(f: &mut Fields) -> Said<Option<String>> {
    match f.take::<String>("norm_rel_ebd")?.map(|n| n.trim().to_lowercase()) {
        Some(other) if !["none", "layer_norm"].contains(&other.as_str()) => {
            Err(format!("says norm_rel_ebd = \"{other}\"; this plugin knows none and layer_norm"))
        }
        said => Ok(said),
    }
}

/// Relative positions that a table of at most a million rows has room for.
fn check_span(config: &Config) -> Said<()> {
    let (span, buckets) = (config.max_relative_positions, config.position_buckets.unwrap_or(-1));
    let odd = |name: &str, value: isize| Err(format!("says {name} = {value}, which makes no model"));
    match (span, buckets) {
        (span, _) if span > 1_000_000 => odd("max_relative_positions", span),
        (_, buckets) if buckets > 1_000_000 || buckets == 1 => odd("position_buckets", buckets),
        _ => Ok(()),
    }
}
