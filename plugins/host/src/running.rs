//! Calls into plugins that are under way: what a slow one, a crash, and the next start of a killed run are told from.

use super::{death, host};
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// Whose code runs, and what of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// `reward "acme.toxicity" of /lib/libx.so`
    pub who: &'static str,
    /// A function of the interface.
    pub function: &'static str,
    /// 1 for an instance's first call.
    pub number: u64,
}

thread_local! {
    /// Without a destructor and made at compile time, so that a signal handler may read it.
    static HERE: Cell<Option<Call>> = const { Cell::new(None) };
}

/// The call that this thread is in.
pub fn here() -> Option<Call> {
    HERE.get()
}

struct UnderWay {
    call: Call,
    began: Instant,
    told: bool,
}

#[derive(Default)]
struct State {
    calls: Vec<UnderWay>,
    host: Option<host::Host>,
    note: Option<Note>,
}

static STATE: Mutex<State> = Mutex::new(State { calls: Vec::new(), host: None, note: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a plugin's code. Afterwards the process is as the host wants it, whatever the plugin changed.
pub fn run<R>(call: Call, body: impl FnOnce() -> R) -> R {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| drop(std::thread::Builder::new().name("plugin watch".into()).spawn(report_slow_calls)));
    death::prepare();
    let began = Instant::now();
    state().begin(call, began);
    let before = HERE.replace(Some(call));
    let result = body();
    death::one_process();
    HERE.set(before);
    state().end(call, began);
    result
}

impl State {
    fn begin(&mut self, call: Call, began: Instant) {
        if self.calls.is_empty() {
            self.host = Some(host::Host::now());
        }
        self.calls.push(UnderWay { call, began, told: false });
        self.write_note();
    }

    fn end(&mut self, call: Call, began: Instant) {
        if let Some(at) = self.calls.iter().position(|c| c.call == call && c.began == began) {
            self.calls.remove(at);
        }
        self.write_note();
        // Another call may be using what this one changed, or the other way round.
        if self.calls.is_empty()
            && let Some(host) = self.host.take()
        {
            host.restore(call.who);
        }
    }
}

/// Milliseconds after which a call is reported; 0 never.
static LIMIT_MS: AtomicU64 = AtomicU64::new(60_000);

/// After how long a plugin's call is reported. It cannot be cancelled: native code that is stopped midway leaves locks and memory
/// in any state.
pub fn set_time_limit(limit: Duration) {
    LIMIT_MS.store(limit.as_millis() as u64, Ordering::Relaxed);
}

fn report_slow_calls() {
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let limit = Duration::from_millis(LIMIT_MS.load(Ordering::Relaxed));
        for slow in state().calls.iter_mut().filter(|c| !c.told && !limit.is_zero() && c.began.elapsed() > limit) {
            slow.told = true;
            tracing::warn!(
                "{} has been busy for {:.1} s in {} (plugins.call_seconds = {}); a native call cannot be cancelled safely: wait, or \
                 press Ctrl-C twice and resume from the last checkpoint",
                slow.call.who,
                slow.began.elapsed().as_secs_f64(),
                slow.call.function,
                limit.as_secs_f64()
            );
        }
    }
}

/// A file that names the calls under way, for the next start of a run that was killed within one.
struct Note {
    file: File,
    path: PathBuf,
    length: usize,
}

impl State {
    /// One write at the beginning and one at the end of a call. A full disk costs the note, not the run.
    fn write_note(&mut self) {
        let Some(note) = &mut self.note else { return };
        let lines = self.calls.iter().map(|c| format!("{} of {}\n", c.call.function, c.call.who));
        let text = lines.collect::<String>();
        let padded = format!("{text:<width$}", width = note.length);
        note.length = text.len();
        let _ = note.file.write_all_at(padded.as_bytes(), 0);
    }
}

/// Keeps the note in the file `path` until what is returned is dropped. Also what an earlier process left there, which ended within a call.
pub fn keep_note(path: &Path) -> (impl Drop + use<>, Option<String>) {
    struct Keep;
    impl Drop for Keep {
        fn drop(&mut self) {
            if let Some(note) = state().note.take() {
                let _ = std::fs::remove_file(note.path);
            }
        }
    }
    let left = std::fs::read_to_string(path).unwrap_or_default();
    let file = File::create(path);
    state().note = file.ok().map(|file| Note { file, path: path.to_owned(), length: 0 });
    let left: Vec<&str> = left.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    (Keep, (!left.is_empty()).then(|| left.join(", ")))
}
