//! Conditioners.

use super::{Error, component, this};
use crate::call::{array, borrowed, guarded, text, write};
use crate::{Conditioner, Message, Turn};
use motrain_abi as abi;
use std::ffi::c_void;

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
