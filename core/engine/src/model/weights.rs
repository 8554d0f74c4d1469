//! Reads safetensors: one file, or several with an index. Tensors are copied out in the type that is asked for; numbers that are not finite are refused.

use super::config::Config;
use super::head::COUNT;
use super::sizes::Trained;
use crate::finite::not_finite;
use crate::{Error, Result};
use memmap2::Mmap;
use motrain_core::stop;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

pub type Tensors = BTreeMap<String, Tensor>;

pub(super) const FILE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Picks tensors by their names: those that are left out.
pub type Skip<'a> = &'a dyn Fn(&str) -> bool;

/// All weights of a Hugging Face folder, each in the type that is wanted of it.
pub fn read_folder(folder: &Path, dtype: &dyn Fn(&str) -> Kind, skip: Skip) -> Result<Tensors> {
    let how = How { dtype, counters: &is_count, skip };
    let mut tensors = Tensors::new();
    let index = folder.join(INDEX);
    // As transformers: with both, the single file counts.
    if folder.join(FILE).is_file() {
        read(&folder.join(FILE), &how, &mut tensors)?;
        return Ok(tensors);
    }
    if !index.is_file() {
        return Err(Error::file(folder, no_weights(folder)));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
    let map = weight_map(&text).map_err(|what| Error::file(&index, what))?;
    for shard in map.values().collect::<BTreeSet<_>>() {
        read_shard(folder, shard, &map, &how, &mut tensors)?;
    }
    let lost: Vec<&String> = map.keys().filter(|name| !tensors.contains_key(*name) && !skip(name)).collect();
    if let Some(first) = lost.first() {
        let count = lost.len();
        let what =
            format!("names {count} tensors that its files do not hold, such as {first}; fetch or save the model again");
        return Err(Error::file(&index, what));
    }
    Ok(tensors)
}

/// Whether the files of a folder's weights are all there and whole, by their lengths and the tensors that they say they hold.
pub fn check_stored(folder: &Path) -> Result<()> {
    let (whole, index) = (folder.join(FILE), folder.join(INDEX));
    if whole.is_file() {
        return outline(&whole).map(|_| ());
    }
    if !index.is_file() {
        return Err(Error::file(folder, no_weights(folder)));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
    let map = weight_map(&text).map_err(|what| Error::file(&index, what))?;
    let shards: BTreeSet<&String> = map.values().collect();
    shards.into_iter().try_for_each(|shard| outline(&shard_in(folder, shard)?).map(|_| ()))
}

/// The tensors of a file by name and shape: zeros that take no memory.
pub(super) fn outline(path: &Path) -> Result<Tensors> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read, before this function returns.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let tensors = check_safetensors(&map).map_err(|what| Error::file(path, what))?;
    let zero = Tensor::f_zeros(&[] as &[i64], (Kind::Float, Device::Cpu))?;
    let one = |(name, view): (String, TensorView)| {
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        Ok((name, zero.f_expand(&shape, false)?))
    };
    tensors.tensors().into_iter().map(one).collect()
}

/// Bytes of the largest file of a folder's weights. Of weights that are not there yet, as large as they would be in the type that config.json
/// says, in files of 5 GB.
pub fn largest_file(folder: &Path, config: &Config) -> f64 {
    let size = |name: &str| std::fs::metadata(folder.join(name)).map(|file| file.len() as f64).ok();
    let shards = || {
        let text = std::fs::read_to_string(folder.join(INDEX)).ok()?;
        let map = weight_map(&text).ok()?;
        map.values().collect::<BTreeSet<_>>().into_iter().filter_map(|shard| size(shard)).reduce(f64::max)
    };
    size(FILE)
        .or_else(shards)
        .unwrap_or_else(|| (config.stored_bytes() * Trained::whole(config).numbers()).min(SHARD as f64))
}

/// The largest file of weights: a model of more is written as several, with an index.
pub const SHARD: usize = 5_000_000_000;

/// One file of several: it holds what the index says, and nothing else.
fn read_shard(folder: &Path, shard: &str, map: &BTreeMap<String, String>, how: &How, into: &mut Tensors) -> Result<()> {
    let path = shard_in(folder, shard)?;
    let mut own = Tensors::new();
    read(&path, how, &mut own)?;
    for (name, tensor) in own {
        if map.get(&name).map(String::as_str) != Some(shard) {
            let said = map.get(&name).map_or("in no file".into(), |other| format!("in {other}"));
            let what = format!("holds {name}, which {INDEX} says lies {said}; fetch or save the model again");
            return Err(Error::file(&path, what));
        }
        into.insert(name, tensor);
    }
    Ok(())
}

/// The path of a file of several.
fn shard_in(folder: &Path, shard: &str) -> Result<PathBuf> {
    let path = folder.join(shard);
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::file(&path, format!("is missing, and {INDEX} names it; fetch or save the model again"))),
    }
}

