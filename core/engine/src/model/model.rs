//! The Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
//!
//! Master weights are f32. Query, key and value projections are kept as one matrix, gate and up as another: fewer, larger
//! products, which is what a CPU wants; loading and saving translate to the checkpoint's names.

use super::config::{Config, Head};
use crate::Result;
use motrain_core::rng::Rng;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

/// A model: configuration and named f32 master weights.
pub struct Llama {
    pub config: Config,
    pub params: Vec<(String, Tensor)>,
}

/// A parameter of the fused layout: its name, its shape, and the checkpoint's tensors that it is stacked from (name, rows).
pub(super) struct Slot {
    pub name: String,
    pub shape: Vec<i64>,
    pub parts: Vec<(String, i64)>,
}

impl Slot {
    fn plain(name: &str, shape: &[i64]) -> Self {
        Self { name: name.into(), shape: shape.into(), parts: vec![(name.into(), shape[0])] }
    }

    fn stacked(name: String, columns: i64, parts: &[(String, i64)]) -> Self {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        Self { name, shape: vec![rows, columns], parts: parts.to_vec() }
    }
}

/// All parameters in order. `Net::of` reads them in the same order.
pub(super) fn slots(c: &Config) -> Vec<Slot> {
    let (d, f) = (c.hidden_size, c.intermediate_size);
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let mut out = vec![Slot::plain("model.embed_tokens.weight", &[c.vocab_size, d])];
    for i in 0..c.layers {
        let at = |name: &str| format!("model.layers.{i}.{name}.weight");
        out.push(Slot::plain(&at("input_layernorm"), &[d]));
        let qkv = [(at("self_attn.q_proj"), q), (at("self_attn.k_proj"), kv), (at("self_attn.v_proj"), kv)];
        out.push(Slot::stacked(at("self_attn.qkv_proj"), d, &qkv));
        out.push(Slot::plain(&at("self_attn.o_proj"), &[d, q]));
        out.push(Slot::plain(&at("post_attention_layernorm"), &[d]));
        out.push(Slot::stacked(at("mlp.gate_up_proj"), d, &[(at("mlp.gate_proj"), f), (at("mlp.up_proj"), f)]));
        out.push(Slot::plain(&at("mlp.down_proj"), &[d, f]));
    }
    out.push(Slot::plain("model.norm.weight", &[d]));
    match c.head {
        Head::TiedLm => {}
        Head::Lm => out.push(Slot::plain("lm_head.weight", &[c.vocab_size, d])),
        Head::Score => out.push(Slot::plain("score.weight", &[1, d])),
    }
    out
}

struct Layer {
    input_norm: Tensor,
    qkv: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate_up: Tensor,
    down: Tensor,
}

/// The network in its compute type. Under autograd the cast is part of the graph, so gradients reach the f32 masters.
pub struct Net {
    pub config: Config,
    embed: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    dtype: Kind,
}

/// What a token may attend to.
pub enum Mask<'a> {
    /// Itself and all before it.
    Causal,
    /// Additive, `[batch, 1, queries, keys]`: 0 or −∞.
    Additive(&'a Tensor),
}

/// Keys and values of earlier tokens, `[batch, kv_heads, capacity, head_dim]` a layer.
pub struct Cache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// Positions filled so far.
    pub length: i64,
}

impl Cache {
    fn new(config: &Config, batch: i64, capacity: i64, dtype: Kind, device: Device) -> Result<Self> {
        let make = || Tensor::f_zeros([batch, config.kv_heads, capacity, config.head_dim], (dtype, device));
        let keys = (0..config.layers).map(|_| make()).collect::<std::result::Result<_, _>>()?;
        let values = (0..config.layers).map(|_| make()).collect::<std::result::Result<_, _>>()?;
        Ok(Self { keys, values, length: 0 })
    }

