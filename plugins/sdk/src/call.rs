//! Crossing the interface: borrowed text, error buffers, and panics that stop here.

use motrain_abi as abi;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a panic's place and message for the error, instead of printing them. The hook is the plugin's own copy of std's.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let message = format!("the plugin panicked{place}: {}", payload(info.payload()));
        PANIC.with(|p| *p.borrow_mut() = message);
    }));
}

fn payload(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs a component; an error or a panic becomes a status and text.
///
/// # Safety
/// `error` is null or motrain's buffer for this call.
pub unsafe fn guarded(error: *mut abi::ErrorText, body: impl FnOnce() -> Result<abi::Status, String>) -> abi::Status {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => return status,
        Ok(Err(message)) => message,
        Err(_) => PANIC.with(|p| p.take()),
    };
    // SAFETY: promised by the caller.
    unsafe { write_error(error, &message) };
    abi::STATUS_ERROR
}

unsafe fn write_error(error: *mut abi::ErrorText, message: &str) {
    // SAFETY: the buffer holds `capacity` bytes.
    unsafe {
        let Some(error) = error.as_mut() else { return };
        let mut length = message.len().min(error.capacity);
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        std::ptr::copy_nonoverlapping(message.as_ptr(), error.data, length);
        error.length = length;
    }
}

/// # Safety
/// `text` is borrowed from motrain for at least 'a.
pub unsafe fn text<'a>(text: abi::Str) -> &'a str {
    // SAFETY: promised by the caller.
    std::str::from_utf8(unsafe { array(text.data, text.length) }).unwrap_or_default()
}

/// # Safety
/// `data` holds `count` values for at least 'a, or `count` is 0.
pub unsafe fn array<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(data, count) }
}

/// # Safety
/// `out` has room for `values`.
pub unsafe fn write(out: *mut f64, values: &[f64]) {
    // SAFETY: promised by the caller.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), out, values.len()) };
}

pub const fn borrowed(text: &str) -> abi::Str {
    abi::Str { data: text.as_ptr(), length: text.len() }
}
