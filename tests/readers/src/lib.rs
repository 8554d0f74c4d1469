//! Everything that reads files from elsewhere, as functions of any bytes. They may find the bytes wrong; what they must not do is panic,
//! abort, hang, or take memory that the bytes do not back. `cargo xtask fuzz` looks for bytes that make them, and tests/corpus.rs replays what
//! it has found so far.

pub mod bundle;
mod data;
mod folder;
mod model;
mod text;

pub use data::{plan, rows, toml};
pub use model::{checkpoint, config, gguf, safetensors};
pub use text::tokenizer;

pub type Reader = fn(&[u8]);

/// All of them, by the names of their targets and corpora.
pub const READERS: [(&str, Reader); 8] = [
    ("checkpoint", checkpoint),
    ("config", config),
    ("gguf", gguf),
    ("plan", plan),
    ("rows", rows),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
    ("toml", toml),
];
