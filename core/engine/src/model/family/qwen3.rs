//! Qwen 3: each head's query and key are normed.

use super::qwen2::slide;
use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Usual};
use crate::model::shape::{QkNorm, Shape, bias};

pub struct Qwen3;

impl Arch for Qwen3 {
    fn model_type(&self) -> &'static str {
        "qwen3"
    }

    fn class(&self) -> &'static str {
        "Qwen3"
    }

    fn usual(&self) -> Usual {
        Usual::default()
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        f.usual("head_dim", 128);
        let mut shape = Shape::usual(f, 10_000.0)?;
        shape.qkv_bias = bias(f, "attention_bias", false)?;
        shape.o_bias = shape.qkv_bias;
        shape.qk_norm = QkNorm::Heads;
        slide(&mut shape, f)?;
        Ok(shape)
    }
}
