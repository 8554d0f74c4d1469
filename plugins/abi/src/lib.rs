//! The C interface between motrain and its plugins.
//!
//! Rules that every declaration here keeps:
//! - A plugin exports one symbol, `motrain_plugin_v1`, whose name carries the major version.
//! - `Str` and `Message` never change. Every other struct begins with `struct_size`, fields are only appended, and a
//!   field is read only if it lies inside `struct_size`; arrays of such structs are arrays of pointers.
//! - Strings are UTF-8, borrowed for the call, and not terminated. Arrays are allocated by the caller. Each side frees its own.
//! - A function pointer may be null where the comment says so.
//! - Errors are a status and text in the caller's buffer. Nothing may unwind across the interface.
//! - An instance may move between threads but is called by one at a time, unless its component is `THREAD_SAFE`.
#![no_std]
#![warn(missing_docs)]

mod judge;

use core::ffi::c_void;
pub use judge::{Duel, JudgeDuels, JudgeFns, VERDICT_FIRST, VERDICT_SECOND, VERDICT_SKIPPED, VERDICT_TIE, Verdict};

/// The version that breaks: a plugin of another one is refused.
pub const VERSION_MAJOR: u32 = 1;
/// Raised when fields or kinds are added.
pub const VERSION_MINOR: u32 = 3;
/// The entry symbol; `Entry` is its type.
pub const ENTRY: &core::ffi::CStr = c"motrain_plugin_v1";

/// UTF-8 text, borrowed for the call. `data` may be null if `length` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Str {
    /// The first byte.
    pub data: *const u8,
    /// In bytes.
    pub length: usize,
}

/// One turn of a conversation; `role` is "system", "user" or "assistant".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: Str,
    /// What was said.
    pub content: Str,
}

/// How a call ended: one of `STATUS_…`.
pub type Status = i32;
/// The call did what it was asked.
pub const STATUS_OK: Status = 0;
/// The call failed; the error text says why.
pub const STATUS_ERROR: Status = 1;
/// There is no result, which is no error: a tie, or a prompt without weights.
pub const STATUS_NONE: Status = 2;

/// Where the plugin writes why a call failed. The caller owns `data`.
#[repr(C)]
pub struct ErrorText {
    /// Bytes of this struct, as the caller knows it.
    pub struct_size: usize,
    /// The caller's buffer, `capacity` bytes of UTF-8.
    pub data: *mut u8,
    /// Bytes that fit; longer text is cut.
    pub capacity: usize,
    /// Bytes written.
    pub length: usize,
}

/// Draws weights: `SamplerFns`.
pub const KIND_SAMPLER: u32 = 1;
/// Writes weights into prompts: `ConditionerFns`.
pub const KIND_CONDITIONER: u32 = 2;
/// Scores completions: `RewardFns`.
pub const KIND_REWARD: u32 = 3;
/// Says which of two completions is better: `LabelFns`.
pub const KIND_LABEL: u32 = 4;
/// A loss of pairs of completions: `LossFns`.
pub const KIND_LOSS: u32 = 5;
/// Says which of two answers is better: `JudgeFns`. Since 1.3.
pub const KIND_JUDGE: u32 = 6;

/// An instance may be called from several threads at once.
pub const FLAG_THREAD_SAFE: u32 = 1;
/// A reward reads the data row (`Sample::row`), which is left empty otherwise.
pub const FLAG_NEEDS_ROW: u32 = 2;
/// A loss reads the completions' log-probs under other weights (`Pairs::other_policy_first`), which take another pass; since 1.2.
pub const FLAG_NEEDS_OTHER: u32 = 4;

/// What a library offers.
#[repr(C)]
pub struct Plugin {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// The versions of this interface that the plugin was built against.
    pub version_major: u32,
    /// As `version_major`; what a later minor version adds is not asked for.
    pub version_minor: u32,
    /// The plugin's name, for messages.
    pub name: Str,
    /// The plugin's own version.
    pub version: Str,
    /// `component_count` pointers.
    pub components: *const *const Component,
    /// How many components there are.
    pub component_count: usize,
}

