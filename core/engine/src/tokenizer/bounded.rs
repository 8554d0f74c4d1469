//! Work of a foreign file's making, on a thread that is left to itself when it takes too long: not all that a template can ask for takes steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// What the work may take of a processor; steps are counted to end it before. A machine that is busy or asleep takes nothing from this.
const LONGEST: Duration = Duration::from_secs(1);
/// What it may take where the system does not tell that, by the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does the work with a stack of `stack` bytes; an error is why there is no result.
pub fn run<T: Send + 'static>(stack: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (started, begun) = sync_channel(1);
    let (done, result) = sync_channel(1);
    let worker = Builder::new().stack_size(stack).spawn(move || {
        let _ = started.send(std::fs::read_link("/proc/thread-self").ok());
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    worker.map_err(|e| format!("there is no thread for it: {e}"))?;
    let thread = begun.recv().ok().flatten().map(|own| Path::new("/proc").join(own).join("schedstat"));
    let clock = Instant::now();
    loop {
        match result.recv_timeout(LOOK_EVERY) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                return Err("the template engine panicked; please report it".into());
            }
            Err(RecvTimeoutError::Timeout) if has_run_too_long(thread.as_ref(), clock) => {
                return Err(format!(
                    "it takes more than {} s; does it double a list again and again?",
                    LONGEST.as_secs()
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn has_run_too_long(thread: Option<&PathBuf>, clock: Instant) -> bool {
    let told = thread.and_then(|path| std::fs::read_to_string(path).ok());
    let nanoseconds = told.and_then(|told| told.split_whitespace().next()?.parse().ok());
    match nanoseconds {
        Some(on_processor) => Duration::from_nanos(on_processor) > LONGEST,
        None => clock.elapsed() > LONGEST_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_without_an_end_is_left_and_a_wait_is_not() {
        let endless = run(1 << 20, || while std::hint::black_box(true) {});
        assert_eq!(endless.unwrap_err(), "it takes more than 1 s; does it double a list again and again?");
        let asleep = run(1 << 20, || std::thread::sleep(LONGEST + LOOK_EVERY));
        assert_eq!(asleep, Ok(()));
        let panicked = run(1 << 20, || panic!("{}", String::new()));
        assert!(panicked.unwrap_err().contains("please report it"));
    }
}
