//! Label rules.

use super::{Error, component, this};
use crate::LabelRule;
use crate::call::{array, guarded};
use motrain_abi as abi;
use std::ffi::c_void;

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
