//! Drawing completions: what they can be drawn from, and how.

mod blend;
mod completions;
mod net;
mod rollout;
mod sample;

pub use blend::{Blend, Divergence, Rule};
pub use completions::{Completion, Completions};
pub use net::Gained;
pub use rollout::{MAX_ROWS, fits_context, rollout};
pub use sample::{NOT_FINITE, Next, next_tokens};

use crate::Result;
use tch::{Device, Kind, Tensor};

/// A prompt that is answered.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    pub tokens: &'a [u32],
    /// Its place among all that are answered: a decoder may answer each in another way.
    pub index: usize,
}

/// What completions can be drawn from: a network, or a mix of several.
pub trait Decoder {
    /// Positions that a prompt and its completion have together.
    fn context(&self) -> i64;

    fn device(&self) -> Device;

    /// The type that it computes in.
    fn dtype(&self) -> Kind;

    /// Parameters that a token takes; tied ones count once.
    fn parameter_count(&self) -> usize;

    /// Reads each of some prompts once, for rows that go on from it: row i from prompt `rows[i]`, by `new` tokens at most. Returns the
    /// logits of each row's first token, `[rows, vocab]` in f32, and the rows, ready for that token.
    fn prefill(&self, prompts: &[Query], rows: &[usize], new: usize) -> Result<(Tensor, Box<dyn Rows + '_>)>;
}

/// Completions under way, and what a decoder keeps of them.
pub trait Rows {
    /// Reads the token of each row, `[rows]` (i64). Returns the logits of its next one, `[rows, vocab]` in f32.
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor>;

    /// Keeps these rows, `[kept]` (i64), in this order.
    fn select(&mut self, rows: &Tensor) -> Result<()>;
}

impl<D: Decoder> Decoder for &D {
    fn context(&self) -> i64 {
        (**self).context()
    }

    fn device(&self) -> Device {
        (**self).device()
    }

    fn dtype(&self) -> Kind {
        (**self).dtype()
    }

    fn parameter_count(&self) -> usize {
        (**self).parameter_count()
    }

    fn prefill(&self, prompts: &[Query], rows: &[usize], new: usize) -> Result<(Tensor, Box<dyn Rows + '_>)> {
        (**self).prefill(prompts, rows, new)
    }
}
