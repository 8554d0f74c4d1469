//! A folder's tensors as f32, by name, and which of them a model took: what it asks for and does not find, and what it leaves, is named.

use crate::fields::Said;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors by their names in the file.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    names: fn(&str) -> String,
    prefix: Option<&'static str>,
    /// A tensor that may be missing.
    absent: Option<String>,
    taken: Mutex<BTreeSet<String>>,
    /// The first thing that was wrong with what a model asked for: candle tries other names instead of telling it.
    fault: Mutex<Option<String>>,
}

impl Weights {
    pub fn read(folder: &Path) -> Said<Self> {
        let mut tensors = BTreeMap::new();
        for name in files(folder)? {
            let path = folder.join(&name);
            read_file(&path, &mut tensors).map_err(|what| format!("{}: {what}", path.display()))?;
        }
        Ok(Self {
            tensors,
            names: str::to_owned,
            prefix: None,
            absent: None,
            taken: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    /// Translates the names that candle asks for into those of the file.
    pub fn named(mut self, names: fn(&str) -> String) -> Self {
        self.names = names;
        self
    }

    /// Of a model that was saved without what stands on its encoder, names do not begin with the encoder's.
    pub fn below(mut self, prefix: &'static str) -> Self {
        self.prefix = Some(prefix).filter(|p| !self.tensors.keys().any(|name| name.starts_with(p)));
        self
    }

    fn file_name(&self, asked: &str) -> String {
        let name = (self.names)(asked);
        self.prefix.and_then(|p| name.strip_prefix(p)).map(str::to_owned).unwrap_or(name)
    }

    /// Leaves out a tensor that the model does not have, though candle asks for it.
    pub fn without(mut self, name: &str) -> Said<Self> {
        let name = self.file_name(name);
        self.absent = Some(name.clone());
        if self.tensors.contains_key(&name) {
            Err(format!("holds the tensor {name}, which the model does not have"))
        } else {
            Ok(self)
        }
    }

    /// A tensor that the model does without, under the name that candle asks for it by.
    pub fn add(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(self.file_name(name), tensor);
    }

    /// Where candle's models take their tensors from.
    pub fn builder(&self) -> VarBuilder<'_> {
        VarBuilder::from_backend(Box::new(Lent(self)), DType::F32, Device::Cpu)
    }

    /// Refuses what was missing or misshapen, and tensors that nothing took, but for those that `spare` names the beginnings of.
    pub fn end(self, spare: &[&str]) -> Said<()> {
        if let Some(fault) = self.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault);
        }
        let taken = self.taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        let left = |name: &&String| {
            !taken.contains(*name) && !name.ends_with("position_ids") && !spare.iter().any(|s| name.starts_with(s))
        };
        match self.tensors.keys().find(left) {
            None => Ok(()),
            Some(name) => {
                Err(format!("holds the tensor {name}, which config.json says nothing of; is it the model's own file?"))
            }
        }
    }

    fn failed<T>(&self, what: String) -> Result<T> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| what.clone());
        bail!("{what}")
    }
}

/// The weights as candle asks for them.
struct Lent<'a>(&'a Weights);

impl SimpleBackend for Lent<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        let name = self.0.file_name(name);
        if *tensor.shape() != shape {
            let (found, wanted) = (tensor.dims(), shape.dims());
            return self
                .0
                .failed(format!("the tensor {name} has the shape {found:?}, and config.json asks for {wanted:?}"));
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let name = self.0.file_name(name);
        let Some(tensor) = self.0.tensors.get(&name) else {
            let what = format!("has no tensor {name}, which config.json asks for");
            return if self.0.absent.as_ref() == Some(&name) {
                Err(candle_core::Error::Msg(what))
            } else {
                self.0.failed(what)
            };
        };
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Ok(tensor.clone())
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.tensors.contains_key(&self.0.file_name(name))
    }
}

/// The names of a folder's weight files.
fn files(folder: &Path) -> Said<Vec<String>> {
    let has = |name: &str| folder.join(name).is_file();
    if has(FILE) {
        return Ok(vec![FILE.into()]);
    }
    if !has(INDEX) {
        let mend =
            "save it again with transformers: AutoModelForSequenceClassification.from_pretrained(…).save_pretrained(…)";
        let has = if has("pytorch_model.bin") { "its weights as pytorch_model.bin, not" } else { "no" };
        return Err(format!("{}: has {has} {FILE}; {mend}", folder.display()));
    }
    let read = || {
        let text = std::fs::read_to_string(folder.join(INDEX)).map_err(|e| e.to_string())?;
        let json: Value = serde_json::from_str(&text).map_err(|e| format!("is not JSON: {e}"))?;
        let map = json.get("weight_map").and_then(Value::as_object).ok_or("has no weight_map")?;
        let names = map.values().map(|file| match file.as_str() {
            // A folder of models says nothing about files elsewhere.
            Some(file) if Path::new(file).file_name() == Some(file.as_ref()) => Ok(file.to_owned()),
            _ => Err(format!("names {file}, which is no name of a file beside it")),
        });
        Ok(names.collect::<Said<BTreeSet<_>>>()?.into_iter().collect())
    };
    read().map_err(|what: String| format!("{}: {what}", folder.join(INDEX).display()))
}

fn read_file(path: &Path, into: &mut BTreeMap<String, Tensor>) -> Said<()> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    // SAFETY: the map is only read, and copied into tensors before this function returns.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())?;
    let damaged = |e| format!("is damaged or truncated ({e}); fetch or save it again");
    for (name, view) in SafeTensors::deserialize(&map).map_err(damaged)?.iter() {
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            // Counters that older files keep.
            _ if name.ends_with("position_ids") => continue,
            other => {
                return Err(format!(
                    "the tensor {name} is of type {other:?}; weights are F32, BF16, F16 or F64 (not quantised)"
                ));
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu);
        let tensor = tensor.and_then(|t| t.to_dtype(DType::F32)).map_err(|e| format!("the tensor {name}: {e}"))?;
        let numbers =
            tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| format!("the tensor {name}: {e}"))?;
        if let Some(at) = numbers.iter().position(|n| !n.is_finite()) {
            let number = numbers[at];
            return Err(format!(
                "the tensor {name} holds {number} (number {}); the file is damaged or its training diverged: use an earlier one",
                at + 1
            ));
        }
        into.insert(name.to_owned(), tensor);
    }
    Ok(())
}
