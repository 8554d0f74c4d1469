//! A policy's answers to prompts at some weights, scored: what evaluations and feedback to samplers rest on.

use crate::Result;
use crate::model::Net;
use crate::plan::Sampling;
use crate::reward::{RewardSet, Scores};
use crate::rollout::{Completion, rollout};
use crate::text::Text;
use motrain_core::Weights;
use motrain_core::conditioner::Conditioner;
use motrain_core::data::Row;

/// The prompts that a policy is asked, how weights enter them, and what scores its answers.
pub struct Asked<'a> {
    pub text: &'a Text,
    pub rows: &'a [Row],
    pub conditioner: &'a dyn Conditioner,
    pub set: &'a RewardSet,
}

impl Asked<'_> {
    /// The tokens of x'.
    pub fn encode(&self, weights: &Weights, row: &Row) -> Result<Vec<u32>> {
        self.text.encode_prompt(&self.conditioner.render(&self.set.objectives(), weights, &row.prompt)?)
    }

    /// The answer of `net` to each prompt at `weights`, and its scores; `seed` by prompt.
    pub fn answer(
        &self,
        net: &Net,
        weights: &Weights,
        sampling: &Sampling,
        seed: impl Fn(usize) -> u64,
    ) -> Result<(Vec<Completion>, Scores)> {
        let prompts = self.rows.iter().map(|row| self.encode(weights, row)).collect::<Result<Vec<_>>>()?;
        let seeds: Vec<Vec<u64>> = (0..self.rows.len()).map(|i| vec![seed(i)]).collect();
        let drawn = rollout(net, self.text, &prompts, &seeds, sampling)?;
        let answers: Vec<Completion> = drawn.into_iter().flatten().collect();
        let references: Vec<&Row> = self.rows.iter().collect();
        let scores = self.set.score(&references, &answers.iter().collect::<Vec<_>>())?;
        Ok((answers, scores))
    }
}
