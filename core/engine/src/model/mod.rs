//! Models: one family a file, read top-down, names mirroring the checkpoint's.

mod adapter;
mod config;
mod config_json;
mod llama;
mod load;
mod mix;
mod peft;
mod save;
mod weights;

pub use adapter::Adapter;
pub use config::{Config, Head};
pub use llama::{Cache, Llama, Mask, Net};
pub use mix::Mix;
pub use peft::LoraConfig;
pub use save::write_json;
pub(crate) use save::write_tensors;
pub use weights::check_safetensors;
pub(crate) use weights::read_file;
