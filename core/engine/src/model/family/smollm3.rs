//! SmolLM 3: Llama in which every fourth layer does not rotate.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Usual};
use crate::model::shape::{Shape, bias, sliding};

pub struct SmolLm3;

impl Arch for SmolLm3 {
    fn model_type(&self) -> &'static str {
        "smollm3"
    }

    fn class(&self) -> &'static str {
        "SmolLM3"
    }

    fn usual(&self) -> Usual {
        Usual { tied: true, bos: Some(128_000), eos: Some(128_001), pad: Some(128_004) }
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        f.usual("num_key_value_heads", 4);
        let mut shape = Shape::usual(f, 2_000_000.0)?;
        shape.qkv_bias = bias(f, "attention_bias", false)?;
        shape.o_bias = shape.qkv_bias;
        shape.mlp_bias = bias(f, "mlp_bias", false)?;
        let layers = shape.layers.len();
        let every: usize = f.take("no_rope_layer_interval")?.unwrap_or(4).max(1);
        let rotates: Vec<i64> = match f.take("no_rope_layers")? {
            Some(list) => list,
            None => (0..layers).map(|i| i64::from((i + 1) % every != 0)).collect(),
        };
        if rotates.len() < layers {
            return Err(format!("says {} no_rope_layers for {layers} layers", rotates.len()));
        }
        for (layer, rotates) in shape.layers.iter_mut().zip(&rotates) {
            layer.rope = layer.rope.filter(|_| *rotates != 0);
        }
        let on = f.take("use_sliding_window")?.unwrap_or(false);
        let window = f.take("sliding_window")?.filter(|_| on);
        let slides = sliding(f, layers, |i| rotates[i] == 0)?;
        shape.slide(window, &slides)?;
        f.harmless(&["max_window_layers"]);
        Ok(shape)
    }
}
