//! A plugin's instances as motrain's six traits.

mod conditioner;
mod judge;
mod label;
mod loss;
mod reward;
mod sampler;

pub use conditioner::PluginConditioner;
pub use judge::PluginJudge;
pub use label::PluginLabel;
pub use loss::PluginLoss;
pub use reward::PluginReward;
pub use sampler::PluginSampler;

use crate::call::lent;
use motrain_abi as abi;
use motrain_core::{Prompt, stop};

/// A required function of a component's table.
macro_rules! function {
    ($instance:expr, $table:ty, $name:ident) => {{
        let component = $instance.component;
        let failed = |what: String| $instance.failed(what);
        // SAFETY: the table lives as long as the library; only what lies inside its struct_size is read.
        let found = unsafe { $crate::describe::field!(component.functions.cast::<$table>(), $table, $name) };
        found.map_err(failed)?.ok_or_else(|| failed(format!("has no function \"{}\"", stringify!($name))))?
    }};
}

/// An optional one: absent, or beyond the table's end.
macro_rules! optional {
    ($instance:expr, $table:ty, $name:ident) => {
        // SAFETY: as above.
        unsafe { $crate::describe::field!($instance.component.functions.cast::<$table>(), $table, $name) }
            .ok()
            .flatten()
    };
}

/// The function behind one of the interface's pointer types.
type Function<T> = <T as Pointer>::Function;
pub trait Pointer {
    type Function;
}
impl<F> Pointer for Option<F> {
    type Function = F;
}

use {function, optional};

/// Samples or duels a call: between two of them a signal is obeyed.
const AT_ONCE: usize = 32;

/// What `some` says of all items, a few a call, and one call if there are none.
fn in_parts<T, R>(items: &[T], some: impl Fn(&[T]) -> Result<Vec<R>, String>) -> Result<Vec<R>, String> {
    let (first, rest) = items.split_at(items.len().min(AT_ONCE));
    let mut found = some(first)?;
    for part in rest.chunks(AT_ONCE) {
        stop::obey().map_err(|e| e.to_string())?;
        found.extend(some(part)?);
    }
    Ok(found)
}

fn messages(prompt: &Prompt) -> Vec<abi::Message> {
    prompt.messages.iter().map(|m| abi::Message { role: lent(&m.role), content: lent(&m.content) }).collect()
}
