//! Models: one family a file, read top-down, names mirroring the checkpoint's.

mod adapter;
mod config;
mod llama;
mod load;
mod mix;
mod save;

pub use adapter::Adapter;
pub use config::{Config, Head};
pub use llama::{Cache, Llama, Mask, Net};
pub(crate) use load::read_file;
pub use mix::Mix;
pub use save::write_json;
pub(crate) use save::write_tensors;