    /// Keeps only these rows of the batch (repeats allowed), with room for `capacity` positions.
    pub fn select(&self, rows: &Tensor, capacity: i64) -> Result<Self> {
        let take = |from: &Tensor| -> Result<Tensor> {
            let size = from.size();
            let out = Tensor::f_zeros([rows.size1()?, size[1], capacity, size[3]], (from.f_kind()?, from.device()))?;
            out.f_narrow(2, 0, self.length)?.f_copy_(&from.f_narrow(2, 0, self.length)?.f_index_select(0, rows)?)?;
            Ok(out)
        };
        let keys = self.keys.iter().map(take).collect::<Result<_>>()?;
        let values = self.values.iter().map(take).collect::<Result<_>>()?;
        Ok(Self { keys, values, length: self.length })
    }
}

impl Llama {
    /// A model with random weights: normal with deviation 0.02 (residual projections scaled down by depth), norms at 1.
    pub fn init(config: Config, seed: u64, device: Device) -> Result<Self> {
        let mut rng = Rng::seed_from_u64(seed);
        let residual = 0.02 / (2.0 * config.layers as f64).sqrt();
        let params = slots(&config)
            .into_iter()
            .map(|slot| {
                let std = if slot.name.ends_with("o_proj.weight") || slot.name.ends_with("down_proj.weight") {
                    residual
                } else {
                    0.02
                };
                let tensor = match slot.shape.len() {
                    1 => Tensor::f_ones(&slot.shape, (Kind::Float, device))?,
                    _ => normal(&slot.shape, std, &mut rng)?.f_to_device(device)?,
                };
                Ok((slot.name, tensor))
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, params })
    }

    /// The backbone's first `layers` layers (0: all) with a new scalar head of deviation 1/√(d+1).
    pub fn into_reward_model(mut self, layers: i64, seed: u64) -> Result<Self> {
        let keep = if layers == 0 { self.config.layers } else { layers.min(self.config.layers) };
        self.config.layers = keep;
        self.config.head = Head::Score;
        let wanted = slots(&self.config);
        let device = self.params[0].1.device();
        let width = self.config.hidden_size;
        let score = normal(&[1, width], 1.0 / ((width + 1) as f64).sqrt(), &mut Rng::seed_from_u64(seed))?;
        self.params.retain(|(name, _)| wanted.iter().any(|slot| slot.name == *name));
        self.params.push(("score.weight".into(), score.f_to_device(device)?));
        Ok(self)
    }

    pub fn device(&self) -> Device {
        self.params[0].1.device()
    }

    /// A copy that training does not move.
    pub fn frozen_copy(&self) -> Result<Self> {
        let copy = |(name, p): &(String, Tensor)| Ok((name.clone(), p.f_detach_copy()?));
        Ok(Self { config: self.config.clone(), params: self.params.iter().map(copy).collect::<Result<_>>()? })
    }

    pub fn require_grad(&mut self) -> Result<()> {
        for (_, p) in &mut self.params {
            *p = p.f_set_requires_grad(true)?;
        }
        Ok(())
    }

    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|(_, p)| p.numel()).sum()
    }

    /// The network, computing in `dtype`.
    pub fn net(&self, dtype: Kind) -> Result<Net> {
        Net::of(self, dtype)
    }
}

