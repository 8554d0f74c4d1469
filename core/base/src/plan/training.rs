//! How long a stage trains, and in what portions.

use crate::options::Checked;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long and in what portions a stage trains on given data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Passes over the data.
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub epochs: f64,
    /// Stop after this many optimiser steps, whatever the epochs say; 0 follows the epochs.
    #[schemars(range(max = 1_000_000_000))]
    pub steps: usize,
    /// Rows (prompts, pairs) per optimiser step.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: usize,
    /// Rows whose gradients are computed at once; the rest of the batch is accumulated. More than a batch is a whole batch.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub micro_batch_size: usize,
    /// Tokens of such a portion at most, padding included: rows of similar length share one as long as rows times the longest of them is no
    /// more. A row that is longer by itself is a portion alone. 0 sets no bound.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(max = 1_000_000_000))]
    pub micro_batch_tokens: usize,
    /// Steps between checkpoints.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub checkpoint_every: usize,
    /// Epochs after which the model is kept as it is then: `{ stage, epoch }` names it. Of a stage that `steps` ends, the last step ends its
    /// `epochs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(range(min = 0, max = 1_000_000)))]
    pub keep: Vec<f64>,
    /// Keep the layers' inputs only, and compute each layer again for its gradient: less memory, for one forward pass more.
    #[serde(skip_serializing_if = "is_false")]
    pub gradient_checkpointing: bool,
}

fn is_zero(x: &usize) -> bool {
    *x == 0
}

fn is_false(x: &bool) -> bool {
    !x
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            steps: 0,
            batch_size: 32,
            micro_batch_size: 8,
            micro_batch_tokens: 0,
            checkpoint_every: 50,
            keep: vec![],
            gradient_checkpointing: false,
        }
    }
}

impl Training {
    /// Optimiser steps over `rows` rows: whole batches only.
    pub fn total_steps(&self, rows: usize) -> usize {
        let by_epochs = ((rows as f64 * self.epochs) / self.batch_size as f64).floor().max(1.0) as usize;
        if self.steps > 0 { self.steps } else { by_epochs }
    }

    /// Whether what is to be kept is trained at all.
    pub fn check_kept(&self) -> Checked {
        match self.keep.iter().find(|&&epoch| !(epoch > 0.0 && epoch <= self.epochs)) {
            Some(epoch) => Err(("train.keep", format!("has {epoch}, and training lasts {} epochs", self.epochs))),
            None => Ok(()),
        }
    }

    /// The step, of `total`, after which each epoch of `keep` is over.
    pub fn kept_at(&self, total: usize) -> impl Iterator<Item = (usize, f64)> {
        self.keep.iter().map(move |&epoch| (((total as f64 * epoch / self.epochs) as usize).clamp(1, total), epoch))
    }

    /// Rows in portions whose gradients are computed at once, in their order: as many as both bounds allow, and at least one. `tokens` are those
    /// of a row.
    pub fn micro_batches<'a, T>(&self, rows: &'a [T], tokens: impl Fn(&T) -> usize) -> Vec<&'a [T]> {
        let most = if self.micro_batch_tokens == 0 { usize::MAX } else { self.micro_batch_tokens };
        let (mut out, mut start, mut widest) = (Vec::new(), 0, 0);
        for (i, row) in rows.iter().enumerate() {
            let (count, wide) = (i - start + 1, widest.max(tokens(row)));
            let fits = count <= self.micro_batch_size && count.saturating_mul(wide) <= most;
            widest = if fits || i == start { wide } else { tokens(row) };
            if !fits && i > start {
                out.push(&rows[start..i]);
                start = i;
            }
        }
        out.extend((start < rows.len()).then_some(&rows[start..]));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_is_bounded_by_rows_and_by_padded_tokens() {
        let split = |rows: &[usize], micro_batch_size: usize, micro_batch_tokens: usize| {
            let train = Training { micro_batch_size, micro_batch_tokens, ..Training::default() };
            train.micro_batches(rows, |tokens| *tokens).iter().map(|part| part.to_vec()).collect::<Vec<_>>()
        };
        let rows = [2, 3, 3, 4, 9, 30];
        assert_eq!(split(&rows, 4, 0), [vec![2, 3, 3, 4], vec![9, 30]]);
        // 3 rows of 3, 1 of 4 beside 9 would be 18; 30 is alone whatever the bound.
        assert_eq!(split(&rows, 4, 12), [vec![2, 3, 3], vec![4], vec![9], vec![30]]);
        assert_eq!(split(&rows, 2, 18), [vec![2, 3], vec![3, 4], vec![9], vec![30]]);
        assert_eq!(split(&rows, 100, 180), [rows.to_vec()]);
        // The longest need not be the last.
        assert_eq!(split(&[9, 2, 2], 100, 18), [vec![9, 2], vec![2]]);
        assert_eq!(split(&[], 4, 12), Vec::<Vec<usize>>::new());
    }
}
