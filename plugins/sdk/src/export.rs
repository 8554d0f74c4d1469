//! What `export!` makes of components: tables of functions that motrain calls.

use crate::call::{array, borrowed, guarded, quiet_panics, text, write};
use crate::{Component, Conditioner, FrontPoint, LabelRule, Loss, Message, Other, Pair, Reward, Sample, Sampler, Turn};
use motrain_abi as abi;
use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::catch_unwind;
use std::sync::OnceLock;

type Error = *mut abi::ErrorText;

/// A plugin's description. It is never freed, so that its pointers stay valid.
pub struct Exported(&'static abi::Plugin);

// SAFETY: the description is not changed after it was made.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// The description, made on the first call; null if making it panicked.
pub fn plugin(
    cell: &'static OnceLock<Exported>,
    name: &'static str,
    version: &'static str,
    components: fn() -> Vec<abi::Component>,
) -> *const abi::Plugin {
    let make = || {
        quiet_panics();
        let each: Vec<*const abi::Component> =
            components().into_iter().map(|c| std::ptr::from_ref(Box::leak(Box::new(c)))).collect();
        let each: &'static [_] = Vec::leak(each);
        Exported(Box::leak(Box::new(abi::Plugin {
            struct_size: size_of::<abi::Plugin>(),
            version_major: abi::VERSION_MAJOR,
            version_minor: abi::VERSION_MINOR,
            name: borrowed(name),
            version: borrowed(version),
            components: each.as_ptr(),
            component_count: each.len(),
        })))
    };
    catch_unwind(|| std::ptr::from_ref(cell.get_or_init(make).0)).unwrap_or(std::ptr::null())
}

fn component<C: Component, F: 'static>(kind: u32, flags: u32, functions: F) -> abi::Component {
    let schema = schemars::schema_for!(C::Options).to_value().to_string();
    abi::Component {
        struct_size: size_of::<abi::Component>(),
        kind,
        flags: flags | abi::FLAG_THREAD_SAFE,
        name: borrowed(C::NAME),
        summary: borrowed(C::SUMMARY),
        schema: borrowed(String::leak(schema)),
        create: Some(create::<C>),
        destroy: Some(destroy::<C>),
        functions: std::ptr::from_ref::<F>(Box::leak(Box::new(functions))).cast(),
    }
}

unsafe extern "C" fn create<C: Component>(
    config: abi::Str,
    seed: u64,
    instance: *mut *mut c_void,
    error: Error,
) -> abi::Status {
    // SAFETY: motrain passes borrowed text, a place for the instance and an error buffer.
    unsafe {
        guarded(error, || {
            let options = serde_json::from_str(text(config)).map_err(|e| e.to_string())?;
            let made = C::create(options, seed)?;
            *instance = Box::into_raw(Box::new(made)).cast();
            Ok(abi::STATUS_OK)
        })
    }
}

unsafe extern "C" fn destroy<C: Component>(instance: *mut c_void, error: Error) -> abi::Status {
    // SAFETY: motrain destroys an instance that `create` made, once.
    unsafe {
        guarded(error, || {
            drop(Box::from_raw(instance.cast::<C>()));
            Ok(abi::STATUS_OK)
        })
    }
}

/// # Safety
/// `instance` was made by `create::<C>` and lives.
unsafe fn this<'a, C>(instance: *mut c_void) -> &'a C {
    // SAFETY: promised by the caller.
    unsafe { &*instance.cast::<C>() }
}

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

pub fn rewards<R: Reward>() -> abi::Component {
    unsafe extern "C" fn score<R: Reward>(
        instance: *mut c_void,
        samples: *const *const abi::Sample,
        count: usize,
        scores: *mut f64,
        written: *mut usize,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes `count` samples, room for as many scores, and borrowed text.
        unsafe {
            guarded(error, || {
                let samples: Vec<Sample> = array(samples, count).iter().map(|&s| read(s)).collect();
                let made = this::<R>(instance).score(&samples)?;
                *written = made.len();
                write(scores, &made[..made.len().min(count)]);
                Ok(abi::STATUS_OK)
            })
        }
    }
    let flags = if R::NEEDS_ROW { abi::FLAG_NEEDS_ROW } else { 0 };
    let functions = abi::RewardFns { struct_size: size_of::<abi::RewardFns>(), score: Some(score::<R>) };
    component::<R, _>(abi::KIND_REWARD, flags, functions)
}

