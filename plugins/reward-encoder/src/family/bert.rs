//! BERT, and DistilBERT, which is BERT without token types and pooler under other names. candle has a DistilBERT of its own, which computes
//! gelu by the tanh approximation where transformers does not.

use super::{Activation, Body, Network, Parts, Sizes};
use crate::fields::{Fields, Said};
use crate::head::{Pool, Top};
use crate::tokens::Room;
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};

pub const HARMLESS: &[&str] = &[
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
];

pub const DISTILLED_HARMLESS: &[&str] = &["dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_"];

pub fn make(f: &mut Fields, weights: Weights, labels: Option<usize>) -> Said<Network> {
    let sizes = Sizes::take(f)?;
    f.only("position_embedding_type", "absolute")?;
    f.only("is_decoder", false)?;
    f.only("add_cross_attention", false)?;
    let types = f.or("type_vocab_size", 2)?;
    let eps = f.or("layer_norm_eps", 1e-12)?;
    let activation = Activation::take(f, "hidden_act", Activation::INNER)?;
    let top = Top { dense: "bert.pooler.dense", activation: Activation::Tanh, ..TOP };
    let room = Room { vocab: sizes.vocab, positions: sizes.positions, types };
    build(f, &sizes, (types, eps, activation), Parts { hidden: sizes.hidden, top, room }, weights, labels)
}

pub fn make_distilled(f: &mut Fields, weights: Weights, labels: Option<usize>) -> Said<Network> {
    let sizes = Sizes::named(f, ["dim", "n_layers", "n_heads", "hidden_dim"])?;
    f.only("sinusoidal_pos_embds", false)?;
    let activation = Activation::take(f, "activation", Activation::INNER)?;
    let none = Tensor::zeros((1, sizes.hidden), DType::F32, &Device::Cpu).map_err(|e| e.to_string())?;
    let mut weights = weights.named(distilled);
    weights.add("bert.embeddings.token_type_embeddings.weight", none);
    let room = Room { vocab: sizes.vocab, positions: sizes.positions, types: 0 };
    build(f, &sizes, (1, 1e-12, activation), Parts { hidden: sizes.hidden, top: TOP, room }, weights, labels)
}

/// DistilBERT's, of which BERT's differs a little.
const TOP: Top = Top {
    pool: Pool::First,
    dense: "pre_classifier",
    bias: true,
    activation: Activation::Relu,
    norm: None,
    classifier: "classifier",
};

/// A name of BERT's as DistilBERT has it.
fn distilled(name: &str) -> String {
    const NAMES: [(&str, &str); 9] = [
        ("bert.encoder.", "bert.transformer."),
        ("bert.", "distilbert."),
        ("attention.self.query.", "attention.q_lin."),
        ("attention.self.key.", "attention.k_lin."),
        ("attention.self.value.", "attention.v_lin."),
        ("attention.output.dense.", "attention.out_lin."),
        ("attention.output.LayerNorm.", "sa_layer_norm."),
        ("intermediate.dense.", "ffn.lin1."),
        ("output.dense.", "ffn.lin2."),
    ];
    let name = NAMES.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    name.replace("output.LayerNorm.", "output_layer_norm.")
}

fn build(
    f: &mut Fields,
    sizes: &Sizes,
    (types, eps, activation): (usize, f64, Activation),
    parts: Parts,
    weights: Weights,
    labels: Option<usize>,
) -> Said<Network> {
    let config = Config {
        vocab_size: sizes.vocab,
        hidden_size: sizes.hidden,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        intermediate_size: sizes.inner,
        hidden_act: match activation {
            Activation::Relu => HiddenAct::Relu,
            Activation::GeluTanh => HiddenAct::GeluApproximate,
            Activation::Gelu | Activation::Tanh => HiddenAct::Gelu,
        },
        max_position_embeddings: sizes.positions,
        type_vocab_size: types,
        layer_norm_eps: eps,
        pad_token_id: f.or("pad_token_id", 0)?,
        position_embedding_type: PositionEmbeddingType::Absolute,
        // No other names are tried.
        model_type: None,
        ..Config::default()
    };
    parts.build(weights, labels, |vb| {
        let body = BertModel::load(vb.pp("bert"), &config)?;
        Ok(Box::new(move |ids: &Tensor, types: &Tensor| body.forward(ids, types, None)) as Body)
    })
}
