//! One layer of a network: attention and MLP, with norms before and after them where a family has them.

use super::attention::{Masks, attend};
use super::cache::Cache;
use super::changes::Passing;
use super::layers::{Linear, Normed};
use super::shape::{Activation, LayerShape, QkNorm, Shape};
use crate::Result;
use motrain_kernels::Heads;
use tch::Tensor;

/// cos and sin of the angles, each `[batch, 1, length, dims]`.
pub type Rotation = (Tensor, Tensor);

pub struct Layer {
    pub before_attention: Option<Normed>,
    pub qkv: Linear,
    /// Of queries and of keys.
    pub qk_norms: Option<[Normed; 2]>,
    pub o: Linear,
    pub after_attention: Option<Normed>,
    pub before_mlp: Option<Normed>,
    pub up: Linear,
    pub down: Linear,
    pub after_mlp: Option<Normed>,
}

/// What a layer works with, beside its parameters and inputs.
pub struct At<'a> {
    pub shape: &'a Shape,
    pub kind: &'a LayerShape,
    pub rotation: Option<&'a Rotation>,
    pub masks: &'a Masks,
    pub passing: &'a Passing<'a>,
}

impl Layer {
    /// `x` is `[batch, length, hidden]`; with a cache comes the layer's index.
    pub fn apply(&self, x: Tensor, at: &At, cache: Option<(usize, &mut Cache)>) -> Result<Tensor> {
        let seen = normed(&self.before_attention, x.shallow_clone())?;
        let attended = self.attention(&seen, at, cache)?;
        let after = x.f_add(&normed(&self.after_attention, attended)?)?;
        let seen = normed(&self.before_mlp, if at.shape.parallel { x } else { after.shallow_clone() })?;
        Ok(after.f_add(&normed(&self.after_mlp, self.mlp(&seen, at)?)?)?)
    }

    /// Lays its matrices out for products without gradients.
    pub fn lay_out(&mut self) -> Result<()> {
        [&mut self.qkv, &mut self.o, &mut self.up, &mut self.down].into_iter().try_for_each(Linear::lay_out)
    }

    pub fn numel(&self) -> usize {
        let linears = [&self.qkv, &self.o, &self.up, &self.down].map(Linear::numel).iter().sum::<usize>();
        let norms = [&self.before_attention, &self.after_attention, &self.before_mlp, &self.after_mlp];
        let norms = norms.into_iter().flatten().chain(self.qk_norms.iter().flatten());
        linears + norms.map(Normed::numel).sum::<usize>()
    }

    /// `x` is `[batch, length, hidden]`.
    fn attention(&self, x: &Tensor, at: &At, cache: Option<(usize, &mut Cache)>) -> Result<Tensor> {
        let (shape, passing) = (at.shape, at.passing);
        let qkv = self.qkv.apply(x, passing)?;
        let qkv = if shape.qk_norm == QkNorm::Whole { self.norm_whole(shape, &qkv)? } else { qkv };
        let (q, mut k, mut v) = self.split(&qkv, at)?;
        if let Some((layer, cache)) = cache {
            (k, v) = cache.append(layer, &k, &v)?;
        }
        self.o.apply(&attend(shape, at.kind, &q, &k, &v, at.masks)?, passing)
    }

    /// Queries, keys and values, `[batch, heads, length, head_dim]`, at their positions.
    fn split(&self, qkv: &Tensor, at: &At) -> Result<(Tensor, Tensor, Tensor)> {
        let Shape { heads, kv_heads, head_dim, qk_norm, .. } = *at.shape;
        if qk_norm != QkNorm::Heads && motrain_kernels::serves(qkv) {
            let angles = at.rotation.map(|(cos, sin)| (cos, sin));
            let [q, k, v] = motrain_kernels::split_heads(qkv, angles, Heads { heads, kv_heads, head_dim })?;
            return Ok((q, k, v));
        }
        let (batch, length, _) = qkv.size3()?;
        let qkv = qkv.f_view([batch, length, heads + 2 * kv_heads, head_dim])?.f_transpose(1, 2)?;
        // Queries and keys are rotated together: they lie side by side.
        let mut qk = qkv.f_narrow(1, 0, heads + kv_heads)?;
        if let (QkNorm::Heads, Some([of_q, of_k])) = (qk_norm, &self.qk_norms) {
            let (q, k) = (qk.f_narrow(1, 0, heads)?, qk.f_narrow(1, heads, kv_heads)?);
            qk = Tensor::f_cat(&[of_q.apply(&q)?, of_k.apply(&k)?], 1)?;
        }
        if let Some(rotation) = at.rotation {
            qk = rotated(&qk, rotation)?;
        }
        let v = qkv.f_narrow(1, heads + kv_heads, kv_heads)?;
        Ok((qk.f_narrow(1, 0, heads)?, qk.f_narrow(1, heads, kv_heads)?, v))
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
        if shape.activation == Activation::Silu && motrain_kernels::serves(&up) {
            return self.down.apply(&motrain_kernels::gated_silu(&up)?, passing);
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
