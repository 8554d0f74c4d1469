//! Gemma 3's text models: Gemma 2 with normed queries and keys, and other rotations in sliding layers than in full ones.

use super::gemma2;
use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::rope;
use crate::model::shape::{QkNorm, Shape, optional, sliding};
use serde_json::{Map, Value};

pub struct Gemma3;

impl Arch for Gemma3 {
    fn model_type(&self) -> &'static str {
        "gemma3_text"
    }

    fn class(&self) -> &'static str {
        "Gemma3"
    }

    fn classes(&self) -> [String; 2] {
        ["Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"].map(Into::into)
    }

    fn usual(&self) -> Usual {
        gemma2::Gemma2.usual()
    }

    fn names(&self) -> &'static Names {
        &gemma2::NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        let mut shape = gemma2::shared(f)?;
        shape.qk_norm = QkNorm::Heads;
        shape.logits_cap = f.take("final_logit_softcapping")?;
        let every: usize = f.take("sliding_window_pattern")?.unwrap_or(6);
        if every == 0 {
            return Err("says sliding_window_pattern = 0; it must be at least 1".into());
        }
        // transformers hands the first on to nothing, and does not read the second.
        f.harmless(&["attn_logit_softcapping", "_sliding_window_pattern"]);
        let slides = sliding(f, shape.layers.len(), |i| (i + 1) % every != 0)?;
        shape.slide(optional(f, "sliding_window", Some(4096))?, &slides)?;
        rotate(&mut shape, f, &slides)?;
        Ok(shape)
    }
}

/// rope_parameters says both ways by the kind of layer; in older files rope_scaling is of the full layers.
fn rotate(shape: &mut Shape, f: &mut Fields, slides: &[bool]) -> Said<()> {
    let full_theta = f.take("rope_theta")?.unwrap_or(1_000_000.0);
    let local_theta = f.take("rope_local_base_freq")?.unwrap_or(10_000.0);
    let (name, mut said) = rope::parameters(f)?;
    let mut of = |kind: &str| match said.shift_remove(kind) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut full, sliding) = (of("full_attention"), of("sliding_attention"));
    if name == "rope_scaling" {
        full.extend(said);
    } else if let Some((key, _)) = said.iter().next() {
        return Err(format!(
            "says {key} in rope_parameters, beside or instead of full_attention and sliding_attention"
        ));
    }
    let (dims, context) = (shape.head_dim, &mut shape.context);
    let full = rope::one(name, full, full_theta, dims, None, context)?;
    let sliding = rope::one(name, sliding, local_theta, dims, None, context)?;
    shape.ropes = vec![full, sliding];
    for (layer, slides) in shape.layers.iter_mut().zip(slides) {
        layer.rope = Some(usize::from(*slides));
    }
    Ok(())
}
