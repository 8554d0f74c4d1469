//! Judges.

use super::{Function, function, in_parts, messages};
use crate::call::{Instance, lent};
use crate::room::{Plain, Room};
use motrain_abi as abi;
use motrain_core::error::Result;
use motrain_core::judge::{Duel, Judge, Verdict};

pub struct PluginJudge {
    instance: Instance,
    judge: Function<abi::JudgeDuels>,
}

impl PluginJudge {
    pub fn new(instance: Instance) -> Result<Self> {
        Ok(Self { judge: function!(instance, abi::JudgeFns, judge), instance })
    }
}

impl Judge for PluginJudge {
    fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
        in_parts(duels, |some| self.judge_part(some))
    }
}

impl PluginJudge {
    fn judge_part(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
        let prompts: Vec<Vec<abi::Message>> = duels.iter().map(|d| messages(d.prompt)).collect();
        let lend = |(d, prompt): (&Duel, &Vec<abi::Message>)| abi::Duel {
            struct_size: size_of::<abi::Duel>(),
            prompt: prompt.as_ptr(),
            prompt_count: prompt.len(),
            first: lent(d.first),
            second: lent(d.second),
        };
        let given: Vec<abi::Duel> = duels.iter().zip(&prompts).map(lend).collect();
        let pointers: Vec<*const abi::Duel> = given.iter().map(std::ptr::from_ref).collect();
        let count = duels.len();
        let mut verdicts = Room::new(count);
        let out = verdicts.as_mut_ptr();
        let mut written = 0usize;
        // SAFETY: both arrays have `count` entries and live through the call.
        self.instance.call("judge", |instance, error| unsafe {
            (self.judge)(instance, pointers.as_ptr(), count, out, &mut written, error)
        })?;
        let verdicts = verdicts.take()?;
        if written != count {
            return Err(format!("the plugin gave {written} verdicts for {count} duels"));
        }
        let one = |(i, verdict)| read(verdict).map_err(|what| format!("the plugin {what} duel {} of {count}", i + 1));
        verdicts.into_iter().enumerate().map(one).collect()
    }
}

fn read(verdict: abi::Verdict) -> std::result::Result<Option<Verdict>, String> {
    match verdict {
        abi::VERDICT_TIE => Ok(Some(Verdict::Tie)),
        abi::VERDICT_FIRST => Ok(Some(Verdict::First)),
        abi::VERDICT_SECOND => Ok(Some(Verdict::Second)),
        abi::VERDICT_SKIPPED => Ok(None),
        verdict if verdict.is_untouched() => Err("wrote no verdict on".into()),
        other => Err(format!(
            "gave the verdict {other}, which is none of 0 (tie), 1 (first), 2 (second) and 3 (left out), on"
        )),
    }
}
