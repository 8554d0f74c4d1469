//! What a plugin must leave as it is: the host's signals, working directory, file mode mask, locale and standard streams. A library's
//! initialisers change such things readily (`setlocale`, `signal`); they are set back, with a word.

use rustix::fs::Mode;
use rustix::process::umask;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::mem::zeroed;
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Signals that the host answers: by saving, or with an error of the write.
const SIGNALS: [c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

pub struct Host {
    actions: [libc::sigaction; SIGNALS.len()],
    folder: Option<PathBuf>,
    mask: Mode,
    locale: Option<CString>,
}

impl Host {
    pub fn now() -> Self {
        Self { actions: SIGNALS.map(action), folder: std::env::current_dir().ok(), mask: mask(), locale: locale() }
    }

    /// Sets back what `who` changed.
    pub fn restore(&self, who: &str) {
        for (signal, wanted) in SIGNALS.iter().zip(&self.actions) {
            if action(*signal).sa_sigaction != wanted.sa_sigaction {
                // SAFETY: the action was the host's own before.
                unsafe { libc::sigaction(*signal, wanted, std::ptr::null_mut()) };
                told(who, "how motrain answers signals");
            }
        }
        let folder = std::env::current_dir().ok();
        if let Some(wanted) = self.folder.as_ref().filter(|_| folder != self.folder)
            && std::env::set_current_dir(wanted).is_ok()
        {
            told(who, "the working directory");
        }
        if umask(self.mask) != self.mask {
            told(who, "the umask");
        }
        if let Some(wanted) = self.locale.as_ref().filter(|_| locale() != self.locale) {
            // SAFETY: the name came from setlocale.
            unsafe { libc::setlocale(libc::LC_ALL, wanted.as_ptr()) };
            told(who, "the locale");
        }
        if reopen_streams() {
            told(who, "standard input, output or error (closed)");
        }
    }
}

fn action(signal: c_int) -> libc::sigaction {
    // SAFETY: null asks for the present action, which is written to `found`.
    unsafe {
        let mut found = zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut found);
        found
    }
}

/// Read once, since reading it means setting it; the host itself never does.
fn mask() -> Mode {
    static MASK: OnceLock<Mode> = OnceLock::new();
    *MASK.get_or_init(|| {
        let mask = umask(Mode::RWXG | Mode::RWXO);
        umask(mask);
        mask
    })
}

fn locale() -> Option<CString> {
    // SAFETY: null asks for the present locale; the text is copied before anybody changes it.
    unsafe {
        let name = libc::setlocale(libc::LC_ALL, std::ptr::null());
        (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
    }
}

/// Otherwise the next file that is opened would be standard output or error.
fn reopen_streams() -> bool {
    let mut closed = false;
    for descriptor in 0..3 {
        // SAFETY: only asks whether the descriptor is open.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1
            && let Ok(null) = File::options().read(true).write(true).open("/dev/null")
        {
            // The lowest free number is this one.
            closed |= null.into_raw_fd() == descriptor;
        }
    }
    closed
}

/// A word, once.
fn told(who: &str, what: &str) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{who}{what}")) {
        tracing::warn!("{who} changed {what}; it is set back");
    }
}
