//! The bytes that a network's passes keep and take, from its shape alone: what `block.rs`, `layers.rs`, `changes.rs`, `attention.rs`, `net.rs` and `tape.rs` leave to
//! autograd, tensor by tensor. Whoever changes what they keep changes it here.

use super::config::Config;
use super::net::HEAD_ROWS;
use super::shape::{Activation, LayerShape, Norm, QkNorm, Shape};
use super::sizes::Trained;

/// Rows of packed tokens of one width, and how many of their tokens are predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    pub rows: f64,
    pub width: f64,
    pub targets: f64,
}

impl Batch {
    fn tokens(&self) -> f64 {
        self.rows * self.width
    }
}

/// The passes of a network.
pub struct Passes<'a> {
    pub config: &'a Config,
    /// Bytes of a number in the type of computing.
    pub bytes: f64,
    /// Whether kernels (`motrain_kernels`) take the place of libtorch's operations, and keep less.
    pub fused: bool,
}

/// Completions at most that share their prompt in one pass: each attends to the others' places too, if only to be masked there.
pub const PACKED: usize = 8;

/// Bytes of an f32 number.
pub const F32: f64 = 4.0;

impl Passes<'_> {
    fn shape(&self) -> &Shape {
        &self.config.shape
    }

    /// What the layers of a forward pass keep for their gradients.
    pub fn kept(&self, trained: &Trained, batch: Batch) -> f64 {
        let layers = (0..self.shape().layers.len()).map(|i| self.layer(i, trained, batch));
        batch.tokens() * (layers.sum::<f64>() + self.by_norm(self.hidden(), trained, true)) + self.packed(batch)
    }

    /// The same with gradient checkpointing: the inputs of all layers, and one layer computed again with its gradients.
    pub fn kept_inputs(&self, trained: &Trained, batch: Batch) -> f64 {
        let shape = self.shape();
        let inputs = (shape.layers.len() + 1) as f64 * self.bytes * self.hidden();
        let again = (0..shape.layers.len()).map(|i| self.layer(i, trained, batch)).fold(0.0, f64::max);
        batch.tokens() * (inputs + again + self.by_norm(self.hidden(), trained, true)) + self.packed(batch)
    }

    /// At once at most in a pass without gradients.
    pub fn plain(&self, batch: Batch) -> f64 {
        let (shape, d) = (self.shape(), self.bytes);
        let [q, kv] = [shape.heads, shape.kv_heads].map(|n| (n * shape.head_dim) as f64);
        let gated = if self.fused { 3.0 } else { 4.0 };
        let wide = if shape.gated { gated } else { 2.0 } * shape.intermediate_size as f64;
        let heads = if self.fused { 2.0 * (q + 2.0 * kv) + q } else { 3.0 * (q + 2.0 * kv) + 2.0 * q };
        let norm = if self.fused { d } else { 2.0 * F32 + d } * self.hidden();
        let step = (wide * d).max(heads * d).max(norm);
        batch.tokens() * (2.0 * d * self.hidden() + step) + self.packed(batch)
    }

    /// Logits on the way to log-probs of targets, with their gradient or without. Of all that are computed log-softmaxes are kept, `HEAD_ROWS` at
    /// a time are computed, or (recomputed) no others are there.
    pub fn logits(&self, targets: f64, gradient: bool, recomputed: bool) -> f64 {
        if self.config.head.scores() {
            return 0.0;
        }
        let (vocab, at_once) = (self.shape().vocab_size as f64, targets.min(HEAD_ROWS as f64));
        let capped = if self.shape().logits_cap.is_some() { 2.0 } else { 1.0 };
        let kept = if recomputed { at_once } else { targets };
        if self.fused && self.shape().logits_cap.is_none() {
            return vocab * self.bytes * if gradient { kept + at_once } else { at_once };
        }
        match gradient {
            // The gradient of the chosen log-probs, and that of the logits.
            true => vocab * F32 * (capped * kept + 2.0 * at_once),
            false => vocab * at_once * (2.0 * F32).max(F32 + self.bytes),
        }
    }

    /// Keys and values of so many rows.
    pub fn cache(&self, rows: f64, positions: f64) -> f64 {
        let shape = self.shape();
        2.0 * self.bytes * rows * positions * (shape.layers.len() as f64) * (shape.kv_heads * shape.head_dim) as f64
    }

    /// The next tokens' logits of so many rows with what drawing makes of them: of all tokens, or after a sort.
    pub fn next_tokens(&self, rows: f64, sorted: bool, greedy: bool) -> f64 {
        // Logits, as they are computed and in f32; of libtorch's operations log-probs, probabilities, cumulated; sorted also numbers of tokens (i64)
        // and what is cut away.
        let copies = if greedy || (self.fused && !sorted) {
            2.0
        } else if sorted {
            9.0
        } else {
            5.0
        };
        rows * self.shape().vocab_size as f64 * F32 * copies
    }

    fn hidden(&self) -> f64 {
        self.shape().hidden_size as f64
    }

    /// Ids, positions and the masks of packed rows, in f32, in the type of computing, and for windows.
    fn packed(&self, batch: Batch) -> f64 {
        let mut windows: Vec<i64> = self.shape().layers.iter().filter_map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let windows = windows.iter().filter(|window| (**window as f64) < batch.width).count() as f64;
        let masks = if self.fused { F32 * (1.0 + windows) } else { F32 + self.bytes * (1.0 + windows) };
        batch.tokens() * (16.0 + batch.width * masks)
    }

    /// A norm of `width` numbers, of one token: its input (in f32, but for a kernel), what its weights are multiplied by if they train, and its output.
    fn by_norm(&self, width: f64, trained: &Trained, output: bool) -> f64 {
        let whole = if trained.ranks.is_none() { 1.0 } else { 0.0 };
        let output = if output { self.bytes } else { 0.0 };
        width
            * match self.shape().norm {
                Norm::Rms(_) | Norm::RmsPlusOne(_) if self.fused => self.bytes + output,
                Norm::Rms(_) => F32 + whole * self.bytes + output,
                Norm::RmsPlusOne(_) => F32 + whole * F32 + output,
                Norm::Layer(_) => self.bytes + output,
            }
    }

    /// One token's share of what a layer keeps.
    fn layer(&self, index: usize, trained: &Trained, batch: Batch) -> f64 {
        let (shape, names, d) = (self.shape(), self.config.arch.names(), self.bytes);
        let kind = &shape.layers[index];
        let matrix = |name: &str, input: f64| -> Matrix {
            let slot = format!("{}.{index}.{name}.weight", names.layers);
            Matrix::of(trained, &slot, input, d)
        };
        let q = (shape.heads * shape.head_dim) as f64;
        let (hidden, inner) = (self.hidden(), shape.intermediate_size as f64);
        let [qkv, o] = [matrix(names.stacked_qkv(), hidden), matrix(names.o, q)];
        let [up, down] = [matrix(names.stacked_up(), hidden), matrix(names.down, inner)];
        let before =
            |name: Option<&str>, of: &Matrix| name.map_or(0.0, |_| self.by_norm(hidden, trained, of.sees_input));
        let after = |name: Option<&str>| name.map_or(0.0, |_| self.by_norm(hidden, trained, false));
        let norms = before(names.before_attention, &qkv)
            + before(names.before_mlp, &up)
            + after(names.after_attention)
            + after(names.after_mlp);
        // The activation keeps its input; where its output is multiplied, that product keeps both.
        let gated = if self.fused && shape.activation == Activation::Silu { 2.0 } else { 3.0 };
        let mlp = if shape.gated { gated } else { 1.0 } * inner + if down.sees_input { inner } else { 0.0 };
        let changes = [&qkv, &o, &up, &down].map(|matrix| matrix.changes).iter().sum::<f64>();
        norms + self.attention(kind, trained, batch) + d * mlp + changes
    }

    /// What lies between a layer's matrices of queries, keys and values, and that of the output.
    fn attention(&self, kind: &LayerShape, trained: &Trained, batch: Batch) -> f64 {
        let (shape, d) = (self.shape(), self.bytes);
        let [q, kv] = [shape.heads, shape.kv_heads].map(|n| (n * shape.head_dim) as f64);
        let normed = match shape.qk_norm {
            QkNorm::None => 0.0,
            QkNorm::Heads | QkNorm::Whole => self.by_norm(q + kv, trained, false),
        };
        if self.fused {
            // Apart; where each head has its norm, beside what they are turned from.
            let before = if shape.qk_norm == QkNorm::Heads { 2.0 * q + 3.0 * kv } else { 0.0 };
            return normed + d * (before + q + 2.0 * kv + q);
        }
        // Views keep all that they are part of: queries, keys and values as they were projected, or queries and keys as they were turned.
        let turned = kind.rope.is_some() || shape.qk_norm == QkNorm::Heads;
        let queries = if turned { q + kv } else { q + 2.0 * kv };
        let others = match (shape.queries_per_kv(), turned) {
            (1, true) => q + 2.0 * kv,
            (1, false) => 0.0,
            _ => 2.0 * q,
        };
        let scores = match shape.scores_cap {
            // Of tanh, of softmax (f32), and the weights; queries once more.
            Some(_) => shape.heads as f64 * batch.width * (2.0 * d + F32) + d * q,
            None => F32 * shape.heads as f64,
        };
        normed + d * (queries + others + q) + scores
    }
}

/// A matrix of a layer in training.
struct Matrix {
    /// Whether its input is kept for the gradient of what trains of it.
    sees_input: bool,
    /// One token's numbers between the factors of its changes, in bytes, and what dropout makes of their input.
    changes: f64,
}

impl Matrix {
    fn of(trained: &Trained, slot: &str, input: f64, bytes: f64) -> Self {
        let Some(ranks) = &trained.ranks else { return Self { sees_input: true, changes: 0.0 } };
        let rank = ranks.get(slot).copied().unwrap_or(0.0);
        let dropped = if trained.dropout && rank > 0.0 { 2.0 * input } else { 0.0 };
        Self { sees_input: rank > 0.0, changes: bytes * (rank + dropped) }
    }
}
