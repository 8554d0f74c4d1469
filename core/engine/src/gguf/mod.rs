//! Reads GGUF files (version 2 and 3): metadata and tensors of the types F32, F16, BF16, F64, Q8_0, Q4_0 and Q4_1.
//! Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md; what llama.cpp refuses is refused here.

mod blocks;
mod reader;

use crate::finite::not_finite;
use crate::{Error, Result};
use memmap2::Mmap;
pub use reader::{Head, Meta, parse};
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::Tensor;

pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    head: Head,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the map is only read, through bounds-checked slices.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        let head = parse(&map).map_err(|what| {
            let cut = if what.contains("truncated") { "; fetch the file again" } else { "" };
            Error::file(path, format!("{what}{cut}"))
        })?;
        Ok(Self { path: path.into(), map, head })
    }

    pub fn get(&self, key: &str) -> Option<&Meta> {
        self.head.metadata.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = (&str, &Meta)> {
        self.head.metadata.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// An error that names the file.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::file(&self.path, what)
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Meta) -> Error {
        let found = match found {
            Meta::List { count, .. } => format!("a list of {count}"),
            Meta::Text(text) if text.len() > 40 => "a long text".into(),
            other => format!("{other:?}"),
        };
        self.error(format!("metadata \"{key}\" is no {wanted}: {found}"))
    }

    fn need<T>(&self, key: &str, value: Result<Option<T>>) -> Result<T> {
        value?.ok_or_else(|| self.error(format!("has no metadata \"{key}\"")))
    }

    pub fn int(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Int(i)) => Ok(Some(*i)),
            Some(other) => Err(self.wrong(key, "integer", other)),
        }
    }

    pub fn need_int(&self, key: &str) -> Result<i64> {
        self.need(key, self.int(key))
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Float(f)) => Ok(Some(*f)),
            Some(other) => Err(self.wrong(key, "number", other)),
        }
    }

    pub fn need_float(&self, key: &str) -> Result<f64> {
        self.need(key, self.float(key))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.wrong(key, "yes or no", other)),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Text(s)) => Ok(Some(s)),
            Some(other) => Err(self.wrong(key, "text", other)),
        }
    }

    pub fn need_text(&self, key: &str) -> Result<&str> {
        self.need(key, self.text(key))
    }

    pub fn list(&self, key: &str) -> Result<Option<Vec<Meta>>> {
        let Some(list) = self.get(key) else { return Ok(None) };
        match reader::values(&self.map, list) {
            Ok(values) => Ok(Some(values)),
            Err(_) => Err(self.wrong(key, "list", list)),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        let text = |m: Meta| match m {
            Meta::Text(s) => Ok(s),
            other => Err(self.wrong(key, "list of texts", &other)),
        };
        self.need(key, self.list(key))?.into_iter().map(text).collect()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.head.tensors.keys().map(String::as_str)
    }

    /// A tensor as f32.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let bad = |what: String| self.error(format!("tensor \"{name}\": {what}"));
        let info = self.head.tensors.get(name).ok_or_else(|| bad("is missing".into()))?;
        // The head was checked against the file's length.
        let raw = self.map.get(info.at..info.at + info.length).unwrap_or_default();
        let tensor = Tensor::f_from_slice(&blocks::dequantise(info.kind, raw))?.f_view(&info.shape[..])?;
        match not_finite(&tensor)? {
            Some(what) => Err(bad(format!("{what}; the file is damaged, or was converted from a damaged model"))),
            None => Ok(tensor),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
