//! SIGINT (Ctrl-C), SIGTERM and SIGHUP: the first asks a run to save and stop, a second ends the process at once.

use anyhow::Result;
use motrain_core::stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};

static HEARD: AtomicI32 = AtomicI32::new(0);

/// Listens from now on.
pub fn listen() -> Result<()> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = Signals::new(signals)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if stop::asked() {
                motrain_host::exit(exit_code(signal));
            }
            HEARD.store(signal, Ordering::Relaxed);
            stop::ask();
            let _ = writeln!(std::io::stderr(), "\nsaving, then stopping; a second signal stops at once");
        }
    });
    Ok(())
}

/// The exit code of a process that a signal stopped, once it has saved.
pub fn heard() -> u8 {
    exit_code(HEARD.load(Ordering::Relaxed)) as u8
}

/// As shells tell of it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}

/// `nohup` starts a process with SIGHUP ignored, and it is to stay so.
fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills `now`, which is of the type that it fills.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: all zeros are a valid `sigaction`, and a successful call wrote another one.
    read == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}
