//! Reads a Hugging Face folder: one safetensors file, or several with an index.

use super::config::Config;
use super::llama::{Llama, slots};
use crate::{Error, Result};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

impl Llama {
    /// Loads `config.json` and the weights as f32 masters. Missing, unexpected and misshapen tensors are all listed.
    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        let config = Config::load(folder)?;
        let mut tensors = BTreeMap::new();
        for file in weight_files(folder)? {
            read_file(&file, &mut tensors)?;
        }
        Self::assemble(config, tensors, device).map_err(|what| Error::file(folder, what))
    }

    /// Stacks the checkpoint's tensors into the fused layout.
    pub fn assemble(
        config: Config,
        mut tensors: BTreeMap<String, Tensor>,
        device: Device,
    ) -> std::result::Result<Self, String> {
        let mut problems = Vec::new();
        let mut params = Vec::new();
        for slot in slots(&config) {
            let mut parts = Vec::new();
            for (name, rows) in &slot.parts {
                let mut shape = slot.shape.clone();
                shape[0] = *rows;
                match tensors.remove(name) {
                    None => problems.push(format!("missing    {name} {shape:?}")),
                    Some(t) if t.size() != shape => {
                        problems.push(format!("misshapen  {name} {:?}, expected {shape:?}", t.size()));
                    }
                    Some(t) => parts.push(t),
                }
            }
            if parts.len() == slot.parts.len() {
                let stacked = if parts.len() == 1 { Ok(parts.remove(0)) } else { Tensor::f_cat(&parts, 0) };
                let stacked = stacked.and_then(|t| t.f_to_device(device)).map_err(|e| e.to_string())?;
                params.push((slot.name, stacked));
            }
        }
        // Tied checkpoints often carry a copy of the embedding; buffers of old versions are harmless too.
        let ignored = |name: &str| name == "lm_head.weight" || name.ends_with("rotary_emb.inv_freq");
        problems.extend(tensors.keys().filter(|n| !ignored(n)).map(|n| format!("unexpected {n}")));
        if problems.is_empty() {
            return Ok(Self { config, params });
        }
        let total = problems.len();
        problems.truncate(20);
        Err(format!("{total} tensors do not fit config.json:\n  {}", problems.join("\n  ")))
    }
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        return Err(Error::file(folder, "has neither model.safetensors nor model.safetensors.index.json"));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::file(&index, e.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| Error::file(&index, "has no weight_map"))?;
    let shards: BTreeSet<&str> = map.values().filter_map(|v| v.as_str()).collect();
    Ok(shards.into_iter().map(|shard| folder.join(shard)).collect())
}

/// Reads all tensors of a safetensors file as f32.
pub(crate) fn read_file(path: &Path, into: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read, and copied into tensors before this function returns.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let damaged = |e: safetensors::SafeTensorError| {
        Error::file(path, format!("is damaged or truncated ({e}); fetch or save it again"))
    };
    let tensors = SafeTensors::deserialize(&map).map_err(damaged)?;
    for (name, view) in tensors.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
            Dtype::I64 => Kind::Int64,
            other => {
                return Err(Error::file(
                    path,
                    format!("tensor {name} has type {other:?}; F32, BF16 and F16 are known"),
                ));
            }
        };
        let shape: Vec<i64> = view.shape().iter().map(|&s| s as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
        let tensor = if kind == Kind::Int64 { tensor } else { tensor.f_to_kind(Kind::Float)? };
        into.insert(name.to_owned(), tensor);
    }
    Ok(())
}