/// The type of the entry symbol. The description must outlive the process.
pub type Entry = unsafe extern "C" fn() -> *const Plugin;

/// Makes an instance. `config` is a JSON object that fits the component's schema; `seed` is the run's.
pub type Create =
    Option<unsafe extern "C" fn(config: Str, seed: u64, instance: *mut *mut c_void, error: *mut ErrorText) -> Status>;
/// Frees an instance that `Create` made; it is not called again.
pub type Destroy = Option<unsafe extern "C" fn(instance: *mut c_void, error: *mut ErrorText) -> Status>;

/// A component of one of the six kinds.
#[repr(C)]
pub struct Component {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// `KIND_…`
    pub kind: u32,
    /// `FLAG_…`, added up.
    pub flags: u32,
    /// By convention `vendor.name`.
    pub name: Str,
    /// One line for `motrain list`.
    pub summary: Str,
    /// JSON Schema of the options: an object with `properties`.
    pub schema: Str,
    /// Makes an instance.
    pub create: Create,
    /// Frees an instance; may be null if there is nothing to free.
    pub destroy: Destroy,
    /// `SamplerFns`, `ConditionerFns`, `RewardFns`, `LabelFns`, `LossFns` or `JudgeFns`, by `kind`.
    pub functions: *const c_void,
}

/// Draws `objectives` weights (at least 0, adding up to 1) for the `index`-th prompt of the run; the same `index` and
/// `seed` must give the same weights.
pub type SampleWeights = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        objectives: usize,
        index: u64,
        seed: u64,
        weights: *mut f64,
        error: *mut ErrorText,
    ) -> Status,
>;

/// Tells a sampler the front so far: `points` rows of `objectives` weights and of mean rewards.
pub type Feedback = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        objectives: usize,
        points: usize,
        weights: *const f64,
        rewards: *const f64,
        error: *mut ErrorText,
    ) -> Status,
>;

/// What a weight sampler does.
#[repr(C)]
pub struct SamplerFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Draws the weights of a prompt.
    pub sample: SampleWeights,
    /// May be null: then the front is not told.
    pub feedback: Feedback,
}

/// A prompt and the objectives that it is conditioned on.
#[repr(C)]
pub struct Conditioning {
    /// Bytes of this struct, as motrain knows it.
    pub struct_size: usize,
    /// `message_count` turns.
    pub messages: *const Message,
    /// How many turns there are.
    pub message_count: usize,
    /// The names of the objectives, `objective_count` of them.
    pub objectives: *const Str,
    /// How many objectives there are.
    pub objective_count: usize,
}

/// Takes the turns of a prompt one by one.
#[repr(C)]
pub struct MessageSink {
    /// Bytes of this struct, as motrain knows it.
    pub struct_size: usize,
    /// Handed back to `push`.
    pub context: *mut c_void,
    /// Takes one turn; text is copied before it returns.
    pub push: Option<unsafe extern "C" fn(context: *mut c_void, role: Str, content: Str)>,
}

/// Writes weights into a prompt, turn by turn, into `out`.
pub type Render = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        prompt: *const Conditioning,
        weights: *const f64,
        out: *const MessageSink,
        error: *mut ErrorText,
    ) -> Status,
>;

/// The inverse: the weights and the plain prompt, or `STATUS_NONE`.
pub type Parse = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        conditioned: *const Conditioning,
        weights: *mut f64,
        out: *const MessageSink,
        error: *mut ErrorText,
    ) -> Status,
>;

/// What a conditioner does.
#[repr(C)]
pub struct ConditionerFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Writes weights into a prompt.
    pub render: Render,
    /// May be null: then prompts cannot be read back.
    pub parse: Parse,
}

/// A completion of a plain prompt (never the conditioned one).
#[repr(C)]
pub struct Sample {
    /// Bytes of this struct, as motrain knows it.
    pub struct_size: usize,
    /// `prompt_count` turns.
    pub prompt: *const Message,
    /// How many turns there are.
    pub prompt_count: usize,
    /// The policy's answer.
    pub completion: Str,
    /// The prompt's row of the data file as JSON, if the component has `FLAG_NEEDS_ROW`.
    pub row: Str,
    /// 1 if the policy ended the completion, 0 if it was cut at the length limit. Since 1.1.
    pub finished: u32,
}

