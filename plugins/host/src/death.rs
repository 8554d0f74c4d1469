//! When a plugin ends the process (a crash, `abort`, an exception of another language, `exit`), the last words name it and its call.

use super::running;
use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

/// Signals that end a process because of what its code does.
const SIGNALS: [(c_int, &str); 9] = [
    (libc::SIGSEGV, "SIGSEGV, an invalid memory access"),
    (libc::SIGBUS, "SIGBUS, a memory error"),
    (libc::SIGFPE, "SIGFPE, an arithmetic error"),
    (libc::SIGILL, "SIGILL, an invalid instruction"),
    (libc::SIGABRT, "SIGABRT, as abort and uncaught exceptions raise"),
    (libc::SIGTRAP, "SIGTRAP, a trap instruction"),
    (libc::SIGSYS, "SIGSYS, a forbidden system call"),
    (libc::SIGALRM, "SIGALRM, of a timer that motrain does not set"),
    (libc::SIGXFSZ, "SIGXFSZ, of a limit on file sizes"),
];

/// What was done with each of `SIGNALS` before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// Whether the host itself may be ending the process: always, until a `Main` promises to say so.
static LEAVING: AtomicBool = AtomicBool::new(true);
static LIBRARIES: Mutex<String> = Mutex::new(String::new());

/// Remembers a library, as a suspect of crashes outside of its calls.
pub fn suspect(library: &str) {
    let mut all = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    if !all.is_empty() {
        all.push_str(", ");
    }
    all.push_str(library);
}

/// The host's `main`: while it lives, an exit is some library's doing, unless it goes through `exit`.
pub struct Main(());

impl Main {
    /// From here on an exit that nobody announced is some library's.
    pub fn begin() -> Self {
        LEAVING.store(false, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    LEAVING.store(true, Ordering::SeqCst);
    super::image::clean();
}

/// Ends the host at once. Other threads may be computing, so that nothing is torn down below them: a destructor of libtorch's would end in a crash, and
/// the exit code would be that of the crash.
pub fn exit(code: i32) -> ! {
    leave();
    // SAFETY: ends the process, and runs nothing before that.
    unsafe { libc::_exit(code) }
}

/// Takes over the signals and the end of the process, once.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        PROCESS.store(std::process::id() as i32, Ordering::SeqCst);
        // SAFETY: `on_exit` has the type that atexit asks for and lives as long as the process.
        unsafe { libc::atexit(on_exit) };
        let before = SIGNALS.map(|(signal, _)| {
            let mut old = MaybeUninit::uninit();
            // SAFETY: null asks for the present action, which is written to `old`; on failure it stays zero, the default action.
            unsafe {
                old.write(zeroed());
                libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr());
                old.assume_init()
            }
        });
        let _ = BEFORE.set(before);
        for (signal, _) in SIGNALS {
            // SAFETY: the action is whole: a handler with three arguments, an empty mask, and flags.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                // On the alternate stack that std gives each thread: the other one may have overflowed.
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
    });
}

/// Says who was running, then lets happen what would have happened without it.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let Some(at) = SIGNALS.iter().position(|(s, _)| *s == signal) else { return };
    if PROCESS.load(Ordering::SeqCst) == own_process() {
        last_words(&["ended by ", SIGNALS[at].1]);
    }
    // SAFETY: only functions that a signal handler may call; `info` is the kernel's.
    unsafe {
        if let Some(before) = BEFORE.get() {
            libc::sigaction(signal, &before[at], std::ptr::null_mut());
        }
        // A fault happens again when the handler returns; what was sent has to be sent again.
        if info.is_null() || (*info).si_code <= 0 {
            libc::raise(signal);
        }
    }
}

/// `exit` was called, perhaps not by the host.
extern "C" fn on_exit() {
    if by_a_library() {
        last_words(&["ended by exit(), which a plugin must not call"]);
        end(1);
    }
}

/// What `_exit` and its like do in this process: a plugin's call of them must not pass for success either.
pub fn raw_exit(code: c_int) -> ! {
    let library = by_a_library();
    if library {
        last_words(&["ended by _exit() or its like, which a plugin must not call"]);
    }
    end(if library { 1 } else { code })
}

/// Whether an end of this process is a library's doing: within its call, or while the host has not said that it is leaving.
fn by_a_library() -> bool {
    let leaving = LEAVING.load(Ordering::SeqCst) && running::here().is_none();
    !leaving && PROCESS.load(Ordering::SeqCst) == own_process()
}

/// Ends the process at once, with nothing run or written on the way.
fn end(code: c_int) -> ! {
    loop {
        // SAFETY: the call has one number and does not return.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::syscall(libc::SYS_exit_group, code)
        };
        // SAFETY: as above.
        #[cfg(not(target_os = "linux"))]
        unsafe {
            libc::_exit(code)
        };
    }
}

/// A call that forked comes back twice; the copy must not go on beside the host, in the same files.
pub fn one_process() {
    if PROCESS.load(Ordering::SeqCst) != own_process() {
        last_words(&["forked; the copy ends here"]);
        end(1);
    }
}

fn own_process() -> i32 {
    // SAFETY: always succeeds.
    unsafe { libc::getpid() }
}

/// Written without allocating or waiting, as a signal handler must.
fn last_words(how: &[&str]) {
    let mut text = Text { bytes: [0; 4096], length: 0 };
    text.push("error: motrain was ");
    how.iter().for_each(|part| text.push(part));
    match running::here() {
        Some(call) => {
            text.push(", in ");
            text.push(call.function);
            text.push(" of ");
            text.push(call.who);
            text.push(" (call ");
            text.number(call.number);
            text.push(")\n  mend that plugin, or do without it; `motrain plugin check` tries it without a run");
        }
        None => {
            text.push(", in a thread that is in no plugin's call; these libraries are loaded and may be the cause: ");
            text.push(LIBRARIES.try_lock().as_deref().map_or("(unknown)", |all| all.as_str()));
        }
    }
    text.push("\n  a run goes on from its last checkpoint with --resume\n");
    text.write();
}

struct Text {
    bytes: [u8; 4096],
    length: usize,
}

impl Text {
    fn push(&mut self, part: &str) {
        let room = self.bytes.len() - self.length;
        let part = &part.as_bytes()[..part.len().min(room)];
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    fn number(&mut self, mut n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        while at == digits.len() || n > 0 {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
        }
        self.push(std::str::from_utf8(&digits[at..]).unwrap_or_default());
    }

    fn write(&self) {
        // SAFETY: the bytes are ours; a closed standard error only makes it fail.
        unsafe { libc::write(2, self.bytes.as_ptr().cast(), self.length) };
    }
}
