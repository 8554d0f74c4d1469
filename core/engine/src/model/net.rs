//! The network of all families, read top-down: embeddings, layers of attention and MLP, final norm, head.
//!
//! Query, key and value projections are kept as one matrix, gate and up as another: fewer, larger products, which is what a CPU wants.

use super::attention::{Masks, attend};
use super::cache::Cache;
use super::config::{Config, Head};
use super::layers::{Change, Dropout, Gain, Linear, Normed, Passing, capped};
use super::lora::Lora;
use super::shape::{LayerShape, Norm, QkNorm, Shape};
use super::slots::{self, slots};
use super::{Adapter, Model};
use crate::{Error, Result};
use motrain_core::rng::Rng;
use rand::SeedableRng;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};

/// The network in its compute type. Under autograd the cast is part of the graph, so gradients reach the f32 masters.
pub struct Net {
    pub config: Config,
    embed: Tensor,
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    norm: Normed,
    head: Linear,
    dtype: Kind,
    passing: Passing,
}

struct Layer {
    before_attention: Option<Normed>,
    qkv: Linear,
    /// Of queries and of keys.
    qk_norms: Option<[Normed; 2]>,
    o: Linear,
    after_attention: Option<Normed>,
    before_mlp: Option<Normed>,
    up: Linear,
    down: Linear,
    after_mlp: Option<Normed>,
}

/// What a token may attend to.
pub enum Mask<'a> {
    /// Itself and all before it.
    Causal,
    /// Additive, `[batch, 1, queries, keys]`: 0 or −∞.
    Additive(&'a Tensor),
}

/// What a layer works with, beside its parameters and inputs.
struct At<'a> {
    shape: &'a Shape,
    kind: &'a LayerShape,
    rotation: Option<&'a Rotation>,
    masks: &'a Masks<'a>,
    passing: &'a Passing,
}

type Changes<'a> = &'a dyn Fn(&str) -> Result<Vec<Change>>;

/// cos and sin of the angles, each `[batch, 1, length, dims]`.
type Rotation = (Tensor, Tensor);

impl Net {
    pub(super) fn of(model: &Model, dtype: Kind) -> Result<Self> {
        Self::with(model, model.lora.as_ref(), dtype)
    }

    /// The base of a model whose adapter trains, by itself; any other model as it is.
    pub(super) fn of_base(model: &Model, dtype: Kind) -> Result<Self> {
        Self::with(model, None, dtype)
    }

    /// A base with several adapters beside each other, each a block with a gain of its own.
    pub(super) fn of_adapters(base: &Model, adapters: &[Adapter], dtype: Kind) -> Result<Self> {
        let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
        for slot in slots(&base.config) {
            let blocks = adapters.iter().enumerate().map(|(block, adapter)| adapter.changes(&slot, block, dtype));
            let mut own: Vec<Change> = blocks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
            own.sort_by_key(|change| change.row);
            changes.insert(slot.name, own);
        }
        let changes = RefCell::new(changes);
        Self::build(base, &|slot| Ok(changes.borrow_mut().remove(slot).unwrap_or_default()), None, dtype)
    }

    fn with(model: &Model, lora: Option<&Lora>, dtype: Kind) -> Result<Self> {
        let changes = |slot: &str| lora.map_or(Ok(vec![]), |lora| lora.changes(slot, dtype));
        Self::build(model, &changes, lora.and_then(Lora::head), dtype)
    }

    /// `changes` are those of a parameter, `trained` takes the place of the head.
    fn build(model: &Model, changes: Changes, trained: Option<&Tensor>, dtype: Kind) -> Result<Self> {
        let params = model.params.iter().map(|(name, p)| (name.as_str(), p)).collect();
        let params = Reader { params, changes, dtype };
        let (config, names) = (model.config.clone(), model.config.arch.names());
        let shape = &config.shape;
        let layers = (0..shape.layers.len()).map(|i| params.layer(&config, i)).collect::<Result<_>>()?;
        let embed = params.tensor(&format!("{}.weight", names.embed))?;
        let positions = match names.positions.filter(|_| shape.learned_positions) {
            Some(name) => Some(params.tensor(&format!("{name}.weight"))?),
            None => None,
        };
        let norm = params.read_norm(names.norm, shape.norm)?;
        let head = match config.head {
            Head::TiedLm => Linear { weight: embed.shallow_clone(), bias: None, changes: vec![] },
            Head::Lm => params.read_linear(names.head, false)?,
            Head::Score => params.read_linear(slots::SCORE, false)?,
        };
        let head = match trained {
            Some(trained) => Linear { weight: trained.f_to_kind(dtype)?, ..head },
            None => head,
        };
        let passing = Passing { gains: vec![], dropout: None };
        Ok(Self { embed, positions, layers, norm, head, config, dtype, passing })
    }

    pub fn device(&self) -> Device {
        self.embed.device()
    }

    pub fn dtype(&self) -> Kind {
        self.dtype
    }