impl Net {
    /// Parameters; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let layer = |l: &Layer| [&l.input_norm, &l.qkv, &l.o, &l.post_norm, &l.gate_up, &l.down].map(Tensor::numel);
        let head = if self.config.head == Head::TiedLm { 0 } else { self.head.numel() };
        self.embed.numel() + self.layers.iter().flat_map(layer).sum::<usize>() + self.norm.numel() + head
    }

    fn of(model: &Llama, dtype: Kind) -> Result<Self> {
        let mut params = model.params.iter().map(|(_, p)| p.f_to_kind(dtype));
        let mut next = || -> Result<Tensor> {
            params.next().ok_or_else(|| crate::Error::invalid("the model has too few parameters"))?.map_err(Into::into)
        };
        let embed = next()?;
        let layers = (0..model.config.layers)
            .map(|_| {
                Ok(Layer {
                    input_norm: next()?,
                    qkv: next()?,
                    o: next()?,
                    post_norm: next()?,
                    gate_up: next()?,
                    down: next()?,
                })
            })
            .collect::<Result<_>>()?;
        let norm = next()?;
        let head = if model.config.head == Head::TiedLm { embed.shallow_clone() } else { next()? };
        Ok(Self { config: model.config.clone(), embed, layers, norm, head, dtype })
    }

    pub fn device(&self) -> Device {
        self.embed.device()
    }

    pub fn dtype(&self) -> Kind {
        self.dtype
    }

    pub fn new_cache(&self, batch: i64, capacity: i64) -> Result<Cache> {
        Cache::new(&self.config, batch, capacity, self.dtype, self.device())
    }

    /// Hidden states after the final norm, `[batch, length, hidden]`. `ids` and `positions` are `[batch, length]` (i64). With a
    /// cache, its keys and values come first and the new ones are appended.
    pub fn hidden(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        mask: &Mask,
        mut cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let rotary = self.rotary(positions)?;
        let mut x = Tensor::f_embedding(&self.embed, ids, -1, false, false)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let normed = self.rms_norm(&x, &layer.input_norm)?;
            let slot = cache.as_deref_mut().map(|c| (&mut c.keys[i], &mut c.values[i], c.length));
            x = x.f_add(&self.attention(layer, &normed, &rotary, mask, slot)?)?;
            let normed = self.rms_norm(&x, &layer.post_norm)?;
            x = x.f_add(&mlp(layer, &normed)?)?;
        }
        if let Some(cache) = cache {
            cache.length += ids.size2()?.1;
        }
        self.rms_norm(&x, &self.norm)
    }

    /// Next-token logits (f32) of hidden states, `[…, vocab]`; the score `[…, 1]` of a reward model.
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(linear(hidden, &self.head)?.f_to_kind(Kind::Float)?)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let wide = x.f_to_kind(Kind::Float)?;
        let mean_square = wide.f_square()?.f_mean_dim(-1, true, Kind::Float)?;
        let normed = wide.f_mul(&mean_square.f_add_scalar(self.config.rms_norm_eps)?.f_rsqrt()?)?;
        Ok(weight.f_mul(&normed.f_to_kind(self.dtype)?)?)
    }

    /// cos and sin of the rotation angles, each `[batch, 1, length, head_dim]`.
    fn rotary(&self, positions: &Tensor) -> Result<(Tensor, Tensor)> {
        let half = Tensor::f_arange_start_step(0, self.config.head_dim, 2, (Kind::Float, positions.device()))?;
        let exponent = half.f_div_scalar(self.config.head_dim as f64)?;
        let frequency = Tensor::f_pow_scalar(self.config.rope_theta, &exponent)?.f_reciprocal()?;
        let angle = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequency)?;
        let angle = Tensor::f_cat(&[&angle, &angle], -1)?.f_unsqueeze(1)?;
        Ok((angle.f_cos()?.f_to_kind(self.dtype)?, angle.f_sin()?.f_to_kind(self.dtype)?))
    }

    fn attention(
        &self,
        layer: &Layer,
        x: &Tensor,
        (cos, sin): &(Tensor, Tensor),
        mask: &Mask,
        cache: Option<(&mut Tensor, &mut Tensor, i64)>,
    ) -> Result<Tensor> {
        let c = &self.config;
        let (batch, length, _) = x.size3()?;
        let heads = c.heads + 2 * c.kv_heads;
        let qkv = linear(x, &layer.qkv)?.f_view([batch, length, heads, c.head_dim])?.f_transpose(1, 2)?;
        // Queries and keys are rotated together: they lie side by side.
        let qk = qkv.f_narrow(1, 0, c.heads + c.kv_heads)?;
        let halves = qk.f_chunk(2, -1)?;
        let rotated = Tensor::f_cat(&[halves[1].f_neg()?, halves[0].shallow_clone()], -1)?;
        let qk = qk.f_mul(cos)?.f_add(&rotated.f_mul(sin)?)?;
        let q = qk.f_narrow(1, 0, c.heads)?;
        let mut k = qk.f_narrow(1, c.heads, c.kv_heads)?;
        let mut v = qkv.f_narrow(1, c.heads + c.kv_heads, c.kv_heads)?;
        if let Some((keys, values, start)) = cache {
            keys.f_narrow(2, start, length)?.f_copy_(&k)?;
            values.f_narrow(2, start, length)?.f_copy_(&v)?;
            k = keys.f_narrow(2, 0, start + length)?;
            v = values.f_narrow(2, 0, start + length)?;
        }
        let out = if length == 1 { self.attend_one(&q, &k, &v, mask)? } else { self.attend_many(&q, &k, &v, mask)? };
        let out = out.f_transpose(1, 2)?.f_reshape([batch, length, c.heads * c.head_dim])?;
        linear(&out, &layer.o)
    }

    /// One query per sequence: the query group is folded into the query length, so that keys are not repeated.
    fn attend_one(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
        let c = &self.config;
        let batch = q.size4()?.0;
        let q = q.f_reshape([batch, c.kv_heads, c.queries_per_kv(), c.head_dim])?;
        let mut scores = q.f_matmul(&k.f_transpose(2, 3)?)?.f_mul_scalar(1.0 / (c.head_dim as f64).sqrt())?;
        if let Mask::Additive(mask) = mask {
            scores = scores.f_add(mask)?;
        }
        let weights = scores.f_softmax(-1, Kind::Float)?.f_to_kind(self.dtype)?;
        Ok(weights.f_matmul(v)?.f_reshape([batch, c.heads, 1, c.head_dim])?)
    }

    fn attend_many(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
        let repeat = |t: &Tensor| -> Result<Tensor> {
            let (batch, kv, length, dim) = t.size4()?;
            let group = self.config.queries_per_kv();
            let wide = t.f_unsqueeze(2)?.f_expand([batch, kv, group, length, dim], false)?;
            Ok(wide.f_reshape([batch, kv * group, length, dim])?)
        };
        let (mask, causal) = match mask {
            Mask::Causal => (None, true),
            Mask::Additive(mask) => (Some(*mask), false),
        };
        Ok(Tensor::f_scaled_dot_product_attention(q, &repeat(k)?, &repeat(v)?, mask, 0.0, causal, None, false)?)
    }
}

