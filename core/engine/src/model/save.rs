//! Writes Hugging Face folders that `transformers` loads unchanged.

use super::Model;
use super::head::{self, Head};
use super::slots::slots;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use tch::{Kind, Tensor};

impl Model {
    /// Writes config.json, model.safetensors (f32) and the tokenizer's files into `folder`; of a model whose adapter was trained a PEFT
    /// folder, if it is not to be merged.
    pub fn save(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        match &self.lora {
            Some(lora) if lora.merges() => lora.merged(self)?.save_weights(folder)?,
            Some(lora) => {
                lora.save(folder)?;
                if self.config.head == Head::Score {
                    self.config.labelled().save(folder)?;
                }
            }
            None => self.save_weights(folder)?,
        }
        tokenizer.save(folder)
    }

    /// What training goes on from.
    pub fn save_training(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
        match &self.lora {
            Some(lora) => {
                std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
                lora.save_training(folder)
            }
            None => self.save(folder, tokenizer),
        }
    }

    /// config.json and model.safetensors alone.
    pub fn save_weights(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        write_json(&folder.join("config.json"), &self.config.to_json())?;
        let mut tensors = head::beside(&self.config)?;
        for (slot, (_, param)) in slots(&self.config).iter().zip(&self.params) {
            let mut start = 0;
            for part in &slot.parts {
                tensors.push((part.name.clone(), part.order.write(&param.f_narrow(0, start, part.rows)?)?));
                start += part.rows;
            }
        }
        write_tensors(&folder.join("model.safetensors"), &tensors)
    }
}

/// For a file of a folder that is put in its place, synced, as a whole; `RunFolder::write_json` is for others.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e.to_string()))?;
    std::fs::write(path, text + "\n").map_err(|e| Error::io(path, e))
}

/// A tensor as bytes, copied out only while it is written.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    tensor: Tensor,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let length = self.data_len();
        // SAFETY: `Bytes::of` made the tensor contiguous and on the CPU; it lives as long as the borrow.
        Cow::Borrowed(unsafe { std::slice::from_raw_parts(self.tensor.data_ptr() as *const u8, length) })
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * if self.dtype == Dtype::I64 { 8 } else { 4 }
    }
}

impl Bytes {
    fn of(tensor: &Tensor) -> Result<Self> {
        let (dtype, kind) = match tensor.f_kind()? {
            Kind::Int64 => (Dtype::I64, Kind::Int64),
            _ => (Dtype::F32, Kind::Float),
        };
        let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|&s| s as usize).collect(), tensor })
    }
}

/// Writes a safetensors file and waits until it is on the disk.
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let views: Vec<(String, Bytes)> =
        tensors.iter().map(|(name, t)| Ok((name.clone(), Bytes::of(t)?))).collect::<Result<_>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // safetensors puts a file of its own in the place, for the owner's eyes only; a model is for whom other new files are for.
    let new = File::options().append(true).create(true).open(path);
    let usual = new.and_then(|f| f.metadata()).map_err(|e| Error::io(path, e))?.permissions();
    serialize_to_file(views, Some(metadata), path)
        .map_err(|e| Error::file(path, format!("cannot be written ({e}); is the disk full?")))?;
    std::fs::set_permissions(path, usual).map_err(|e| Error::io(path, e))?;
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_as_readable_as_any_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let permissions = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let ones = Tensor::ones([2], (Kind::Float, tch::Device::Cpu));
        write_tensors(&folder.path().join("model.safetensors"), &[("a".into(), ones)]).unwrap();
        assert_eq!(permissions("model.safetensors"), permissions("config.json"));
    }
}
