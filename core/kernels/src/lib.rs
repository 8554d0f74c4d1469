//! What libtorch does in many steps on a CPU, in one: norms, rotary positions, attention, gated MLPs, log-probs of targets, drawing of tokens, and
//! products with weights that oneDNN has laid out beforehand. Each has its gradient, where training needs one. They compute in f32
//! whatever the type, and round where the plain form in libtorch's operations rounds.
//!
//! [`fast`] says whether the CPU has what they need (AVX2 with FMA; AVX-512 is used where it is there, unless `ATEN_CPU_CAPABILITY=avx2`, as by libtorch);
//! [`serves`] whether they take a tensor.

mod ffi;

use ffi::{checked, handle, one, several, shared};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, TchError, Tensor};

type Result<T> = std::result::Result<T, TchError>;

static PLAIN: AtomicBool = AtomicBool::new(false);

/// Whether this CPU has what the kernels need.
pub fn fast() -> bool {
    // SAFETY: asks for features of the CPU, once.
    !PLAIN.load(Ordering::Relaxed) && unsafe { ffi::motrain_fast() }
}

/// On how many threads kernels compute: libtorch's, where its OpenMP library is known.
pub fn threads() -> i64 {
    // SAFETY: counts what runs, and touches nothing else.
    unsafe { ffi::motrain_threads() }
}

/// From now on, whether this process does without the kernels, as on a CPU that has not what they need: what they compute can be compared.
pub fn leave_out(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

/// Whether kernels take tensors there: on the CPU, in f32 or bf16.
pub fn serve(device: Device, kind: Kind) -> bool {
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::BFloat16) && fast()
}

/// Whether they take this one.
pub fn serves(x: &Tensor) -> bool {
    x.f_kind().is_ok_and(|kind| serve(x.device(), kind))
}

fn check(all: &[&Tensor]) -> Result<()> {
    match all.iter().find(|x| !serves(x)) {
        None => Ok(()),
        Some(x) => Err(TchError::Torch(format!("no kernel for a tensor on {:?} of {:?}", x.device(), x.f_kind()))),
    }
}

/// `weight · x / √(mean x² + eps)` over the last dimension, or `(1 + weight) · …`. The quotient is rounded to the type of `x` first, unless 1 is added.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, plus_one: bool) -> Result<Tensor> {
    check(&[x, weight])?;
    // SAFETY: handles are live for the call, which checks their shapes and types.
    one(|out| unsafe { ffi::motrain_rms(out, handle(x), handle(weight), eps, plus_one) })
}

/// `silu(a) ⊙ b` of `[…, 2 d]`, whose halves are a and b.
pub fn gated_silu(x: &Tensor) -> Result<Tensor> {
    check(&[x])?;
    // SAFETY: as in `rms_norm`.
    one(|out| unsafe { ffi::motrain_silu(out, handle(x)) })
}

/// Numbers of heads, and the size of each.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
}

/// Queries, keys and values, `[batch, heads, length, head_dim]`, of `[batch, length, (heads + 2 kv_heads) head_dim]`. With cos and sin of
/// angles, `[batch or 1, 1, length, dims]`, the first dimensions of queries and keys are rotated.
pub fn split_heads(x: &Tensor, angles: Option<(&Tensor, &Tensor)>, heads: Heads) -> Result<[Tensor; 3]> {
    check(&[x])?;
    let (cos, sin) = (shared(angles.map(|a| a.0)), shared(angles.map(|a| a.1)));
    let Heads { heads, kv_heads, head_dim } = heads;
    // SAFETY: as in `rms_norm`; there is room for three handles.
    several(|out| unsafe { ffi::motrain_split(out, handle(x), cos, sin, heads, kv_heads, head_dim) })
}

/// Causal attention, `[batch, queries, heads · head_dim]`: `q` is `[batch, heads, queries, head_dim]`, the last ones of all positions, `k` and `v`
/// are `[batch, kv_heads, keys, head_dim]`. `mask` is added to scores, `[batch or 1, 1, queries, keys]`; `cap` caps them by a tanh.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    scale: f64,
    cap: Option<f64>,
) -> Result<Tensor> {
    check(&[q, k, v])?;
    let cap = cap.unwrap_or(0.0);
    // SAFETY: as in `rms_norm`.
    one(|out| unsafe { ffi::motrain_attention(out, handle(q), handle(k), handle(v), shared(mask), scale, cap) })
}

/// The log-prob of each target under `softmax(logits / temperature)`, `[rows]` (f32), of `[rows, vocab]` and `[rows]` (i64).
pub fn chosen_log_probs(logits: &Tensor, targets: &Tensor, temperature: f64) -> Result<Tensor> {
    check(&[logits])?;
    // SAFETY: as in `rms_norm`.
    one(|out| unsafe { ffi::motrain_chosen(out, handle(logits), handle(targets), temperature) })
}

/// A token of each row of logits (`[rows, vocab]`, f32): where the cumulative probability under `softmax(logits / temperature)` passes `uniform`
/// (`[rows]`, f32) times the total; −1 where logits hold a NaN or +∞, or nothing but −∞. With each token's log-prob (`[rows]`, f32).
pub fn draw(logits: &Tensor, uniform: &Tensor, temperature: f64) -> Result<[Tensor; 2]> {
    check(&[logits, uniform])?;
    // SAFETY: as in `rms_norm`; there is room for two handles.
    several(|out| unsafe { ffi::motrain_draw(out, handle(logits), handle(uniform), temperature) })
}

/// `x` with `inner` behind it, `[batch, …, in + ranks]`: where there are gains, `[batch or 1, columns]` (f32), each rank by that of its column, `[ranks]`
/// (i64). It has no gradient.
pub fn beside(x: &Tensor, inner: &Tensor, gains: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
    check(&[x, inner])?;
    let (gains, columns) = (shared(gains.map(|g| g.0)), shared(gains.map(|g| g.1)));
    // SAFETY: as in `rms_norm`.
    one(|out| unsafe { ffi::motrain_beside(out, handle(x), handle(inner), gains, columns) })
}

/// A matrix (bf16) as oneDNN's kernels want it for products with about so many rows. It has no gradient, and does not follow the matrix.
pub struct LaidOut(Tensor);

impl LaidOut {
    /// Whether it may be laid out.
    pub fn takes(weight: &Tensor) -> bool {
        serves(weight) && weight.f_kind().is_ok_and(|kind| kind == Kind::BFloat16) && weight.size().len() == 2
    }

    /// Nothing where this libtorch has no such kernels for this CPU.
    pub fn of(weight: &Tensor, rows: i64) -> Result<Option<Self>> {
        if !Self::takes(weight) {
            return Ok(None);
        }
        let (weight, mut out) = (weight.f_detach()?.f_contiguous()?, std::ptr::null_mut());
        // SAFETY: as in `rms_norm`.
        checked(unsafe { ffi::motrain_lay_out(&mut out, handle(&weight), rows) })?;
        // SAFETY: a handle that the call made is new, and nothing else owns it.
        Ok((!out.is_null()).then(|| Self(unsafe { Tensor::from_ptr(out) })))
    }

    /// `x·Wᵀ + bias`.
    pub fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        check(&[x])?;
        // SAFETY: as in `rms_norm`.
        one(|out| unsafe { ffi::motrain_product(out, handle(x), handle(&self.0), shared(bias)) })
    }
}
