//! A policy's answers to prompts at some weights, scored: what evaluations and feedback to samplers rest on.

use crate::Result;
use crate::decode::{Completions, rollout};
use crate::reward::{RewardSet, Scores};
use crate::steer::{Steerable, Steering};
use crate::tokenizer::Tokenizer;
use motrain_core::Weights;
use motrain_core::data::Row;
use motrain_core::plan::GenerationConfig;

/// A steerable policy, the prompts that it is asked, and what scores its answers.
pub struct Asked<'a> {
    pub policy: &'a dyn Steerable,
    pub tokenizer: &'a Tokenizer,
    pub steering: &'a Steering,
    pub rows: &'a [Row],
    pub set: &'a RewardSet,
}

impl Asked<'_> {
    /// The tokens of x'.
    pub fn encode(&self, weights: &Weights, row: &Row) -> Result<Vec<u32>> {
        self.tokenizer.encode_prompt(&self.steering.prompt(weights, &row.prompt)?)
    }

    /// So many answers to each prompt at `weights`, and their scores; `seed` by prompt and answer.
    pub fn answer(
        &self,
        weights: &Weights,
        (completions, sampling): (usize, &GenerationConfig),
        seed: impl Fn(usize, usize) -> u64,
    ) -> Result<(Completions, Scores)> {
        let decoder = self.policy.decoder(&[self.policy.route(weights)?])?;
        let prompts = self.rows.iter().map(|row| self.encode(weights, row)).collect::<Result<Vec<_>>>()?;
        let answers = rollout(decoder.as_ref(), self.tokenizer, &prompts, completions, seed, sampling)?;
        let scores = self.set.score(&self.rows.iter().collect::<Vec<_>>(), &answers)?;
        Ok((answers, scores))
    }
}
