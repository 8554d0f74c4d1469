//! OLMo 2: norms after attention and MLP instead of before, queries and keys normed whole.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::shape::{QkNorm, Shape, bias};

pub struct Olmo2;

const NAMES: Names = Names {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
    ..Names::LLAMA
};

impl Arch for Olmo2 {
    fn model_type(&self) -> &'static str {
        "olmo2"
    }

    fn class(&self) -> &'static str {
        "Olmo2"
    }

    fn usual(&self) -> Usual {
        Usual { tied: false, bos: None, eos: Some(50_279), pad: Some(1) }
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        f.usual("rms_norm_eps", 1e-5);
        let mut shape = Shape::usual(f, 10_000.0)?;
        shape.qkv_bias = bias(f, "attention_bias", false)?;
        shape.o_bias = shape.qkv_bias;
        shape.qk_norm = QkNorm::Whole;
        Ok(shape)
    }
}
