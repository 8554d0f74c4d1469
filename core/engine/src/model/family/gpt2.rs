//! GPT-2: learned positions, norms by mean and deviation, a plain MLP, matrices stored `[in, out]`.

use crate::fields::{Fields, Said};
use crate::model::arch::{Arch, Names, Usual};
use crate::model::shape::{Activation, Norm, Shape, activation};

pub struct Gpt2;

const NAMES: Names = Names {
    layer_count: "n_layer",
    prefix: "transformer.",
    embed: "transformer.wte",
    positions: Some("transformer.wpe"),
    layers: "transformer.h",
    norm: "transformer.ln_f",
    before_attention: Some("ln_1"),
    before_mlp: Some("ln_2"),
    qkv: &["attn.c_attn"],
    o: "attn.c_proj",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    buffers: &[".attn.bias", ".attn.masked_bias"],
    transposed: true,
    ..Names::LLAMA
};

impl Arch for Gpt2 {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn class(&self) -> &'static str {
        "GPT2"
    }

    fn classes(&self) -> [String; 2] {
        ["GPT2LMHeadModel", "GPT2ForSequenceClassification"].map(Into::into)
    }

    fn usual(&self) -> Usual {
        Usual { tied: true, bos: Some(50_256), eos: Some(50_256), pad: None }
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn shape(&self, f: &mut Fields) -> Said<Shape> {
        for (here, usual) in [
            ("n_embd", "hidden_size"),
            ("n_head", "num_attention_heads"),
            ("n_layer", "num_hidden_layers"),
            ("n_positions", "max_position_embeddings"),
            ("n_inner", "intermediate_size"),
        ] {
            f.rename(here, usual);
        }
        if let Some(hidden) = f.peek("hidden_size") {
            f.usual("intermediate_size", 4 * hidden.clamp(0, 1 << 30));
        }
        let mut shape = Shape::sizes(f)?;
        shape.norm = Norm::Layer(f.take("layer_norm_epsilon")?.unwrap_or(1e-5));
        shape.activation = activation(f, "activation_function", Activation::GeluTanh)?;
        (shape.qkv_bias, shape.o_bias, shape.mlp_bias) = (true, true, true);
        (shape.gated, shape.learned_positions) = (false, true);
        let scaled = f.take("scale_attn_weights")?.unwrap_or(true);
        let by_layer = f.take("scale_attn_by_inverse_layer_idx")?.unwrap_or(false);
        for (i, layer) in shape.layers.iter_mut().enumerate() {
            layer.scale = if scaled { layer.scale } else { 1.0 } / if by_layer { i as f64 + 1.0 } else { 1.0 };
        }
        f.harmless(&[
            "n_ctx",
            // Of the double-head model, and another order of the same product.
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
            "reorder_and_upcast_attn",
        ]);
        Ok(shape)
    }
}
