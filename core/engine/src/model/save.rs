//! Writes Hugging Face folders that `transformers` loads unchanged.

use super::Model;
use super::head::{self, Head};
use super::slots::slots;
use super::weights::{FILE, INDEX, SHARD};
use crate::files::{Beside, write_json};
use crate::{Error, Result, names};
use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::{Map, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use tch::{Kind, Tensor};

/// A tensor and its name.
type Named = (String, Tensor);

impl Model {
    /// Writes config.json, the weights in the type that config.json names, and the tokenizer's files into `folder`; of a model whose adapter
    /// was trained a PEFT folder, if it is not to be merged; where gains steer it, one for each objective.
    pub fn save(&self, folder: &Path, tokenizer: &dyn Beside) -> Result<()> {
        create(folder)?;
        match &self.lora {
            Some(lora) if lora.blocks() > 0 => {
                (0..lora.blocks()).try_for_each(|k| lora.save_part(&folder.join(names::part(k)), k))?;
            }
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

    /// What training goes on from: all bits of what it moves.
    pub fn save_training(&self, folder: &Path, tokenizer: &dyn Beside) -> Result<()> {
        create(folder)?;
        match &self.lora {
            Some(lora) => lora.save_training(folder),
            None => {
                self.write(folder, Kind::Float, SHARD)?;
                tokenizer.save(folder)
            }
        }
    }

    /// config.json and the weights alone.
    pub fn save_weights(&self, folder: &Path) -> Result<()> {
        create(folder)?;
        self.write(folder, self.writable()?, SHARD)
    }

    /// The type of the source, or f32 where that cannot hold what training made of it.
    fn writable(&self) -> Result<Kind> {
        let stored = self.config.stored();
        for (name, p) in &self.params {
            if stored == Kind::Half && p.f_detach()?.f_abs()?.f_max()?.f_double_value(&[])? > LARGEST_HALF {
                tracing::warn!("{name} has grown beyond the numbers of float16: the weights are saved as float32");
                return Ok(Kind::Float);
            }
        }
        Ok(stored)
    }

    fn write(&self, folder: &Path, dtype: Kind, shard_bytes: usize) -> Result<()> {
        write_json(&folder.join("config.json"), &self.config.stored_as(dtype).to_json())?;
        let mut tensors = head::beside(&self.config)?;
        for (slot, (_, param)) in slots(&self.config).iter().zip(&self.params) {
            let mut start = 0;
            for part in &slot.parts {
                tensors.push((part.name.clone(), part.order.write(&param.f_narrow(0, start, part.rows)?)?));
                start += part.rows;
            }
        }
        let shards = shards(tensors, dtype, shard_bytes)?;
        if let [only] = shards.as_slice() {
            return write_tensors(&folder.join(FILE), only, dtype);
        }
        let (mut map, mut bytes) = (Map::new(), 0);
        for (i, shard) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            write_tensors(&folder.join(&file), shard, dtype)?;
            map.extend(shard.iter().map(|(name, _)| (name.clone(), json!(file))));
            bytes += shard.iter().map(|(_, t)| bytes_of(t, dtype)).sum::<Result<usize>>()?;
        }
        write_json(&folder.join(INDEX), &json!({ "metadata": { "total_size": bytes }, "weight_map": map }))
    }
}

/// The largest finite number of float16.
const LARGEST_HALF: f64 = 65504.0;

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))
}

/// In order, as many tensors a file as fit.
fn shards(tensors: Vec<Named>, dtype: Kind, shard_bytes: usize) -> Result<Vec<Vec<Named>>> {
    let (mut all, mut shard, mut filled) = (vec![], vec![], 0);
    for named in tensors {
        let bytes = bytes_of(&named.1, dtype)?;
        if filled > 0 && filled + bytes > shard_bytes {
            all.push(std::mem::take(&mut shard));
            filled = 0;
        }
        filled += bytes;
        shard.push(named);
    }
    all.push(shard);
    Ok(all)
}

/// The type that a tensor is written in: whole numbers stay what they are.
fn written_as(tensor: &Tensor, dtype: Kind) -> Result<Kind> {
    Ok(if tensor.f_kind()? == Kind::Int64 { Kind::Int64 } else { dtype })
}