/// Scores `count` samples; higher is better. `written` must become `count`.
pub type Score = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        samples: *const *const Sample,
        count: usize,
        scores: *mut f64,
        written: *mut usize,
        error: *mut ErrorText,
    ) -> Status,
>;

/// As `Score`, of those samples that the reward can score. `skipped` holds `count` zeros: 1 leaves a sample out, whose score is not read.
/// `written` must become `count` all the same.
pub type ScoreSome = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        samples: *const *const Sample,
        count: usize,
        scores: *mut f64,
        skipped: *mut u8,
        written: *mut usize,
        error: *mut ErrorText,
    ) -> Status,
>;

/// What a reward does.
#[repr(C)]
pub struct RewardFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Scores completions. A motrain before 1.3 calls no other.
    pub score: Score,
    /// May be null: then every sample has a score. It is called instead of `score` otherwise. Since 1.3.
    pub score_some: ScoreSome,
}

/// The probability that the first of two completions is better, from `objectives` scaled scores each; `STATUS_NONE` is a tie.
pub type LabelPair = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        objectives: usize,
        weights: *const f64,
        first: *const f64,
        second: *const f64,
        label: *mut f64,
        error: *mut ErrorText,
    ) -> Status,
>;

/// What a label rule does.
#[repr(C)]
pub struct LabelFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Labels a pair.
    pub label: LabelPair,
}

/// Pairs of completions; every array has `count` numbers, `weights` and `margins` have `count × objectives`.
#[repr(C)]
pub struct Pairs {
    /// Bytes of this struct, as motrain knows it.
    pub struct_size: usize,
    /// How many pairs there are.
    pub count: usize,
    /// How many objectives there are.
    pub objectives: usize,
    /// Log-prob sums in nats.
    pub policy_first: *const f64,
    /// As `policy_first`.
    pub policy_second: *const f64,
    /// As `policy_first`, under the reference.
    pub reference_first: *const f64,
    /// As `policy_first`, under the reference.
    pub reference_second: *const f64,
    /// Tokens of the completions, the end of sequence included.
    pub tokens_first: *const u32,
    /// As `tokens_first`.
    pub tokens_second: *const u32,
    /// The probability that the first completion is better.
    pub label: *const f64,
    /// The weights that a pair was made under.
    pub weights: *const f64,
    /// Scaled score differences, first minus second.
    pub margins: *const f64,
    /// The completions' log-prob sums under the weights of another pair, since 1.2. This field and those below are null where the component
    /// has not `FLAG_NEEDS_OTHER`, and where all pairs of the batch have the same weights.
    pub other_policy_first: *const f64,
    /// As `other_policy_first`.
    pub other_policy_second: *const f64,
    /// As `other_policy_first`, under the reference.
    pub other_reference_first: *const f64,
    /// As `other_policy_first`, under the reference.
    pub other_reference_second: *const f64,
    /// Room for the derivatives of the loss in `other_policy_first`.
    pub d_other_first: *mut f64,
    /// Room for the derivatives of the loss in `other_policy_second`.
    pub d_other_second: *mut f64,
}

/// The loss of each pair and its derivatives in `policy_first` and `policy_second`, `count` numbers each.
pub type EvaluateLoss = Option<
    unsafe extern "C" fn(
        instance: *mut c_void,
        pairs: *const Pairs,
        loss: *mut f64,
        d_first: *mut f64,
        d_second: *mut f64,
        error: *mut ErrorText,
    ) -> Status,
>;

/// β: what log-ratios are multiplied by to give implicit rewards.
pub type Beta = Option<unsafe extern "C" fn(instance: *mut c_void) -> f64>;

/// What a pairwise loss does.
#[repr(C)]
pub struct LossFns {
    /// Bytes of this struct, as the plugin knows it.
    pub struct_size: usize,
    /// Evaluates the loss of pairs.
    pub evaluate: EvaluateLoss,
    /// May be null: then implicit rewards are reported with β = 1.
    pub beta: Beta,
}

#[cfg(test)]
mod tests;
