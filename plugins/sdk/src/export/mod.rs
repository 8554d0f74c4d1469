//! What `export!` makes of components: tables of functions that motrain calls.

mod conditioner;
mod judge;
mod label;
mod loss;
mod reward;
mod sampler;

pub use conditioner::conditioners;
pub use judge::judges;
pub use label::labels;
pub use loss::losses;
pub use reward::rewards;
pub use sampler::samplers;

use crate::Component;
use crate::call::{borrowed, guarded, quiet_panics, text};
use motrain_abi as abi;
use std::ffi::c_void;
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
