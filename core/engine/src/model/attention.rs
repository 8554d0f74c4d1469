//! Attention of queries over keys, and what each of them may see.

use super::layers::capped;
use super::net::Mask;
use super::shape::{LayerShape, Shape};
use crate::Result;
use tch::{Kind, Tensor};

/// What tokens see, for each kind of layer.
pub struct Masks {
    /// Additive, `[batch, 1, queries, keys]`; without one, causality is all of it.
    full: Option<Tensor>,
    /// For layers that see a window: its size and an additive mask, `[batch, 1, queries, keys]`.
    windows: Vec<(i64, Tensor)>,
    /// The causal mask itself, where scores are not left to a kernel.
    causal: Option<Tensor>,
}

impl Masks {
    /// `queries` and `keys` are positions, `[batch, queries]` and `[batch, keys]`.
    pub fn new(shape: &Shape, mask: &Mask, queries: &Tensor, keys: &Tensor, dtype: Kind) -> Result<Self> {
        let fast = motrain_kernels::serve(queries.device(), dtype);
        // Kernels add masks in f32.
        let dtype = if fast { Kind::Float } else { dtype };
        let full = match mask {
            Mask::Causal => None,
            Mask::Additive(tensor) => Some(tensor.f_to_kind(dtype)?.f_contiguous()?),
        };
        let (new, all) = (queries.size2()?.1, keys.size2()?.1);
        let mut sizes: Vec<i64> = shape.layers.iter().filter_map(|layer| layer.window).collect();
        sizes.sort_unstable();
        sizes.dedup();
        // No two positions of so few keys lie further apart.
        sizes.retain(|size| *size < all);
        let by_hand = !fast && new > 1 && full.is_none() && (shape.scores_cap.is_some() || !sizes.is_empty());
        let causal = by_hand.then(|| causal(new, all, queries, dtype)).transpose()?;
        let window = |size: i64| -> Result<(i64, Tensor)> {
            let distance = queries.f_unsqueeze(2)?.f_sub(&keys.f_unsqueeze(1)?)?.f_unsqueeze(1)?;
            let far = distance.f_ge(size)?;
            let seen = match full.as_ref().or(causal.as_ref()) {
                Some(mask) => mask.shallow_clone(),
                None => Tensor::f_zeros([1], (dtype, keys.device()))?,
            };
            let seen = seen.f_expand(far.size(), false)?;
            Ok((size, seen.f_masked_fill(&far, f64::NEG_INFINITY)?))
        };
        let windows = sizes.into_iter().map(window).collect::<Result<_>>()?;
        Ok(Self { full, windows, causal })
    }

    /// The mask of a layer, and whether plain causality is all of it.
    fn of(&self, layer: &LayerShape) -> (Option<&Tensor>, bool) {
        let window = layer.window.and_then(|size| self.windows.iter().find(|(known, _)| *known == size));
        match (window, &self.full) {
            (Some((_, mask)), _) | (None, Some(mask)) => (Some(mask), false),
            (None, None) => (self.causal.as_ref(), true),
        }
    }
}

/// Additive, `[1, 1, queries, keys]`: the queries are the last ones.
fn causal(queries: i64, keys: i64, like: &Tensor, dtype: Kind) -> Result<Tensor> {
    let seen = Tensor::f_ones([queries, keys], (Kind::Bool, like.device()))?.f_tril(keys - queries)?;
    let mask = Tensor::f_zeros(seen.size(), (dtype, like.device()))?;
    let mask = mask.f_masked_fill(&seen.f_logical_not()?, f64::NEG_INFINITY)?;
    Ok(mask.f_unsqueeze(0)?.f_unsqueeze(0)?)
}

/// What `q` (`[batch, heads, queries, head_dim]`) finds in `k` and `v` (`[batch, kv_heads, keys, head_dim]`), `[batch, queries, heads · head_dim]`. No
/// mask shows a query what lies behind it.
pub fn attend(shape: &Shape, layer: &LayerShape, q: &Tensor, k: &Tensor, v: &Tensor, masks: &Masks) -> Result<Tensor> {
    let (mask, causal) = masks.of(layer);
    if motrain_kernels::serves(q) {
        return Ok(motrain_kernels::attention(q, k, v, mask, layer.scale, shape.scores_cap)?);
    }
    let (batch, heads, queries, head_dim) = q.size4()?;
    if queries == 1 {
        return Ok(one(shape, layer, q, k, v, mask)?.f_reshape([batch, 1, heads * head_dim])?);
    }
    let (k, v) = (repeated(k, shape)?, repeated(v, shape)?);
    let out = if shape.scores_cap.is_some() {
        by_hand(shape, layer, q, &k, &v, mask)?
    } else {
        let usual = 1.0 / (shape.head_dim as f64).sqrt();
        let scale = Some(layer.scale).filter(|scale| *scale != usual);
        let mask = mask.filter(|_| !causal);
        Tensor::f_scaled_dot_product_attention(q, &k, &v, mask, 0.0, causal, scale, false)?
    };
    Ok(out.f_transpose(1, 2)?.f_reshape([batch, queries, heads * head_dim])?)
}

/// One query per sequence: the query group is folded into the query length, so that keys are not repeated.
fn one(shape: &Shape, layer: &LayerShape, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let batch = q.size4()?.0;
    let q = q.f_reshape([batch, shape.kv_heads, shape.queries_per_kv(), shape.head_dim])?;
    by_hand(shape, layer, &q, k, v, mask)
}

fn by_hand(
    shape: &Shape,
    layer: &LayerShape,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let scores = q.f_matmul(&k.f_transpose(2, 3)?)?.f_mul_scalar(layer.scale)?;
    let mut scores = capped(scores, shape.scores_cap)?;
    if let Some(mask) = mask {
        scores = scores.f_add(mask)?;
    }
    let weights = scores.f_softmax(-1, Kind::Float)?.f_to_kind(v.f_kind()?)?;
    Ok(weights.f_matmul(v)?)
}

/// Each key-value head as often as it has queries.
fn repeated(t: &Tensor, shape: &Shape) -> Result<Tensor> {
    let (batch, kv, length, dim) = t.size4()?;
    let group = shape.queries_per_kv();
    let wide = t.f_unsqueeze(2)?.f_expand([batch, kv, group, length, dim], false)?;
    Ok(wide.f_reshape([batch, kv * group, length, dim])?)
}
