//! Rewards.

use super::{Function, function, in_parts, messages, optional};
use crate::call::{Instance, lent};
use crate::room::Room;
use motrain_abi as abi;
use motrain_core::error::Result;
use motrain_core::reward::{RewardSource, Sample, all};

pub struct PluginReward {
    instance: Instance,
    score: Function<abi::Score>,
    score_some: abi::ScoreSome,
    needs_row: bool,
}

impl PluginReward {
    pub fn new(instance: Instance) -> Result<Self> {
        let needs_row = instance.component.flags & abi::FLAG_NEEDS_ROW != 0;
        let score = function!(instance, abi::RewardFns, score);
        let score_some = optional!(instance, abi::RewardFns, score_some);
        Ok(Self { instance, score, score_some, needs_row })
    }
}

impl RewardSource for PluginReward {
    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> std::result::Result<Vec<Option<f64>>, String> {
        in_parts(batch, |some| self.score_part(some))
    }
}

impl PluginReward {
    fn score_part(&self, batch: &[Sample]) -> std::result::Result<Vec<Option<f64>>, String> {
        let row = |s: &Sample| if self.needs_row { s.row.to_string() } else { String::new() };
        let rows: Vec<String> = batch.iter().map(row).collect();
        let prompts: Vec<Vec<abi::Message>> = batch.iter().map(|s| messages(s.prompt)).collect();
        let samples: Vec<abi::Sample> = batch
            .iter()
            .zip(&prompts)
            .zip(&rows)
            .map(|((s, prompt), row)| abi::Sample {
                struct_size: size_of::<abi::Sample>(),
                prompt: prompt.as_ptr(),
                prompt_count: prompt.len(),
                completion: lent(s.completion),
                row: lent(row),
                finished: u32::from(s.finished),
            })
            .collect();
        let pointers: Vec<*const abi::Sample> = samples.iter().map(std::ptr::from_ref).collect();
        let (given, count) = (pointers.as_ptr(), batch.len());
        let (mut scores, mut skipped) = (Room::new(count), Room::filled(count, 0u8));
        let (out, skip) = (scores.as_mut_ptr(), skipped.as_mut_ptr());
        let mut written = 0usize;
        // SAFETY: all arrays have `count` entries and live through the call.
        self.instance.call("score", |instance, error| unsafe {
            match self.score_some {
                Some(score_some) => score_some(instance, given, count, out, skip, &mut written, error),
                None => (self.score)(instance, given, count, out, &mut written, error),
            }
        })?;
        let (scores, skipped) = (scores.take()?, skipped.take()?);
        if written != count {
            return Err(format!("the plugin gave {written} scores for {count} completions"));
        }
        let one = |(i, (score, skipped)): (usize, (f64, u8))| match skipped {
            0 => Ok(Some(score)),
            1 => Ok(None),
            other => Err(format!(
                "the plugin wrote {other} into skipped for completion {} of {count}; 1 leaves it out, 0 does not",
                i + 1
            )),
        };
        scores.into_iter().zip(skipped).enumerate().map(one).collect()
    }
}
