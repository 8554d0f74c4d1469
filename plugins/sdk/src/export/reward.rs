//! Rewards.

use super::{Error, component, this};
use crate::call::{array, guarded, text};
use crate::{Message, PartialReward, Sample};
use motrain_abi as abi;
use std::ffi::c_void;
use std::mem::offset_of;

/// # Safety
/// `sample` is one of motrain's, and outlives the call.
unsafe fn read<'a>(sample: *const abi::Sample) -> Sample<'a> {
    // SAFETY: promised by the caller; what lies beyond `struct_size` is not read.
    unsafe {
        // A motrain of version 1.0 does not say whether a completion was cut.
        let told = (*sample).struct_size > offset_of!(abi::Sample, finished);
        Sample {
            prompt: array((*sample).prompt.cast::<Message>(), (*sample).prompt_count),
            completion: text((*sample).completion),
            row: text((*sample).row),
            finished: !told || (*sample).finished != 0,
        }
    }
}

/// # Safety
/// `samples` are `count` of motrain's and outlive the call, and `scores` has room for as many numbers.
unsafe fn score<R: PartialReward>(
    instance: *mut c_void,
    (samples, count): (*const *const abi::Sample, usize),
    scores: *mut f64,
    written: *mut usize,
    mut skip: impl FnMut(usize) -> Result<(), String>,
) -> Result<abi::Status, String> {
    // SAFETY: promised by the caller.
    unsafe {
        let samples: Vec<Sample> = array(samples, count).iter().map(|&s| read(s)).collect();
        let made = this::<R>(instance).score(&samples)?;
        *written = made.len();
        for (i, score) in made.into_iter().take(count).enumerate() {
            match score {
                Some(score) => *scores.add(i) = score,
                None => skip(i)?,
            }
        }
    }
    Ok(abi::STATUS_OK)
}

pub fn rewards<R: PartialReward>() -> abi::Component {
    /// What a motrain before 1.3 calls.
    unsafe extern "C" fn score_all<R: PartialReward>(
        instance: *mut c_void,
        samples: *const *const abi::Sample,
        count: usize,
        scores: *mut f64,
        written: *mut usize,
        error: Error,
    ) -> abi::Status {
        let skip = |_| Err("has no score for a sample, which needs a motrain whose plugin interface is 1.3".into());
        // SAFETY: motrain passes `count` samples, room for as many scores, and borrowed text.
        unsafe { guarded(error, || score::<R>(instance, (samples, count), scores, written, skip)) }
    }
    unsafe extern "C" fn score_some<R: PartialReward>(
        instance: *mut c_void,
        samples: *const *const abi::Sample,
        count: usize,
        scores: *mut f64,
        skipped: *mut u8,
        written: *mut usize,
        error: Error,
    ) -> abi::Status {
        let skip = |i| {
            // SAFETY: motrain passes `count` bytes.
            unsafe { *skipped.add(i) = 1 };
            Ok(())
        };
        // SAFETY: as above.
        unsafe { guarded(error, || score::<R>(instance, (samples, count), scores, written, skip)) }
    }
    let flags = if R::NEEDS_ROW { abi::FLAG_NEEDS_ROW } else { 0 };
    let functions = abi::RewardFns {
        struct_size: size_of::<abi::RewardFns>(),
        score: Some(score_all::<R>),
        score_some: Some(score_some::<R>),
    };
    component::<R, _>(abi::KIND_REWARD, flags, functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A motrain of version 1.0 ends its samples before `finished`; whatever lies there is not read.
    #[test]
    fn a_sample_of_version_1_0_counts_as_finished() {
        let none = crate::call::borrowed("");
        let told = size_of::<abi::Sample>();
        for (struct_size, finished, expected) in [(56, 0, true), (told, 0, false), (told, 1, true)] {
            let sample = abi::Sample {
                struct_size,
                prompt: std::ptr::null(),
                prompt_count: 0,
                completion: none,
                row: none,
                finished,
            };
            // SAFETY: the sample lives through the call.
            assert_eq!(unsafe { read(&sample) }.finished, expected, "{struct_size}");
        }
    }

    struct Long;

    impl crate::Component for Long {
        const NAME: &'static str = "test.long";
        const SUMMARY: &'static str = "lengths of what is long enough";
        type Options = std::collections::BTreeMap<String, String>;
        fn create(_options: Self::Options, _seed: u64) -> Result<Self, String> {
            Ok(Self)
        }
    }

    impl PartialReward for Long {
        fn score(&self, samples: &[Sample]) -> Result<Vec<Option<f64>>, String> {
            let length = |s: &Sample| s.completion.len();
            Ok(samples.iter().map(|s| (length(s) > 1).then_some(length(s) as f64)).collect())
        }
    }

    /// The scores of two completions by both functions of a component; what is skipped says the second.
    #[test]
    fn a_motrain_before_1_3_is_told_why_there_is_no_score() {
        // SAFETY: `functions` are those of a reward; all arrays have two places.
        unsafe {
            let functions = &*rewards::<Long>().functions.cast::<abi::RewardFns>();
            let mut long = Long;
            let instance = (&raw mut long).cast::<c_void>();
            let sample = |completion| abi::Sample {
                struct_size: size_of::<abi::Sample>(),
                completion: crate::call::borrowed(completion),
                finished: 1,
                ..std::mem::zeroed()
            };
            let mut told = [0u8; 200];
            let mut error = abi::ErrorText {
                struct_size: size_of::<abi::ErrorText>(),
                data: told.as_mut_ptr(),
                capacity: told.len(),
                length: 0,
            };
            let (whole, short) = (sample("whole"), sample("s"));
            let samples = [&raw const whole, &raw const short];
            let (mut scores, mut skipped, mut written) = ([0.0; 2], [0u8; 2], 0);
            let score_some = functions.score_some.unwrap();
            let (out, skip) = (scores.as_mut_ptr(), skipped.as_mut_ptr());
            let status = score_some(instance, samples.as_ptr(), 2, out, skip, &mut written, &mut error);
            assert_eq!((status, scores, skipped, written), (abi::STATUS_OK, [5.0, 0.0], [0, 1], 2));
            let score = functions.score.unwrap();
            assert_eq!(score(instance, samples.as_ptr(), 1, out, &mut written, &mut error), abi::STATUS_OK);
            assert_eq!(score(instance, samples.as_ptr(), 2, out, &mut written, &mut error), abi::STATUS_ERROR);
            let said = std::str::from_utf8(&told[..error.length]).unwrap();
            assert_eq!(said, "has no score for a sample, which needs a motrain whose plugin interface is 1.3");
        }
    }
}
