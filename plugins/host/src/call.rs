//! Calling an instance: one at a time unless it is thread-safe, with its errors turned into ours.

use super::library::Described;
use super::running::{self, Call};
use motrain_abi as abi;
use motrain_core::error::{Error, Result};
use serde_json::Value;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes that an error text may have.
const ERROR_CAPACITY: usize = 1024;

/// An instance of a plugin's component; destroyed when dropped.
pub struct Instance {
    pub component: &'static Described,
    raw: *mut c_void,
    /// Held during a call, unless the component is thread-safe.
    gate: Option<Mutex<()>>,
    calls: AtomicU64,
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
        let call = Call { who: &component.who, function: "create", number: 1 };
        let status = running::run(call, || {
            // SAFETY: the text, the place for the instance and the error buffer live through the call.
            with_error(|error| unsafe { create(config, seed, &mut raw, error) })
        });
        status.map_err(|what| Error::BadOptions { owner: component.owner(), what })?;
        let gate = (component.flags & abi::FLAG_THREAD_SAFE == 0).then(Mutex::default);
        Ok(Self { component, raw, gate, calls: AtomicU64::new(0) })
    }

    /// Whether it gave a result (`STATUS_OK`) or has none (`STATUS_NONE`); the error text otherwise.
    pub fn call(
        &self,
        function: &'static str,
        body: impl FnOnce(*mut c_void, *mut abi::ErrorText) -> abi::Status,
    ) -> std::result::Result<bool, String> {
        let _alone = self.gate.as_ref().map(|g| g.lock().unwrap_or_else(PoisonError::into_inner));
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let call = Call { who: &self.component.who, function, number };
        running::run(call, || with_error(|error| body(self.raw, error)))
    }

    /// As `call`, with the component named in the error.
    pub fn call_named(
        &self,
        function: &'static str,
        body: impl FnOnce(*mut c_void, *mut abi::ErrorText) -> abi::Status,
    ) -> Result<bool> {
        self.call(function, body).map_err(|what| self.failed(what))
    }

    /// An error that names the component.
    pub fn failed(&self, what: impl Into<String>) -> Error {
        Error::Component { owner: self.component.owner(), what: what.into() }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let Some(destroy) = self.component.destroy else { return };
        let call = Call { who: &self.component.who, function: "destroy", number: 1 };
        // SAFETY: `raw` was made by this component's create and is destroyed once.
        if let Err(what) = running::run(call, || with_error(|error| unsafe { destroy(self.raw, error) })) {
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
        abi::STATUS_ERROR => Err(printable(&String::from_utf8_lossy(&buffer[..length]))),
        other => Err(format!("the plugin returned the unknown status {other}")),
    }
}

/// Text of a plugin for a terminal: control characters could rewrite what is on it.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Text lent for a call.
pub fn lent(text: &str) -> abi::Str {
    abi::Str { data: text.as_ptr(), length: text.len() }
}
