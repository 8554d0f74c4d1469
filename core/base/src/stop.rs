//! Asking this process to stop. Whoever hears of it (the signals of the command line) asks once; loops and waits obey, so that no stage keeps
//! on for long: what a step has begun is given up.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);
static DOOR: Mutex<()> = Mutex::new(());
static BELL: Condvar = Condvar::new();

/// How soon work on another thread is left.
const GLANCE: Duration = Duration::from_millis(50);

/// Asks to stop, for good.
pub fn ask() {
    let _held = DOOR.lock().unwrap_or_else(PoisonError::into_inner);
    ASKED.store(true, Ordering::Relaxed);
    BELL.notify_all();
}

/// Whether work is to be given up.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error once it was asked. Loops that take long call it at each turn.
pub fn obey() -> Result<()> {
    if asked() { Err(Error::Stopped) } else { Ok(()) }
}

/// Sleeps, but no longer than until it is asked.
pub fn pause(time: Duration) -> Result<()> {
    let held = DOOR.lock().unwrap_or_else(PoisonError::into_inner);
    drop(BELL.wait_timeout_while(held, time, |()| !asked()));
    obey()
}

/// Does what cannot be asked midway on a thread of its own, which is left to itself once it was asked to stop.
pub fn unless_asked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    obey()?;
    let (done, result) = channel();
    let thread = std::thread::spawn(move || drop(done.send(work())));
    loop {
        match result.recv_timeout(GLANCE) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => obey()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // It ended without a result.
    match thread.join() {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(()) => Err(Error::Invalid("a thread ended without its result; please report it".into())),
    }
}

/// What a failure was: work that was given up fails in many ways once it was asked to stop.
pub fn or(error: Error) -> Error {
    if asked() { Error::Stopped } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    // None asks: that is for good, and tests share a process. tests/signals.rs does.
    #[test]
    fn work_that_is_done_gives_its_result_and_its_panic() {
        assert_eq!(unless_asked(|| 7).unwrap(), 7);
        pause(Duration::from_millis(1)).unwrap();
        assert!(std::panic::catch_unwind(|| unless_asked(|| panic!("inside"))).is_err());
        assert!(!matches!(or(Error::Invalid("x".into())), Error::Stopped));
    }
}
