//! Calling an instance: one at a time unless it is thread-safe, its errors turned into ours, and a word when it takes long.

use super::library::Described;
use crate::error::{Error, Result};
use motrain_abi as abi;
use serde_json::Value;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Bytes that an error text may have.
const ERROR_CAPACITY: usize = 1024;

/// An instance of a plugin's component; destroyed when dropped.
pub struct Instance {
    pub component: &'static Described,
    raw: *mut c_void,
    /// Held during a call, unless the component is thread-safe.
    gate: Option<Mutex<()>>,
    watch: Arc<Watch>,
}

// SAFETY: the interface lets instances move between threads, and `gate` keeps calls apart where they must be.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    pub fn create(component: &'static Described, options: &Value, seed: u64) -> Result<Self> {
        let config = if options.is_null() { "{}".to_owned() } else { options.to_string() };
        let mut raw = std::ptr::null_mut();
        let create = component.create;
        let config = lent(&config);
        // SAFETY: the text, the place for the instance and the error buffer live through the call.
        let status = with_error(|error| unsafe { create(config, seed, &mut raw, error) });
        status.map_err(|what| Error::BadOptions { owner: component.owner(), what })?;
        let gate = (component.flags & abi::FLAG_THREAD_SAFE == 0).then(Mutex::default);
        Ok(Self { component, raw, gate, watch: Watch::start(component.owner()) })
    }

    /// Whether it gave a result (`STATUS_OK`) or has none (`STATUS_NONE`); the error text otherwise.
    pub fn call(
        &self,
        body: impl FnOnce(*mut c_void, *mut abi::ErrorText) -> abi::Status,
    ) -> std::result::Result<bool, String> {
        let _alone = self.gate.as_ref().map(|g| g.lock().unwrap_or_else(PoisonError::into_inner));
        let _watched = self.watch.begin();
        with_error(|error| body(self.raw, error))
    }

    /// As `call`, with the component named in the error.
    pub fn call_named(&self, body: impl FnOnce(*mut c_void, *mut abi::ErrorText) -> abi::Status) -> Result<bool> {
        self.call(body).map_err(|what| Error::Component { owner: self.component.owner(), what })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let Some(destroy) = self.component.destroy else { return };
        // SAFETY: `raw` was made by this component's create and is destroyed once.
        if let Err(what) = with_error(|error| unsafe { destroy(self.raw, error) }) {
            tracing::warn!("{}: could not be destroyed: {what}", self.component.owner());
        }
    }
}

fn with_error(body: impl FnOnce(*mut abi::ErrorText) -> abi::Status) -> std::result::Result<bool, String> {
    let mut buffer = [0u8; ERROR_CAPACITY];
    let mut error = abi::ErrorText {
        struct_size: size_of::<abi::ErrorText>(),
        data: buffer.as_mut_ptr(),
        capacity: ERROR_CAPACITY,
        length: 0,
    };
    let status = body(&mut error);
    let length = error.length.min(ERROR_CAPACITY);
    match status {
        abi::STATUS_OK => Ok(true),
        abi::STATUS_NONE => Ok(false),
        abi::STATUS_ERROR if length == 0 => Err("the plugin failed without saying why".into()),
        abi::STATUS_ERROR => Err(String::from_utf8_lossy(&buffer[..length]).into_owned()),
        other => Err(format!("the plugin returned the unknown status {other}")),
    }
}

/// Text lent for a call.
pub fn lent(text: &str) -> abi::Str {
    abi::Str { data: text.as_ptr(), length: text.len() }
}

/// Milliseconds after which a call is reported; 0 never.
static LIMIT_MS: AtomicU64 = AtomicU64::new(60_000);
static CLOCK: OnceLock<Instant> = OnceLock::new();
static WATCHES: Mutex<Vec<Weak<Watch>>> = Mutex::new(Vec::new());

/// After how long a plugin's call is reported. It cannot be cancelled: native code that is stopped midway leaves locks and memory
/// in any state.
pub fn set_time_limit(limit: Duration) {
    LIMIT_MS.store(limit.as_millis() as u64, Ordering::Relaxed);
}

/// When the call in progress began.
struct Watch {
    owner: String,
    /// Milliseconds on `CLOCK`, at least 1; 0 between calls.
    began: AtomicU64,
    told: AtomicBool,
}

impl Watch {
    fn start(owner: String) -> Arc<Self> {
        let watch = Arc::new(Self { owner, began: AtomicU64::new(0), told: AtomicBool::new(false) });
        let mut all = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|w| w.strong_count() > 0);
        all.push(Arc::downgrade(&watch));
        if CLOCK.set(Instant::now()).is_ok() {
            std::thread::spawn(report_slow_calls);
        }
        watch
    }

    fn begin(&self) -> impl Drop + '_ {
        struct Done<'a>(&'a Watch);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.began.store(0, Ordering::Relaxed);
            }
        }
        self.began.store(now_ms(), Ordering::Relaxed);
        Done(self)
    }
}

fn now_ms() -> u64 {
    CLOCK.get().map_or(0, |c| c.elapsed().as_millis() as u64) + 1
}

fn report_slow_calls() {
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let limit = LIMIT_MS.load(Ordering::Relaxed);
        let all = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        for watch in all.iter().filter_map(Weak::upgrade) {
            let began = watch.began.load(Ordering::Relaxed);
            if began == 0 {
                watch.told.store(false, Ordering::Relaxed);
                continue;
            }
            let busy = now_ms().saturating_sub(began);
            if limit > 0 && busy > limit && !watch.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "{} has been busy for {:.1} s (plugins.call_seconds = {}); a native call cannot be cancelled safely: wait, or \
                     press Ctrl-C twice and resume from the last checkpoint",
                    watch.owner,
                    busy as f64 / 1e3,
                    limit as f64 / 1e3
                );
            }
        }
    }
}