    /// Parameters; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let head = if self.config.head == Head::TiedLm { 0 } else { self.head.numel() };
        let positions = self.positions.as_ref().map_or(0, Tensor::numel);
        let layers: usize = self.layers.iter().map(Layer::numel).sum();
        self.embed.numel() + positions + layers + self.norm.numel() + head
    }

    pub fn new_cache(&self, batch: i64, capacity: i64) -> Result<Cache> {
        Cache::new(self, batch, capacity)
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
        let shape = &self.config.shape;
        let keys = cache.as_deref_mut().map(|cache| cache.place(positions)).transpose()?;
        let masks = Masks::new(shape, mask, positions, keys.as_ref().unwrap_or(positions), self.dtype)?;
        let rotations = shape.ropes.iter().map(|rope| rope.rotation(positions, self.dtype));
        let rotations: Vec<Rotation> = rotations.collect::<Result<_>>()?;
        let mut x = self.embedded(ids, positions)?;
        for (i, (layer, kind)) in self.layers.iter().zip(&shape.layers).enumerate() {
            let rotation = kind.rope.map(|rope| &rotations[rope]);
            let at = At { shape, kind, rotation, masks: &masks, passing: &self.passing };
            let seen = normed(&layer.before_attention, x.shallow_clone())?;
            let cache = cache.as_deref_mut().map(|cache| (i, cache));
            let attended = layer.attention(&seen, &at, cache)?;
            let after = x.f_add(&normed(&layer.after_attention, attended)?)?;
            let seen = normed(&layer.before_mlp, if shape.parallel { x } else { after.shallow_clone() })?;
            x = after.f_add(&normed(&layer.after_mlp, layer.mlp(&seen, &at)?)?)?;
        }
        if let Some(cache) = cache {
            cache.length += ids.size2()?.1;
        }
        self.norm.apply(&x)
    }

    /// The same network whose low-rank changes do not see a share of their inputs.
    pub fn dropping(mut self, share: f64, seed: u64) -> Self {
        let rng = Mutex::new(Rng::seed_from_u64(seed));
        self.passing.dropout = (share > 0.0).then_some(Dropout { share, rng });
        self
    }

    /// The same network with a gain of each block of low-rank changes.
    pub fn gained(mut self, gains: Vec<Gain>) -> Self {
        self.passing.gains = gains;
        self
    }

    /// Next-token logits (f32) of hidden states, `[…, vocab]`; the score `[…, 1]` of a reward model.
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        let out = self.head.apply(hidden, &self.passing)?;
        match self.config.head {
            Head::Score => Ok(out.f_to_kind(Kind::Float)?),
            _ => capped(out.f_to_kind(Kind::Float)?, self.config.shape.logits_cap),
        }
    }

    fn embedded(&self, ids: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let x = Tensor::f_embedding(&self.embed, ids, -1, false, false)?;
        let x = match self.config.shape.embed_scale {
            Some(scale) => x.f_mul(&Tensor::f_from_slice(&[scale])?.f_to_kind(self.dtype)?.f_to_device(x.device())?)?,
            None => x,
        };
        match &self.positions {
            Some(table) => Ok(x.f_add(&Tensor::f_embedding(table, positions, -1, false, false)?)?),
            None => Ok(x),
        }
    }
}

impl Layer {
    fn numel(&self) -> usize {
        let linears = [&self.qkv, &self.o, &self.up, &self.down].map(Linear::numel).iter().sum::<usize>();
        let norms = [&self.before_attention, &self.after_attention, &self.before_mlp, &self.after_mlp];
        let norms = norms.into_iter().flatten().chain(self.qk_norms.iter().flatten());
        linears + norms.map(Normed::numel).sum::<usize>()
    }

    /// `x` is `[batch, length, hidden]`.
    fn attention(&self, x: &Tensor, at: &At, cache: Option<(usize, &mut Cache)>) -> Result<Tensor> {
        let (shape, passing) = (at.shape, at.passing);
        let (batch, length, _) = x.size3()?;
        let (heads, kv) = (shape.heads, shape.kv_heads);
        let qkv = self.qkv.apply(x, passing)?;
        let qkv = if shape.qk_norm == QkNorm::Whole { self.norm_whole(shape, &qkv)? } else { qkv };
        let qkv = qkv.f_view([batch, length, heads + 2 * kv, shape.head_dim])?.f_transpose(1, 2)?;
        // Queries and keys are rotated together: they lie side by side.
        let mut qk = qkv.f_narrow(1, 0, heads + kv)?;
        if let (QkNorm::Heads, Some([of_q, of_k])) = (shape.qk_norm, &self.qk_norms) {
            let (q, k) = (qk.f_narrow(1, 0, heads)?, qk.f_narrow(1, heads, kv)?);
            qk = Tensor::f_cat(&[of_q.apply(&q)?, of_k.apply(&k)?], 1)?;
        }
        if let Some(rotation) = at.rotation {
            qk = rotated(&qk, rotation)?;
        }
        let q = qk.f_narrow(1, 0, heads)?;
        let mut k = qk.f_narrow(1, heads, kv)?;
        let mut v = qkv.f_narrow(1, heads + kv, kv)?;
        if let Some((layer, cache)) = cache {
            (k, v) = cache.append(layer, &k, &v)?;
        }
        let out = attend(shape, at.kind, &q, &k, &v, at.masks)?;
        self.o.apply(&out.f_transpose(1, 2)?.f_reshape([batch, length, heads * shape.head_dim])?, passing)
    }

