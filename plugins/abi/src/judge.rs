//! Judges, since 1.3.

use crate::{ErrorText, Message, Status, Str};
use core::ffi::c_void;

/// Two answers to a plain prompt (never the conditioned one).
#[repr(C)]
pub struct Duel {
    /// Bytes of this struct, as motrain knows it.
    pub struct_size: usize,
    /// `prompt_count` turns.
    pub prompt: *const Message,
    /// How many turns there are.
    pub prompt_count: usize,
    /// The answer that is shown first.
    pub first: Str,
    /// The answer that is shown second.
    pub second: Str,
}

/// What a judge says of a duel: one of `VERDICT_…`.
pub type Verdict = i32;
/// Neither answer is better.
pub const VERDICT_TIE: Verdict = 0;
/// The first is better.
pub const VERDICT_FIRST: Verdict = 1;
/// The second is better.
pub const VERDICT_SECOND: Verdict = 2;
/// The judge cannot say: the duel is left out and counted.
pub const VERDICT_SKIPPED: Verdict = 3;

/// Compares the answers of `count` duels. `written` must become `count`. Every duel is asked in both orders, in calls of their own, and a
/// judge that names a place rather than an answer yields ties.
pub type JudgeDuels = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        duels: *const *const Duel,
        count: usize,
        verdicts: *mut Verdict,
        written: *mut usize,
        error: *mut ErrorText,
    ) -> Status,
>;

/// What a judge does.
#[repr(C)]
pub struct JudgeFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Compares answers.
    pub judge: JudgeDuels,
}
