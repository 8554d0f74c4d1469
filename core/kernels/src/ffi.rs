//! What `native/kernels.cpp` offers. A call that fails returns what is wrong, in memory of C's `malloc`.

use std::ffi::{CStr, c_char, c_void};
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    pub fn motrain_fast() -> bool;
    pub fn motrain_rms(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        w: *const C_tensor,
        eps: f64,
        plus_one: bool,
    ) -> *mut c_char;
    pub fn motrain_silu(out: *mut *mut C_tensor, x: *const C_tensor) -> *mut c_char;
    pub fn motrain_split(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        cos: *const C_tensor,
        sin: *const C_tensor,
        heads: i64,
        kv_heads: i64,
        head_dim: i64,
    ) -> *mut c_char;
    pub fn motrain_attention(
        out: *mut *mut C_tensor,
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        mask: *const C_tensor,
        scale: f64,
        cap: f64,
    ) -> *mut c_char;
    pub fn motrain_chosen(
        out: *mut *mut C_tensor,
        logits: *const C_tensor,
        targets: *const C_tensor,
        temperature: f64,
    ) -> *mut c_char;
    pub fn motrain_threads() -> i64;
    pub fn motrain_draw(
        out: *mut *mut C_tensor,
        logits: *const C_tensor,
        uniform: *const C_tensor,
        temperature: f64,
    ) -> *mut c_char;
    pub fn motrain_lay_out(out: *mut *mut C_tensor, weight: *const C_tensor, rows: i64) -> *mut c_char;
    pub fn motrain_product(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        laid_out: *const C_tensor,
        bias: *const C_tensor,
    ) -> *mut c_char;
    pub fn motrain_beside(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        inner: *const C_tensor,
        gains: *const C_tensor,
        columns: *const C_tensor,
    ) -> *mut c_char;

    fn free(memory: *mut c_void);
}

/// The tensor's handle, for a call that it outlives.
pub fn handle(x: &Tensor) -> *const C_tensor {
    x.as_ptr()
}

/// The same of a tensor that need not be there.
pub fn shared(x: Option<&Tensor>) -> *const C_tensor {
    x.map_or(std::ptr::null(), handle)
}

/// What a call said.
pub fn checked(said: *mut c_char) -> Result<(), TchError> {
    if said.is_null() {
        return Ok(());
    }
    // SAFETY: what a failed call returns is a string that ends in 0, and ours to free.
    let text = unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned();
    // SAFETY: it came from `malloc`, and is not used again.
    unsafe { free(said.cast()) };
    Err(TchError::Torch(text))
}

/// The one tensor that a call makes.
pub fn one(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, TchError> {
    several(call).map(|[tensor]| tensor)
}

/// The tensors that a call makes, in room for `N` handles.
pub fn several<const N: usize>(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<[Tensor; N], TchError> {
    let mut out = [std::ptr::null_mut(); N];
    checked(call(out.as_mut_ptr()))?;
    // SAFETY: the call succeeded, so that each is a new handle, which nothing else owns.
    Ok(out.map(|tensor| unsafe { Tensor::from_ptr(tensor) }))
}
