//! Gemma 2: norms before and after each part, scaled embeddings, capped scores and logits, every other layer sliding.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::rope;
use crate::model::shape::{Activation, Norm, Shape, activation, bias, optional, sliding};

pub struct Gemma2;

pub const NAMES: Names = Names {
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
    ..Names::LLAMA
};

impl Arch for Gemma2 {
    fn model_type(&self) -> &'static str {
        "gemma2"
    }

    fn class(&self) -> &'static str {
        "Gemma2"
    }

    fn usual(&self) -> Usual {
        Usual { tied: true, bos: Some(2), eos: Some(1), pad: Some(0) }
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = shared(f)?;
        let rope = rope::read(f, 10_000.0, shape.head_dim, &mut shape.context)?;
        shape.rotate_all(rope);
        shape.scores_cap = optional(f, "attn_logit_softcapping", Some(50.0))?;
        shape.logits_cap = optional(f, "final_logit_softcapping", Some(30.0))?;
        let slides = sliding(f, shape.layers.len(), |i| i % 2 == 0)?;
        shape.slide(optional(f, "sliding_window", Some(4096))?, &slides)?;
        Ok(shape)
    }
}

/// What Gemma 2 and 3 have in common.
pub fn shared(f: &mut Fields) -> Said<Shape> {
    f.usual("num_key_value_heads", 4);
    f.usual("head_dim", 256);
    let mut shape = Shape::sizes(f)?;
    shape.norm = Norm::RmsPlusOne(f.take("rms_norm_eps")?.unwrap_or(1e-6));
    // Older files say hidden_act too, which transformers does not read.
    f.harmless(&["hidden_act"]);
    shape.activation = activation(f, "hidden_activation", Activation::GeluTanh)?;
    shape.qkv_bias = bias(f, "attention_bias", false)?;
    shape.o_bias = shape.qkv_bias;
    shape.embed_scale = Some((shape.hidden_size as f64).sqrt());
    let scalar: f64 = f.take("query_pre_attn_scalar")?.unwrap_or(256.0);
    shape.layers.iter_mut().for_each(|layer| layer.scale = scalar.powf(-0.5));
    Ok(shape)
}
