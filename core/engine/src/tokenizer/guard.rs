//! Panics of the tokenizers crate as errors.
//!
//! tokenizer.json is a program that others wrote: a regular expression that gives up, a split into pieces of no length and more make the
//! crate panic while it encodes. What a file says must not end the process, so its calls are caught here, and nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`; a panic in it becomes its message.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    // The tokenizer is read only by these calls; what a panic left half done was theirs alone.
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or("it panicked").lines().next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded(|| -> i32 { panic!("no {}", "luck") }), Err("no luck".into()));
        assert_eq!(guarded(|| -> i32 { panic!("no luck") }), Err("no luck".into()));
        assert!(!QUIET.get(), "later panics speak again");
    }
}