pub fn samplers<S: Sampler>() -> abi::Component {
    unsafe extern "C" fn sample<S: Sampler>(
        instance: *mut c_void,
        objectives: usize,
        index: u64,
        seed: u64,
        weights: *mut f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes room for `objectives` weights.
        unsafe {
            guarded(error, || {
                let made = this::<S>(instance).sample(objectives, index, seed)?;
                if made.len() != objectives {
                    return Err(format!("gave {} weights for {objectives} objectives", made.len()));
                }
                write(weights, &made);
                Ok(abi::STATUS_OK)
            })
        }
    }
    unsafe extern "C" fn feedback<S: Sampler>(
        instance: *mut c_void,
        objectives: usize,
        points: usize,
        weights: *const f64,
        rewards: *const f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes `points × objectives` numbers twice.
        unsafe {
            guarded(error, || {
                let weights = array(weights, points * objectives).chunks(objectives.max(1));
                let rewards = array(rewards, points * objectives).chunks(objectives.max(1));
                let front: Vec<FrontPoint> = weights
                    .zip(rewards)
                    .map(|(w, r)| FrontPoint { weights: w.to_vec(), rewards: r.to_vec() })
                    .collect();
                this::<S>(instance).feedback(&front)?;
                Ok(abi::STATUS_OK)
            })
        }
    }
    let functions = abi::SamplerFns {
        struct_size: size_of::<abi::SamplerFns>(),
        sample: Some(sample::<S>),
        feedback: S::WANTS_FEEDBACK.then_some(feedback::<S>),
    };
    component::<S, _>(abi::KIND_SAMPLER, 0, functions)
}

pub fn conditioners<C: Conditioner>() -> abi::Component {
    unsafe fn inputs<'a>(prompt: *const abi::Conditioning) -> (Vec<&'a str>, &'a [Message<'a>]) {
        // SAFETY: motrain passes a filled struct whose arrays live as long as the call.
        unsafe {
            let p = &*prompt;
            let objectives = array(p.objectives, p.objective_count).iter().map(|o| text(*o)).collect();
            (objectives, array(p.messages.cast::<Message>(), p.message_count))
        }
    }
    unsafe fn push(out: *const abi::MessageSink, turns: &[Turn]) {
        // SAFETY: motrain passes a sink that lives as long as the call.
        unsafe {
            let Some(take) = (*out).push else { return };
            for turn in turns {
                take((*out).context, borrowed(&turn.role), borrowed(&turn.content));
            }
        }
    }
    unsafe extern "C" fn render<C: Conditioner>(
        instance: *mut c_void,
        prompt: *const abi::Conditioning,
        weights: *const f64,
        out: *const abi::MessageSink,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes one weight per objective.
        unsafe {
            guarded(error, || {
                let (objectives, messages) = inputs(prompt);
                let weights = array(weights, objectives.len());
                push(out, &this::<C>(instance).render(&objectives, weights, messages)?);
                Ok(abi::STATUS_OK)
            })
        }
    }
    unsafe extern "C" fn parse<C: Conditioner>(
        instance: *mut c_void,
        conditioned: *const abi::Conditioning,
        weights: *mut f64,
        out: *const abi::MessageSink,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes room for one weight per objective.
        unsafe {
            guarded(error, || {
                let (objectives, messages) = inputs(conditioned);
                let Some((found, turns)) = this::<C>(instance).parse(&objectives, messages) else {
                    return Ok(abi::STATUS_NONE);
                };
                if found.len() != objectives.len() {
                    return Err(format!("gave {} weights for {} objectives", found.len(), objectives.len()));
                }
                write(weights, &found);
                push(out, &turns);
                Ok(abi::STATUS_OK)
            })
        }
    }
    let functions = abi::ConditionerFns {
        struct_size: size_of::<abi::ConditionerFns>(),
        render: Some(render::<C>),
        parse: Some(parse::<C>),
    };
    component::<C, _>(abi::KIND_CONDITIONER, 0, functions)
}

pub fn labels<L: LabelRule>() -> abi::Component {
    unsafe extern "C" fn label<L: LabelRule>(
        instance: *mut c_void,
        objectives: usize,
        weights: *const f64,
        first: *const f64,
        second: *const f64,
        label: *mut f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes three arrays of `objectives` numbers and a place for the label.
        unsafe {
            guarded(error, || {
                let numbers = |data| array(data, objectives);
                let Some(p) = this::<L>(instance).label(numbers(weights), numbers(first), numbers(second)) else {
                    return Ok(abi::STATUS_NONE);
                };
                *label = p;
                Ok(abi::STATUS_OK)
            })
        }
    }
    let functions = abi::LabelFns { struct_size: size_of::<abi::LabelFns>(), label: Some(label::<L>) };
    component::<L, _>(abi::KIND_LABEL, 0, functions)
}

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

    /// A motrain of version 1.0 ends its samples before `finished`; whatever lies there is not read.
    #[test]
    fn a_sample_of_version_1_0_counts_as_finished() {
        let none = borrowed("");
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
}
