//! Pairwise losses.

use super::{Error, component, this};
use crate::call::{array, guarded};
use crate::{Loss, Other, Pair};
use motrain_abi as abi;
use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::catch_unwind;

pub fn losses<L: Loss>() -> abi::Component {
    unsafe extern "C" fn evaluate<L: Loss>(
        instance: *mut c_void,
        pairs: *const abi::Pairs,
        loss: *mut f64,
        d_first: *mut f64,
        d_second: *mut f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes arrays of `count` (or `count × objectives`) numbers and room for `count` results each.
        unsafe {
            guarded(error, || {
                // What lies beyond the struct of an older motrain is not there.
                let p = pairs;
                let k = (*p).objectives;
                let (weights, margins) = (array((*p).weights, (*p).count * k), array((*p).margins, (*p).count * k));
                for i in 0..(*p).count {
                    let pair = Pair {
                        policy_first: *(*p).policy_first.add(i),
                        policy_second: *(*p).policy_second.add(i),
                        reference_first: *(*p).reference_first.add(i),
                        reference_second: *(*p).reference_second.add(i),
                        tokens_first: *(*p).tokens_first.add(i),
                        tokens_second: *(*p).tokens_second.add(i),
                        label: *(*p).label.add(i),
                        weights: &weights[i * k..(i + 1) * k],
                        margins: &margins[i * k..(i + 1) * k],
                    };
                    let made = match other(p, i) {
                        Some((other, d_other)) => {
                            let (made, by_other) = this::<L>(instance).evaluate_with(&pair, &other);
                            (*d_other[0], *d_other[1]) = (by_other[0], by_other[1]);
                            made
                        }
                        None => this::<L>(instance).evaluate(&pair),
                    };
                    (*loss.add(i), *d_first.add(i), *d_second.add(i)) = (made.loss, made.d_first, made.d_second);
                }
                Ok(abi::STATUS_OK)
            })
        }
    }
    unsafe extern "C" fn beta<L: Loss>(instance: *mut c_void) -> f64 {
        // SAFETY: motrain passes a live instance.
        catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { this::<L>(instance) }.beta())).unwrap_or(f64::NAN)
    }
    let functions =
        abi::LossFns { struct_size: size_of::<abi::LossFns>(), evaluate: Some(evaluate::<L>), beta: Some(beta::<L>) };
    let flags = if L::NEEDS_OTHER { abi::FLAG_NEEDS_OTHER } else { 0 };
    component::<L, _>(abi::KIND_LOSS, flags, functions)
}

/// A pair under other weights, and where its derivatives go, if motrain tells them: one before 1.2 does not.
///
/// # Safety
/// `pairs` is motrain's, and has more than `i` pairs.
unsafe fn other(pairs: *const abi::Pairs, i: usize) -> Option<(Other, [*mut f64; 2])> {
    // SAFETY: promised by the caller; what lies beyond `struct_size` is not read.
    unsafe {
        if (*pairs).struct_size <= offset_of!(abi::Pairs, d_other_second) || (*pairs).other_policy_first.is_null() {
            return None;
        }
        let p = &*pairs;
        let other = Other {
            policy_first: *p.other_policy_first.add(i),
            policy_second: *p.other_policy_second.add(i),
            reference_first: *p.other_reference_first.add(i),
            reference_second: *p.other_reference_second.add(i),
        };
        Some((other, [p.d_other_first.add(i), p.d_other_second.add(i)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A motrain before 1.2 ends its pairs before the log-probs under other weights.
    #[test]
    fn pairs_of_version_1_1_know_no_other_weights() {
        let (numbers, mut room, none) = ([-1.0, -2.0], [0.0; 2], std::ptr::null());
        let pairs = |struct_size: usize, other_policy_first: *const f64, room: &mut [f64]| abi::Pairs {
            struct_size,
            other_policy_first,
            other_policy_second: numbers.as_ptr(),
            other_reference_first: numbers.as_ptr(),
            other_reference_second: numbers.as_ptr(),
            d_other_first: room.as_mut_ptr(),
            d_other_second: room.as_mut_ptr(),
            // SAFETY: null pointers and zeros, which nothing reads.
            ..unsafe { std::mem::zeroed() }
        };
        let told = size_of::<abi::Pairs>();
        for (struct_size, first, known) in
            [(96, numbers.as_ptr(), false), (told, none, false), (told, numbers.as_ptr(), true)]
        {
            // SAFETY: the arrays have two numbers each.
            let other = unsafe { other(&pairs(struct_size, first, &mut room), 1) };
            assert_eq!(other.map(|(other, _)| other.policy_first), known.then_some(-2.0), "{struct_size}");
        }
    }
}
