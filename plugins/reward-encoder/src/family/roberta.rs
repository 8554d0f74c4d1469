//! RoBERTa and XLM-RoBERTa, which are one network: positions are counted from behind the id of the pad token.

use super::{Activation, Body, Network, Parts, Sizes};
use crate::fields::{Fields, Said};
use crate::head::{Pool, Top};
use crate::tokens::Room;
use crate::weights::Weights;
use candle_core::Tensor;
use candle_transformers::models::xlm_roberta::{Config, XLMRobertaModel};

pub fn make(f: &mut Fields, weights: Weights, labels: Option<usize>) -> Said<Network> {
    let sizes = Sizes::take(f)?;
    f.only("position_embedding_type", "absolute")?;
    f.only("is_decoder", false)?;
    f.only("add_cross_attention", false)?;
    let pad: u32 = f.or("pad_token_id", 1)?;
    let config = Config {
        hidden_size: sizes.hidden,
        layer_norm_eps: f.or("layer_norm_eps", 1e-12)?,
        attention_probs_dropout_prob: 0.0,
        hidden_dropout_prob: 0.0,
        num_attention_heads: sizes.heads,
        position_embedding_type: "absolute".into(),
        intermediate_size: sizes.inner,
        hidden_act: match Activation::take(f, "hidden_act", Activation::INNER)? {
            Activation::Relu => candle_nn::Activation::Relu,
            Activation::GeluTanh => candle_nn::Activation::NewGelu,
            Activation::Gelu | Activation::Tanh => candle_nn::Activation::Gelu,
        },
        num_hidden_layers: sizes.layers,
        vocab_size: sizes.vocab,
        max_position_embeddings: sizes.positions,
        type_vocab_size: f.or("type_vocab_size", 2)?,
        pad_token_id: pad,
    };
    let positions = sizes.positions.checked_sub(pad as usize + 1).filter(|left| *left > 0).ok_or_else(|| {
        format!("says max_position_embeddings = {}, none of which lies behind pad_token_id = {pad}", sizes.positions)
    })?;
    let top = Top {
        pool: Pool::First,
        dense: "classifier.dense",
        bias: true,
        activation: Activation::Tanh,
        norm: None,
        classifier: "classifier.out_proj",
    };
    // transformers' tokenizers of this family give no token types.
    let room = Room { vocab: sizes.vocab, positions, types: 0 };
    Parts { hidden: sizes.hidden, top, room }.build(weights, labels, |vb| {
        let body = XLMRobertaModel::new(&config, vb.pp("roberta"))?;
        Ok(Box::new(move |ids: &Tensor, types: &Tensor| body.forward(ids, &ids.ones_like()?, types, None, None, None))
            as Body)
    })
}
