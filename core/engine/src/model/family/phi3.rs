//! Phi 3 and 4-mini: Llama whose checkpoints stack query, key and value, and gate and up; a part of each head may be rotated.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::rope;
use crate::model::shape::{Activation, Norm, Shape, activation};
use serde_json::json;

pub struct Phi3;

const NAMES: Names = Names { qkv: &["self_attn.qkv_proj"], up: &["mlp.gate_up_proj"], ..Names::LLAMA };

impl Arch for Phi3 {
    fn model_type(&self) -> &'static str {
        "phi3"
    }

    fn class(&self) -> &'static str {
        "Phi3"
    }

    fn usual(&self) -> Usual {
        Usual { tied: false, bos: Some(1), eos: Some(32_000), pad: Some(32_000) }
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = Shape::sizes(f)?;
        shape.norm = Norm::Rms(f.take("rms_norm_eps")?.unwrap_or(1e-5));
        shape.activation = activation(f, "hidden_act", Activation::Silu)?;
        let window = f.take("sliding_window")?;
        shape.slide(window, &vec![true; shape.layers.len()])?;
        rotate(&mut shape, f)?;
        Ok(shape)
    }
}

fn rotate(shape: &mut Shape, f: &mut Fields) -> Said<()> {
    let theta = f.take("rope_theta")?.unwrap_or(10_000.0);
    let beside: f64 = f.take("partial_rotary_factor")?.unwrap_or(1.0);
    let original = f.take("original_max_position_embeddings")?.unwrap_or(4096.0);
    let (name, mut said) = rope::parameters(f)?;
    let share = said.shift_remove("partial_rotary_factor").unwrap_or(json!(beside));
    let share = share.as_f64().ok_or("says partial_rotary_factor, which is no number")?;
    // Its early files say "yarn" and mean longrope.
    for key in ["type", "rope_type"] {
        if said.get(key).is_some_and(|kind| kind == "yarn") {
            said.insert(key.into(), json!("longrope"));
        }
    }
    let dims = rope::part(share, shape.head_dim)?;
    let rope = rope::one(name, said, theta, dims, Some(original), &mut shape.context)?;
    shape.rotate_all(rope);
    Ok(())
}
