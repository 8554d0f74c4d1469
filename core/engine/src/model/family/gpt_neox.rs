//! GPT-NeoX and Pythia: attention and MLP side by side, a part of each head rotated, query, key and value head by head.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::rope;
use crate::model::shape::{Activation, Norm, Shape, activation, bias};
use serde_json::json;

pub struct GptNeoX;

const NAMES: Names = Names {
    prefix: "gpt_neox.",
    embed: "gpt_neox.embed_in",
    layers: "gpt_neox.layers",
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    qkv: &["attention.query_key_value"],
    o: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    buffers: &["rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"],
    by_head: true,
    ..Names::LLAMA
};

impl Arch for GptNeoX {
    fn model_type(&self) -> &'static str {
        "gpt_neox"
    }

    fn class(&self) -> &'static str {
        "GPTNeoX"
    }

    fn usual(&self) -> Usual {
        Usual { tied: false, bos: Some(0), eos: Some(2), pad: None }
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = Shape::sizes(f)?;
        shape.norm = Norm::Layer(f.take("layer_norm_eps")?.unwrap_or(1e-5));
        shape.activation = activation(f, "hidden_act", Activation::Gelu)?;
        shape.qkv_bias = bias(f, "attention_bias", true)?;
        shape.o_bias = shape.qkv_bias;
        (shape.mlp_bias, shape.gated) = (true, false);
        shape.parallel = f.take("use_parallel_residual")?.unwrap_or(true);
        rotate(&mut shape, f)?;
        Ok(shape)
    }
}

/// Base and share have names of their own.
fn rotate(shape: &mut Shape, f: &mut Fields) -> Said<()> {
    let theta = f.take("rotary_emb_base")?.unwrap_or(10_000.0);
    let beside: f64 = f.take("rotary_pct")?.unwrap_or(0.25);
    // Which transformers does not read for this family.
    f.harmless(&["rope_theta", "partial_rotary_factor"]);
    let (name, mut said) = rope::parameters(f)?;
    let share = said.shift_remove("partial_rotary_factor").unwrap_or(json!(beside));
    let share = share.as_f64().ok_or("says partial_rotary_factor, which is no number")?;
    let rope = rope::one(name, said, theta, rope::part(share, shape.head_dim)?, None, &mut shape.context)?;
    shape.rotate_all(rope);
    Ok(())
}
