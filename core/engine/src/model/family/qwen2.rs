//! Qwen 2 and 2.5: query, key and value have biases; upper layers may slide.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Usual};
use crate::model::shape::{Shape, optional, sliding};

pub struct Qwen2;

impl Arch for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn class(&self) -> &'static str {
        "Qwen2"
    }

    fn usual(&self) -> Usual {
        Usual::default()
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = Shape::usual(f, 10_000.0)?;
        shape.qkv_bias = true;
        slide(&mut shape, f)?;
        Ok(shape)
    }
}

/// Layers from `max_window_layers` on slide, if `use_sliding_window` says so.
pub fn slide(shape: &mut Shape, f: &mut Fields) -> Said<()> {
    let on = f.take("use_sliding_window")?.unwrap_or(false);
    let window = optional(f, "sliding_window", Some(4096))?.filter(|_| on);
    let from: usize = f.take("max_window_layers")?.unwrap_or(28);
    let slides = sliding(f, shape.layers.len(), |i| i >= from)?;
    shape.slide(window, &slides)
}
