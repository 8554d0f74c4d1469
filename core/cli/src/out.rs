//! Standard output holds results and nothing else: file descriptor 1 becomes standard error, so that whatever a library prints (a plugin, or
//! what it links to) goes there, and `say!` writes to the standard output that motrain was started with.

use anyhow::{Context, Result};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

static OUT: Mutex<Option<Out>> = Mutex::new(None);

struct Out {
    to: File,
    failed: Option<io::Error>,
}

/// Takes standard output for `say!`; called once, before any library can print.
pub fn keep() -> Result<()> {
    let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).context("standard output cannot be kept")?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr()).context("standard output cannot be kept")?;
    *OUT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Out { to: own.into(), failed: None });
    Ok(())
}

/// Writes a line. What goes wrong is kept for `finish`, so that a reader that went away (`| head`) ends no work.
pub fn line(text: fmt::Arguments) {
    if let Some(out) = &mut *OUT.lock().unwrap_or_else(PoisonError::into_inner)
        && out.failed.is_none()
    {
        out.failed = out.to.write_all(format!("{text}\n").as_bytes()).err();
    }
}

/// Whether all lines arrived, or their reader wanted no more of them.
pub fn finish() -> Result<()> {
    match OUT.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|out| out.failed.take()) {
        Some(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("standard output cannot be written to"),
        _ => Ok(()),
    }
}

/// `println!` for results.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}
pub(crate) use say;