/// Normal numbers of mean 0, `shape`: drawn here, since libtorch's generator is one for the whole process.
fn normal(shape: &[i64], std: f64, rng: &mut Rng) -> Result<Tensor> {
    let count: i64 = shape.iter().product();
    let numbers: Vec<f32> =
        (0..count).map(|_| std as f32 * Distribution::<f32>::sample(&StandardNormal, rng)).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view(shape)?)
}

fn mlp(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let gate_up = linear(x, &layer.gate_up)?.f_chunk(2, -1)?;
    linear(&gate_up[0].f_silu()?.f_mul(&gate_up[1])?, &layer.down)
}

/// Rows up to which f32 products on a CPU are faster as `W·xᵀ` than as `x·Wᵀ`: up to 2.7 times for the output head.
const FEW_ROWS: i64 = 96;

/// `x·Wᵀ`: `x` is `[…, in]`, the weight `[out, in]`.
fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut shape = x.size();
    let rows = (x.numel() as i64) / weight.size()[1];
    if rows == 1 || rows > FEW_ROWS || x.device() != Device::Cpu || x.f_kind()? != Kind::Float {
        return Ok(x.f_linear(weight, None::<&Tensor>)?);
    }
    let columns = x.f_reshape([rows, -1])?.f_transpose(0, 1)?;
    shape.pop();
    shape.push(weight.size()[0]);
    Ok(weight.f_mm(&columns)?.f_transpose(0, 1)?.f_reshape(shape)?)
}