    /// Norms of all queries and of all keys of a token.
    fn norm_whole(&self, shape: &Shape, qkv: &Tensor) -> Result<Tensor> {
        let Some([of_q, of_k]) = &self.qk_norms else { return Ok(qkv.shallow_clone()) };
        let [q, kv] = [shape.heads, shape.kv_heads].map(|n| n * shape.head_dim);
        let part = |start: i64, length: i64| qkv.f_narrow(-1, start, length);
        Ok(Tensor::f_cat(&[of_q.apply(&part(0, q)?)?, of_k.apply(&part(q, kv)?)?, part(q + kv, kv)?], -1)?)
    }

    fn mlp(&self, x: &Tensor, at: &At) -> Result<Tensor> {
        let (shape, passing) = (at.shape, at.passing);
        let up = self.up.apply(x, passing)?;
        if !shape.gated {
            return self.down.apply(&shape.activation.apply(&up)?, passing);
        }
        let halves = up.f_chunk(2, -1)?;
        self.down.apply(&shape.activation.apply(&halves[0])?.f_mul(&halves[1])?, passing)
    }
}

/// Rotates the first dimensions of each head, `[batch, heads, length, head_dim]`.
fn rotated(x: &Tensor, (cos, sin): &Rotation) -> Result<Tensor> {
    let (dims, all) = (cos.size4()?.3, x.size4()?.3);
    let turn = |x: &Tensor| -> Result<Tensor> {
        let halves = x.f_chunk(2, -1)?;
        let turned = Tensor::f_cat(&[halves[1].f_neg()?, halves[0].shallow_clone()], -1)?;
        Ok(x.f_mul(cos)?.f_add(&turned.f_mul(sin)?)?)
    };
    if dims == all {
        return turn(x);
    }
    Ok(Tensor::f_cat(&[turn(&x.f_narrow(-1, 0, dims)?)?, x.f_narrow(-1, dims, all - dims)?], -1)?)
}

/// What a norm makes of `x`, if there is one.
fn normed(norm: &Option<Normed>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.apply(&x),
        None => Ok(x),
    }
}

/// Takes parameters by name, in the compute type.
struct Reader<'a> {
    params: HashMap<&'a str, &'a Tensor>,
    /// What is added to a matrix's product, by the matrix's name.
    changes: Changes<'a>,
    dtype: Kind,
}

impl Reader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let found =
            self.params.get(name).ok_or_else(|| Error::invalid(format!("the model has no parameter {name}")))?;
        Ok(found.f_to_kind(self.dtype)?)
    }

    fn read_linear(&self, name: &str, bias: bool) -> Result<Linear> {
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"))?) } else { None };
        let name = format!("{name}.weight");
        Ok(Linear { weight: self.tensor(&name)?, bias, changes: (self.changes)(&name)? })
    }

    fn read_norm(&self, name: &str, kind: Norm) -> Result<Normed> {
        let Linear { weight, bias, .. } = self.read_linear(name, matches!(kind, Norm::Layer(_)))?;
        Ok(Normed { kind, weight, bias })
    }

    fn layer(&self, config: &Config, index: usize) -> Result<Layer> {
        let (names, shape) = (config.arch.names(), &config.shape);
        let at = |name: &str| format!("{}.{index}.{name}", names.layers);
        let norm = |name: Option<&str>| name.map(|name| self.read_norm(&at(name), shape.norm)).transpose();
        let qk_norm = |name: &str| self.read_norm(&at(name), shape.norm);
        let [of_q, of_k] = names.qk_norms;
        Ok(Layer {
            before_attention: norm(names.before_attention)?,
            qkv: self.read_linear(&at(names.stacked_qkv()), shape.qkv_bias)?,
            qk_norms: match shape.qk_norm {
                QkNorm::None => None,
                QkNorm::Heads | QkNorm::Whole => Some([qk_norm(of_q)?, qk_norm(of_k)?]),
            },
            o: self.read_linear(&at(names.o), shape.o_bias)?,
            after_attention: norm(names.after_attention)?,
            before_mlp: norm(names.before_mlp)?,
            up: self.read_linear(&at(names.stacked_up()), shape.mlp_bias)?,
            down: self.read_linear(&at(names.down), shape.mlp_bias)?,
            after_mlp: norm(names.after_mlp)?,
        })
    }
}
