//! A model's parameters, one after the other, and the checkpoint's tensors that each is made of. Query, key and value are stacked, gate and up too.

use super::arch::Names;
use super::config::Config;
use super::head::{self, Head};
use super::shape::{Norm, QkNorm, Shape};
use crate::Result;
use tch::Tensor;

/// A parameter: its name, its shape, and the checkpoint's tensors that it is stacked from.
pub struct Slot {
    pub name: String,
    pub shape: Vec<i64>,
    pub parts: Vec<Part>,
}

/// A tensor of the checkpoint: so many rows of a parameter.
pub struct Part {
    pub name: String,
    pub rows: i64,
    pub order: Order,
}

/// How a checkpoint's tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsIs,
    /// `[in, out]`.
    Transposed,
    /// Query, key and value of the first of so many heads, then of the second.
    ByHead(i64),
}

impl Order {
    /// The order of rows alone: factors of a change lie as a linear layer's, however its matrix is stored.
    pub fn rows(self) -> Self {
        if self == Self::Transposed { Self::AsIs } else { self }
    }

    /// From the checkpoint's order of rows to the parameter's.
    pub fn read(self, t: &Tensor) -> Result<Tensor> {
        match self {
            Self::AsIs => Ok(t.shallow_clone()),
            Self::Transposed => Ok(t.f_transpose(0, 1)?.f_contiguous()?),
            Self::ByHead(heads) => swapped(t, heads, 3),
        }
    }

    /// And back.
    pub fn write(self, t: &Tensor) -> Result<Tensor> {
        match self {
            Self::ByHead(heads) => swapped(t, 3, heads),
            _ => self.read(t),
        }
    }

    /// The checkpoint's shape of a tensor of this shape.
    pub fn shape(self, shape: &[i64]) -> Vec<i64> {
        let mut shape = shape.to_vec();
        if self == Self::Transposed {
            shape.reverse();
        }
        shape
    }
}

/// Rows that lie `[outer, inner, …]` as `[inner, outer, …]`.
fn swapped(t: &Tensor, outer: i64, inner: i64) -> Result<Tensor> {
    let size = t.size();
    let apart: Vec<i64> = [outer, inner, size[0] / (outer * inner)].iter().chain(&size[1..]).copied().collect();
    Ok(t.f_reshape(apart)?.f_transpose(0, 1)?.f_contiguous()?.f_view(size.as_slice())?)
}

/// All parameters in order.
pub fn slots(config: &Config) -> Vec<Slot> {
    let (shape, names) = (&config.shape, config.arch.names());
    let d = shape.hidden_size;
    let mut out = vec![plain(format!("{}.weight", names.embed), &[shape.vocab_size, d])];
    if let Some(name) = names.positions.filter(|_| shape.learned_positions) {
        out.push(plain(format!("{name}.weight"), &[shape.context, d]));
    }
    for i in 0..shape.layers.len() {
        layer(shape, names, i, &mut out);
    }
    norm(names.norm.into(), shape.norm, d, &mut out);
    head::slots(config, &mut out);
    out
}

/// The same, and the output head by itself where the embedding serves as one: changes of the head need not be the embedding's.
pub fn slots_and_head(config: &Config) -> Vec<Slot> {
    let mut out = slots(config);
    if config.head == Head::TiedLm {
        let (shape, name) = (&config.shape, config.arch.names().head);
        out.push(plain(format!("{name}.weight"), &[shape.vocab_size, shape.hidden_size]));
    }
    out
}

fn layer(shape: &Shape, names: &Names, index: usize, out: &mut Vec<Slot>) {
    let (d, f) = (shape.hidden_size, shape.intermediate_size);
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let at = |name: &str| format!("{}.{index}.{name}", names.layers);
    let around = |name: Option<&str>, out: &mut Vec<Slot>| {
        if let Some(name) = name {
            norm(at(name), shape.norm, d, out);
        }
    };
    let order = if names.transposed { Order::Transposed } else { Order::AsIs };
    around(names.before_attention, out);
    let qkv_order = if names.by_head { Order::ByHead(shape.heads) } else { order };
    let qkv = apart(names.qkv, &[q, kv, kv], at);
    linear(at(names.stacked_qkv()), d, &qkv, qkv_order, shape.qkv_bias, out);
    if shape.qk_norm != QkNorm::None {
        let widths = if shape.qk_norm == QkNorm::Heads { [shape.head_dim; 2] } else { [q, kv] };
        for (name, width) in names.qk_norms.iter().zip(widths) {
            norm(at(name), shape.norm, width, out);
        }
    }
    linear(at(names.o), q, &[(at(names.o), d)], order, shape.o_bias, out);
    around(names.after_attention, out);
    around(names.before_mlp, out);
    let wide: &[i64] = if shape.gated { &[f, f] } else { &[f] };
    linear(at(names.stacked_up()), d, &apart(names.up, wide, at), order, shape.mlp_bias, out);
    linear(at(names.down), f, &[(at(names.down), d)], order, shape.mlp_bias, out);
    around(names.after_mlp, out);
}

/// The modules that rows lie in: one each, or one for all.
fn apart(names: &[&str], rows: &[i64], at: impl Fn(&str) -> String) -> Vec<(String, i64)> {
    if names.len() == 1 {
        return vec![(at(names[0]), rows.iter().sum())];
    }
    names.iter().zip(rows).map(|(name, rows)| (at(name), *rows)).collect()
}

pub fn plain(name: String, shape: &[i64]) -> Slot {
    let parts = vec![Part { name: name.clone(), rows: shape[0], order: Order::AsIs }];
    Slot { name, shape: shape.into(), parts }
}

fn norm(name: String, kind: Norm, width: i64, out: &mut Vec<Slot>) {
    out.push(plain(format!("{name}.weight"), &[width]));
    if matches!(kind, Norm::Layer(_)) {
        out.push(plain(format!("{name}.bias"), &[width]));
    }
}

pub fn linear(name: String, columns: i64, parts: &[(String, i64)], order: Order, bias: bool, out: &mut Vec<Slot>) {
    let rows = parts.iter().map(|(_, rows)| rows).sum();
    let of = |end: &str, order: Order| {
        parts.iter().map(|(part, rows)| Part { name: format!("{part}.{end}"), rows: *rows, order }).collect()
    };
    out.push(Slot { name: format!("{name}.weight"), shape: vec![rows, columns], parts: of("weight", order) });
    if bias {
        // One dimension has nothing to transpose.
        let order = if order == Order::Transposed { Order::AsIs } else { order };
        out.push(Slot { name: format!("{name}.bias"), shape: vec![rows], parts: of("bias", order) });
    }
}
