//! Mistral: Llama with a window. With `layer_types` it is what transformers calls Ministral: a window where they say so.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Usual};
use crate::model::shape::{Shape, optional, sliding};

pub struct Mistral;

impl Arch for Mistral {
    fn model_type(&self) -> &'static str {
        "mistral"
    }

    fn class(&self) -> &'static str {
        "Mistral"
    }

    fn usual(&self) -> Usual {
        Usual { bos: Some(1), eos: Some(2), ..Usual::default() }
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = Shape::usual(f, 10_000.0)?;
        let window = optional(f, "sliding_window", Some(4096))?;
        let slides = sliding(f, shape.layers.len(), |_| true)?;
        shape.slide(window, &slides)?;
        Ok(shape)
    }
}
