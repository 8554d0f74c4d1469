//! What Rhai does not count: seconds, memory and printed lines of a script, or of one call of its functions.

use motrain_core::shown::printable;
use motrain_core::{Error, stop};
use rhai::Dynamic;
use std::cell::Cell;
use std::time::{Duration, Instant};

const MAX_TIME: Duration = Duration::from_secs(60);
/// Growth of the process while the script runs, in bytes.
const MAX_MEMORY: u64 = 2 << 30;
const MAX_PRINTED: usize = 1 << 20;
/// Operations between two looks at clock and memory.
const EVERY: u64 = 256;

#[derive(Clone, Copy)]
struct Watch {
    started: Instant,
    /// The process's memory at the first look.
    memory: Option<u64>,
    printed: usize,
}

thread_local! {
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
}

/// Runs `work`, which runs script code on this thread, under the limits.
pub fn over<T>(work: impl FnOnce() -> T) -> T {
    let before = WATCH.replace(Some(Watch { started: Instant::now(), memory: None, printed: 0 }));
    let result = work();
    WATCH.set(before);
    result
}

/// Rhai calls this at each operation; a value ends the script with it.
pub fn progress(operations: u64) -> Option<Dynamic> {
    if !operations.is_multiple_of(EVERY) {
        return None;
    }
    if stop::asked() {
        return Some(Error::Stopped.to_string().into());
    }
    let mut watch = WATCH.get()?;
    if watch.started.elapsed() > MAX_TIME {
        return Some(format!("this ran for more than {} seconds", MAX_TIME.as_secs()).into());
    }
    if watch.printed > MAX_PRINTED {
        return Some(format!("this printed more than {MAX_PRINTED} bytes").into());
    }
    let now = resident()?;
    let first = *watch.memory.get_or_insert(now);
    WATCH.set(Some(watch));
    let grown = now.saturating_sub(first);
    (grown > MAX_MEMORY).then(|| format!("this filled {} MiB of memory", grown >> 20).into())
}

pub fn print(text: &str) {
    let Some(mut watch) = WATCH.get() else { return };
    watch.printed = watch.printed.saturating_add(text.len() + 1);
    WATCH.set(Some(watch));
    if watch.printed <= MAX_PRINTED {
        tracing::info!("{}", printable(text));
    }
}

/// Bytes of the process in memory, where the system tells.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}