/// Which file each tensor lies in, from the text of an index.
fn weight_map(text: &str) -> std::result::Result<BTreeMap<String, String>, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or("has no weight_map")?;
    let place = |(name, file): (&String, &Value)| match file.as_str() {
        // A folder of models says nothing about files elsewhere.
        Some(file) if Path::new(file).file_name() == Some(file.as_ref()) => Ok((name.clone(), file.to_owned())),
        _ => Err(format!("says that {name} lies in {file}, which is no name of a file beside it")),
    };
    map.iter().map(place).collect()
}

/// What a folder without safetensors has instead.
fn no_weights(folder: &Path) -> String {
    let has = |name: &str| folder.join(name).is_file();
    if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        return format!(
            "has its weights as pytorch_model.bin, and motrain reads {FILE}; convert them with transformers: \
             AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        );
    }
    format!("has neither {FILE} nor {INDEX}")
}

/// A normaliser's count is the only tensor of a model that is no float.
fn is_count(name: &str) -> bool {
    name == COUNT
}

/// Numbers in the weights of a model's or an adapter's folder.
pub fn parameter_count(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.extension().is_none_or(|end| end != "safetensors") {
            continue;
        }
        count += numbers_of(&path)?;
    }
    Ok(count)
}

/// Numbers in a safetensors file.
pub fn numbers_of(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read, before this function returns.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let tensors = check_safetensors(&map).map_err(|what| Error::file(path, what))?;
    Ok(tensors.iter().map(|(_, view)| view.shape().iter().product::<usize>() as u64).sum())
}

/// Reads all tensors of a safetensors file of weights, as f32. They must be floats.
pub fn read_weights(path: &Path, into: &mut Tensors) -> Result<()> {
    read(path, &How { dtype: &|_| Kind::Float, counters: &|_| false, skip: &|_| false }, into)
}

/// The same for a file that also holds counters (I64).
pub fn read_file(path: &Path, into: &mut Tensors) -> Result<()> {
    read(path, &How { dtype: &|_| Kind::Float, counters: &|_| true, skip: &|_| false }, into)
}

/// What becomes of a file's tensors.
struct How<'a> {
    dtype: &'a dyn Fn(&str) -> Kind,
    /// Those that may be whole numbers.
    counters: Skip<'a>,
    skip: Skip<'a>,
}

fn read(path: &Path, how: &How, into: &mut Tensors) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read, and copied into tensors before this function returns.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let tensors = check_safetensors(&map).map_err(|what| Error::file(path, what))?;
    for (name, view) in tensors.iter().filter(|(name, _)| !(how.skip)(name)) {
        stop::obey()?;
        let bad = |what: String| Error::file(path, format!("tensor {name}: {what}"));
        let kind = match view.dtype() {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
            Dtype::I64 if (how.counters)(name) => Kind::Int64,
            other => {
                return Err(bad(format!("is of type {other:?}; weights are F32, BF16, F16 or F64 (not quantised)")));
            }
        };
        let shape = view.shape().iter().map(|&s| i64::try_from(s)).collect::<std::result::Result<Vec<i64>, _>>();
        let shape = shape.map_err(|e| bad(e.to_string()))?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
        let tensor = if kind == Kind::Int64 { tensor } else { tensor.f_to_kind((how.dtype)(name))? };
        if let Some(what) = not_finite(&tensor)? {
            return Err(bad(format!("{what}; the file is damaged or its training diverged: use an earlier one")));
        }
        into.insert(name.to_owned(), tensor);
    }
    Ok(())
}

