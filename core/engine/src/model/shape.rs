//! What a decoder computes, as plain data: sizes, and where families differ from each other.

use super::rope::{self, Rope};
use crate::fields::{Fields, Said};

#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub context: i64,
    pub norm: Norm,
    /// Whether query, key and value have a bias; the output of attention; the layers of the MLP.
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub qk_norm: QkNorm,
    /// `down(act(gate(x)) · up(x))` instead of `down(act(up(x)))`.
    pub gated: bool,
    pub activation: Activation,
    /// Attention and MLP both see the layer's input.
    pub parallel: bool,
    /// What embeddings are multiplied by, rounded to the type of computing.
    pub embed_scale: Option<f64>,
    /// `cap · tanh(x / cap)` of attention scores, and of logits.
    pub scores_cap: Option<f64>,
    pub logits_cap: Option<f64>,
    /// Positions have embeddings.
    pub learned_positions: bool,
    /// Ways to rotate queries and keys by position.
    pub ropes: Vec<Rope>,
    pub layers: Vec<LayerShape>,
}

/// Where layers differ from each other.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// A query sees so many positions, its own included.
    pub window: Option<i64>,
    /// Which of the ropes; none.
    pub rope: Option<usize>,
    /// What `q·k` is multiplied by.
    pub scale: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square, `w · x̂`.
    Rms(f64),
    /// The same with `(1 + w) · x̂`.
    RmsPlusOne(f64),
    /// Mean and deviation, `w · x̂ + b`.
    Layer(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Of each head.
    Heads,
    /// Of all heads together, before they are told apart.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    Relu,
}

/// No size is larger: so products of two sizes can be computed, and no model that exists is kept out.
const MAX_SIZE: i64 = 1 << 30;

impl Shape {
    /// From the fields that most families share: gated MLP, pre-norms by root mean square, one way to rotate. `theta` is the base of
    /// rotations where the file says none.
    pub fn usual(f: &mut Fields, theta: f64) -> Said<Self> {
        let mut shape = Self::sizes(f)?;
        shape.norm = Norm::Rms(f.take("rms_norm_eps")?.unwrap_or(1e-6));
        shape.activation = activation(f, "hidden_act", Activation::Silu)?;
        let rope = rope::read(f, theta, shape.head_dim, &mut shape.context)?;
        shape.rotate_all(rope);
        Ok(shape)
    }

    /// The sizes, under the names that most families use. Nothing is rotated yet.
    pub fn sizes(f: &mut Fields) -> Said<Self> {
        let (hidden_size, heads) = (f.need("hidden_size")?, f.need::<i64>("num_attention_heads")?);
        let head_dim = f.take("head_dim")?.unwrap_or(i64::checked_div(hidden_size, heads).unwrap_or(0));
        Self {
            vocab_size: f.need("vocab_size")?,
            hidden_size,
            intermediate_size: f.need("intermediate_size")?,
            heads,
            kv_heads: f.take("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            context: f.need("max_position_embeddings")?,
            norm: Norm::Rms(1e-6),
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: QkNorm::None,
            gated: true,
            activation: Activation::Silu,
            parallel: false,
            embed_scale: None,
            scores_cap: None,
            logits_cap: None,
            learned_positions: false,
            ropes: vec![],
            layers: vec![],
        }
        .with_layers(f.need("num_hidden_layers")?)
    }

    /// So many layers that are all alike. The sizes are checked, so that nothing that follows can overflow.
    pub fn with_layers(mut self, layers: i64) -> Said<Self> {
        for (name, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.context),
        ] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(format!("says {name} = {size}; it must be at least 1 and at most 2^30"));
            }
        }
        if layers > MAX_LAYERS {
            return Err(format!("says num_hidden_layers = {layers}; no model has more than {MAX_LAYERS}"));
        }
        if self.heads % self.kv_heads != 0 {
            let (heads, kv) = (self.heads, self.kv_heads);
            return Err(format!(
                "says {heads} attention heads over {kv} key-value heads; the first must be a multiple of the second"
            ));
        }
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        self.layers = vec![LayerShape { window: None, rope: None, scale }; layers as usize];
        Ok(self)
    }

    /// Every layer rotates in this way.
    pub fn rotate_all(&mut self, rope: Rope) {
        self.ropes = vec![rope];
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(0));
    }

    /// Layers for which `slides` holds see a window only.
    pub fn slide(&mut self, window: Option<i64>, slides: &[bool]) -> Said<()> {
        if let Some(odd) = window.filter(|w| *w < 1) {
            return Err(format!("says sliding_window = {odd}; it must be at least 1"));
        }
        for (layer, _) in self.layers.iter_mut().zip(slides).filter(|(_, slides)| **slides) {
            layer.window = window;
        }
        Ok(())
    }

    /// What cannot be true of any decoder.
    pub fn check(&self) -> Said<()> {
        let (Norm::Rms(eps) | Norm::RmsPlusOne(eps) | Norm::Layer(eps)) = self.norm;
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(format!("says rms_norm_eps = {eps}; it must be 0 or more"));
        }
        for (name, cap) in [("attn_logit_softcapping", self.scores_cap), ("final_logit_softcapping", self.logits_cap)] {
            if let Some(odd) = cap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
                return Err(format!("says {name} = {odd}; it must be above 0"));
            }
        }
        if let Some(odd) = self.layers.iter().find(|layer| !layer.scale.is_finite()) {
            return Err(format!("says that attention scores are multiplied by {}", odd.scale));
        }
        self.ropes.iter().try_for_each(|rope| rope.check(self.head_dim))
    }

    pub fn queries_per_kv(&self) -> i64 {
        self.heads / self.kv_heads
    }
}

/// More would only fill the memory with complaints.
const MAX_LAYERS: i64 = 100_000;

/// A flag that switches biases on.
pub fn bias(f: &mut Fields, name: &str, usual: bool) -> Said<bool> {
    Ok(f.take(name)?.unwrap_or(usual))
}

/// The activation that a field names.
pub fn activation(f: &mut Fields, field: &str, usual: Activation) -> Said<Activation> {
    match f.take::<String>(field)?.as_deref() {
        None => Ok(usual),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some(other) => Err(format!(
            "says {field} = \"{other}\"; motrain knows \"silu\", \"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" and \"relu\""
        )),
    }
}

/// Which layers slide: what `layer_types` says, else what the family does.
pub fn sliding(f: &mut Fields, layers: usize, usual: impl Fn(usize) -> bool) -> Said<Vec<bool>> {
    let Some(types) = f.take::<Vec<String>>("layer_types")? else { return Ok((0..layers).map(usual).collect()) };
    if types.len() < layers {
        return Err(format!("says {} layer_types for {layers} layers", types.len()));
    }
    let one = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => Err(format!(
            "says layer_types with \"{other}\"; motrain knows \"full_attention\" and \"sliding_attention\""
        )),
    };
    types[..layers].iter().map(one).collect()
}

/// A field that is there or not: null is none, a file that does not say it has the family's.
pub fn optional<T: serde::de::DeserializeOwned>(f: &mut Fields, name: &str, usual: Option<T>) -> Said<Option<T>> {
    if f.has(name) { f.take(name) } else { Ok(usual) }
}
