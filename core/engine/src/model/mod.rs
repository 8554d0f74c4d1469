//! Models: one family a file, read top-down, names mirroring the checkpoint's.

mod config;
mod llama;
mod load;
mod save;

pub use config::{Config, Head};
pub use llama::{Cache, Llama, Mask, Net};
pub(crate) use load::read_file;
pub use save::write_json;
pub(crate) use save::write_tensors;
