//! Judges.

use super::{Error, component, this};
use crate::call::{array, guarded, text};
use crate::{Duel, Judge, Message, Verdict};
use motrain_abi as abi;
use std::ffi::c_void;

/// # Safety
/// `duel` is one of motrain's, and outlives the call.
unsafe fn read<'a>(duel: *const abi::Duel) -> Duel<'a> {
    // SAFETY: promised by the caller.
    unsafe {
        Duel {
            prompt: array((*duel).prompt.cast::<Message>(), (*duel).prompt_count),
            first: text((*duel).first),
            second: text((*duel).second),
        }
    }
}

pub fn judges<J: Judge>() -> abi::Component {
    unsafe extern "C" fn judge<J: Judge>(
        instance: *mut c_void,
        duels: *const *const abi::Duel,
        count: usize,
        verdicts: *mut abi::Verdict,
        written: *mut usize,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes `count` duels, room for as many verdicts, and borrowed text.
        unsafe {
            guarded(error, || {
                let duels: Vec<Duel> = array(duels, count).iter().map(|&d| read(d)).collect();
                let made = this::<J>(instance).judge(&duels)?;
                *written = made.len();
                for (i, verdict) in made.into_iter().take(count).enumerate() {
                    *verdicts.add(i) = match verdict {
                        Some(Verdict::Tie) => abi::VERDICT_TIE,
                        Some(Verdict::First) => abi::VERDICT_FIRST,
                        Some(Verdict::Second) => abi::VERDICT_SECOND,
                        None => abi::VERDICT_SKIPPED,
                    };
                }
                Ok(abi::STATUS_OK)
            })
        }
    }
    let functions = abi::JudgeFns { struct_size: size_of::<abi::JudgeFns>(), judge: Some(judge::<J>) };
    component::<J, _>(abi::KIND_JUDGE, 0, functions)
}