/// The tensors that a safetensors file's bytes hold. Names, shapes and places are checked against its length before anything is allocated.
pub fn check_safetensors(bytes: &[u8]) -> std::result::Result<SafeTensors<'_>, String> {
    SafeTensors::deserialize(bytes).map_err(|e| format!("is damaged or truncated ({e}); fetch or save it again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::write_tensors;
    use crate::mutants;
    use safetensors::tensor::serialize;
    use serde_json::json;

    fn ones(shape: &[i64]) -> Tensor {
        Tensor::ones(shape, (Kind::Float, Device::Cpu))
    }

    fn save(folder: &Path, name: &str, tensors: &[(&str, Tensor)]) {
        let owned: Vec<_> = tensors.iter().map(|(n, t)| ((*n).to_owned(), t.shallow_clone())).collect();
        write_tensors(&folder.join(name), &owned, Kind::Float).unwrap();
    }

    fn said(folder: &Path) -> String {
        read_folder(folder, &|_| Kind::Float, &|_| false)
            .unwrap_err()
            .to_string()
            .replace(&folder.display().to_string(), "[model]")
    }

    #[test]
    fn an_index_that_lies_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let index = |map: Value| std::fs::write(folder.join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
        let mut messages = vec![said(folder)];
        save(folder, "1.safetensors", &[("a", ones(&[2]))]);
        save(folder, "2.safetensors", &[("b", ones(&[3]))]);
        index(json!({"a": "1.safetensors", "b": "2.safetensors"}));
        assert_eq!(read_folder(folder, &|_| Kind::Float, &|_| false).unwrap().keys().collect::<Vec<_>>(), ["a", "b"]);
        for map in [
            json!({"a": "1.safetensors", "b": "1.safetensors"}),
            json!({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}),
            json!({"a": "1.safetensors", "b": "3.safetensors"}),
            json!({"a": "1.safetensors", "b": "../2.safetensors"}),
            json!({"a": "1.safetensors", "b": 2}),
            json!({"a": "1.safetensors", "c": "2.safetensors"}),
        ] {
            index(map);
            messages.push(said(folder));
        }
        save(folder, "2.safetensors", &[("a", ones(&[3]))]);
        index(json!({"a": "1.safetensors", "b": "2.safetensors"}));
        messages.push(said(folder));
        std::fs::write(folder.join(INDEX), "{}").unwrap();
        messages.push(said(folder));
        std::fs::remove_file(folder.join(INDEX)).unwrap();
        std::fs::write(folder.join("pytorch_model.bin"), "").unwrap();
        messages.push(said(folder));
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn only_finite_floats_are_weights() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mut messages = Vec::new();
        for odd in [f64::NAN, f64::INFINITY] {
            let tensor = ones(&[2, 3]);
            let _ = tensor.narrow(0, 1, 1).narrow(1, 2, 1).fill_(odd);
            save(folder, FILE, &[("w", tensor)]);
            messages.push(said(folder));
        }
        save(folder, FILE, &[("w", Tensor::from_slice(&[1i64, 2]))]);
        messages.push(said(folder));
        assert!(read_file(&folder.join(FILE), &mut Tensors::new()).is_ok());
        for (dtype, bytes) in [(Dtype::U8, vec![1u8]), (Dtype::F64, 1e300f64.to_le_bytes().to_vec())] {
            let view = TensorView::new(dtype, vec![1], &bytes).unwrap();
            std::fs::write(folder.join(FILE), serialize([("w", view)], None).unwrap()).unwrap();
            messages.push(said(folder));
        }
        insta::assert_snapshot!(messages.join("\n"));
        for (dtype, bytes) in
            [(Dtype::F64, 0.5f64.to_le_bytes().to_vec()), (Dtype::F16, vec![0, 0x38]), (Dtype::BF16, vec![0, 0x3f])]
        {
            let view = TensorView::new(dtype, vec![1], &bytes).unwrap();
            std::fs::write(folder.join(FILE), serialize([("w", view)], None).unwrap()).unwrap();
            assert_eq!(
                read_folder(folder, &|_| Kind::Float, &|_| false).unwrap()["w"].double_value(&[0]),
                0.5,
                "{dtype:?}"
            );
        }
    }

    #[test]
    fn mutants_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), FILE, &[("a", ones(&[2, 3])), ("b", ones(&[5]))]);
        let original = std::fs::read(dir.path().join(FILE)).unwrap();
        let (mut read, mut refused) = (0, 0);
        for (i, bytes) in mutants::of(&original, 3000).enumerate() {
            let good = check_safetensors(&bytes).is_ok();
            (read, refused) = if good { (read + 1, refused) } else { (read, refused + 1) };
            // Those whose head is whole reach the tensors.
            if good || i % 20 == 0 {
                std::fs::write(dir.path().join(FILE), &bytes).unwrap();
                let _ = read_folder(dir.path(), &|_| Kind::Float, &|_| false);
            }
        }
        assert!(read > 100 && refused > 1000, "{read} {refused}");
    }

    #[test]
    fn mutants_of_an_index_are_read_or_refused() {
        let original =
            json!({"metadata": {"total_size": 44}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
                .to_string();
        let refused = mutants::of_json(&original, 2000).filter(|text| weight_map(text).is_err()).count();
        assert!(refused > 500, "{refused}");
    }
}