fn bytes_of(tensor: &Tensor, dtype: Kind) -> Result<usize> {
    Ok(tensor.numel() * written_as(tensor, dtype)?.elt_size_in_bytes())
}

/// A tensor as a file holds it.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    length: usize,
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
        // SAFETY: `Bytes::of` made the tensor contiguous and on the CPU; it lives as long as the borrow.
        Cow::Borrowed(unsafe { std::slice::from_raw_parts(self.tensor.data_ptr() as *const u8, self.length) })
    }

    fn data_len(&self) -> usize {
        self.length
    }
}

impl Bytes {
    fn of(tensor: &Tensor, dtype: Kind) -> Result<Self> {
        let kind = written_as(tensor, dtype)?;
        let dtype = match kind {
            Kind::Int64 => Dtype::I64,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Half => Dtype::F16,
            _ => Dtype::F32,
        };
        let length = bytes_of(tensor, kind)?;
        let tensor = tensor.f_detach()?.f_to_kind(kind)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|&s| s as usize).collect(), length, tensor })
    }
}

/// Writes a safetensors file of f32, bf16 or f16 and waits until it is on the disk.
pub(crate) fn write_tensors(path: &Path, tensors: &[Named], dtype: Kind) -> Result<()> {
    let views: Vec<(String, Bytes)> =
        tensors.iter().map(|(name, t)| Ok((name.clone(), Bytes::of(t, dtype)?))).collect::<Result<_>>()?;
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
    use super::super::mix::tests::base;
    use super::*;

    #[test]
    fn a_model_is_as_readable_as_any_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let permissions = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let ones = Tensor::ones([2], (Kind::Float, tch::Device::Cpu));
        write_tensors(&folder.path().join("model.safetensors"), &[("a".into(), ones)], Kind::Float).unwrap();
        assert_eq!(permissions("model.safetensors"), permissions("config.json"));
    }

    /// The small model of a source that says it is of this type, as it is after it was saved in files of at most `shard_bytes`.
    fn saved(dtype: &str, change: f64, shard_bytes: usize) -> (Model, Model, Vec<String>) {
        let mut model = base();
        model.config.said.insert("dtype".into(), json!(dtype));
        let _ = model.params[0].1.narrow(0, 0, 1).fill_(change);
        let folder = tempfile::tempdir().unwrap();
        model.write(folder.path(), model.writable().unwrap(), shard_bytes).unwrap();
        let again = Model::load(folder.path(), tch::Device::Cpu).unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        (model, again, names)
    }

    #[test]
    fn weights_are_written_in_the_type_of_their_source() {
        for (dtype, kind) in [("float32", Kind::Float), ("bfloat16", Kind::BFloat16), ("float16", Kind::Half)] {
            let (model, again, files) = saved(dtype, 0.1, SHARD);
            assert_eq!((again.config.stored(), files), (kind, vec!["config.json".to_owned(), FILE.into()]), "{dtype}");
            let rounded = |p: &Tensor| p.to_kind(kind).to_kind(Kind::Float);
            assert!(model.params.iter().zip(&again.params).all(|((_, a), (_, b))| rounded(a) == *b), "{dtype}");
        }
        // Beyond float16.
        let (model, again, _) = saved("float16", -1e5, SHARD);
        assert_eq!(again.config.stored(), Kind::Float);
        assert!(model.params.iter().zip(&again.params).all(|(a, b)| a == b));
    }

    #[test]
    fn what_is_too_large_for_a_file_is_written_as_several() {
        let (model, again, files) = saved("bfloat16", 0.5, 600);
        let shards: Vec<&String> = files.iter().filter(|f| f.ends_with(".safetensors")).collect();
        assert!(
            shards.len() > 2 && files.contains(&INDEX.to_owned()) && !files.contains(&FILE.to_owned()),
            "{files:?}"
        );
        assert_eq!(shards[0], &format!("model-00001-of-{:05}.safetensors", shards.len()));
        let rounded = |p: &Tensor| p.to_kind(Kind::BFloat16).to_kind(Kind::Float);
        assert!(model.params.iter().zip(&again.params).all(|((_, a), (_, b))| rounded(a) == *b));
    }
}
