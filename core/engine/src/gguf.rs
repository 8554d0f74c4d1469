//! Reads GGUF files (version 2 and 3): metadata and tensors of the types F32, F16, BF16, Q8_0, Q4_0 and Q4_1.
//! Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md.

use crate::{Error, Result};
use half::{bf16, f16};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A metadata value; integers and floats are widened.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Meta>),
}

struct TensorInfo {
    /// Row-major shape, outermost first.
    shape: Vec<i64>,
    kind: u32,
    offset: usize,
}

pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    pub metadata: BTreeMap<String, Meta>,
    tensors: BTreeMap<String, TensorInfo>,
    data: usize,
}

/// A cursor over the file that refuses to read past its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read<T> = std::result::Result<T, String>;

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Read<&[u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("is truncated at byte {}", self.at))?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Read<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|e| e.to_string())
    }

    fn text(&mut self) -> Read<String> {
        let length = self.size()?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| format!("has a damaged text at byte {}", self.at))
    }

    fn value(&mut self, kind: u32) -> Read<Meta> {
        Ok(match kind {
            0 => Meta::Int(i64::from(self.array::<1>()?[0])),
            1 => Meta::Int(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Meta::Int(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Meta::Int(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Meta::Int(i64::from(self.u32()?)),
            5 => Meta::Int(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Meta::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Meta::Bool(self.array::<1>()?[0] != 0),
            8 => Meta::Text(self.text()?),
            9 => {
                let (kind, count) = (self.u32()?, self.size()?);
                Meta::List((0..count).map(|_| self.value(kind)).collect::<Read<_>>()?)
            }
            10 | 11 => Meta::Int(i64::from_le_bytes(self.array()?)),
            12 => Meta::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("has a metadata value of unknown type {other}")),
        })
    }
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the map is only read, through bounds-checked slices.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        let (metadata, tensors, data) =
            parse(&map).map_err(|what| Error::file(path, format!("{what}; fetch the file again")))?;
        Ok(Self { path: path.into(), map, metadata, tensors, data })
    }

    fn meta(&self, key: &str) -> Result<&Meta> {
        self.metadata.get(key).ok_or_else(|| Error::file(&self.path, format!("has no metadata \"{key}\"")))
    }

    pub fn int(&self, key: &str) -> Result<i64> {
        match self.meta(key)? {
            Meta::Int(i) => Ok(*i),
            other => Err(Error::file(&self.path, format!("metadata \"{key}\" is no integer: {other:?}"))),
        }
    }

    pub fn float(&self, key: &str) -> Result<f64> {
        match self.meta(key)? {
            Meta::Float(f) => Ok(*f),
            other => Err(Error::file(&self.path, format!("metadata \"{key}\" is no number: {other:?}"))),
        }
    }

    pub fn text(&self, key: &str) -> Result<&str> {
        match self.meta(key)? {
            Meta::Text(s) => Ok(s),
            other => Err(Error::file(&self.path, format!("metadata \"{key}\" is no text: {other:?}"))),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Meta::List(list) = self.meta(key)? else {
            return Err(Error::file(&self.path, format!("metadata \"{key}\" is no list")));
        };
        let text = |m: &Meta| match m {
            Meta::Text(s) => Some(s.clone()),
            _ => None,
        };
        let texts: Option<Vec<String>> = list.iter().map(text).collect();
        texts.ok_or_else(|| Error::file(&self.path, format!("\"{key}\" holds no texts")))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as f32.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let bad = |what: String| Error::file(&self.path, format!("tensor \"{name}\" {what}"));
        let info = self.tensors.get(name).ok_or_else(|| bad("is missing".into()))?;
        let count = info.shape.iter().product::<i64>() as usize;
        let (block, bytes) = block_size(info.kind).ok_or_else(|| {
            bad(format!("has quantisation type {}; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are known", info.kind))
        })?;
        let length = count / block * bytes;
        let start = self.data + info.offset;
        let raw =
            self.map.get(start..start + length).ok_or_else(|| bad("is truncated; fetch the file again".into()))?;
        let values = dequantise(info.kind, raw, count);
        Ok(Tensor::f_from_slice(&values)?.f_view(&info.shape[..])?)
    }
}

type Parsed = (BTreeMap<String, Meta>, BTreeMap<String, TensorInfo>, usize);

fn parse(bytes: &[u8]) -> Read<Parsed> {
    let mut r = Reader { bytes, at: 0 };
    if r.take(4).ok() != Some(b"GGUF") {
        return Err("is no GGUF file".into());
    }
    let version = r.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("is GGUF version {version}; 2 and 3 are known"));
    }
    let (tensor_count, meta_count) = (r.size()?, r.size()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..meta_count {
        let key = r.text()?;
        let kind = r.u32()?;
        metadata.insert(key, r.value(kind)?);
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..tensor_count {
        let name = r.text()?;
        let dims = r.u32()?;
        let mut shape = (0..dims).map(|_| r.size().map(|s| s as i64)).collect::<Read<Vec<_>>>()?;
        shape.reverse();
        let kind = r.u32()?;
        tensors.insert(name, TensorInfo { shape, kind, offset: r.size()? });
    }
    let align = match metadata.get("general.alignment") {
        Some(Meta::Int(a)) if *a > 0 => *a as usize,
        _ => 32,
    };
    Ok((metadata, tensors, r.at.div_ceil(align) * align))
}

/// Values and bytes per block.
fn block_size(kind: u32) -> Option<(usize, usize)> {
    Some(match kind {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        8 => (32, 34),
        _ => return None,
    })
}

fn dequantise(kind: u32, raw: &[u8], count: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(count);
    let half_at = |block: &[u8], i: usize| f16::from_le_bytes([block[i], block[i + 1]]).to_f32();
    // Low nibbles hold a block's first half, high nibbles its second.
    let nibbles = |block: &[u8], out: &mut Vec<f32>, value: &dyn Fn(u8) -> f32| {
        out.extend(block.iter().map(|b| value(b & 15)));
        out.extend(block.iter().map(|b| value(b >> 4)));
    };
    match kind {
        0 => out.extend(raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        1 => out.extend(raw.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
        30 => out.extend(raw.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        2 => {
            for block in raw.chunks_exact(18) {
                let scale = half_at(block, 0);
                nibbles(&block[2..], &mut out, &|q| (f32::from(q) - 8.0) * scale);
            }
        }
        3 => {
            for block in raw.chunks_exact(20) {
                let (scale, low) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[4..], &mut out, &|q| f32::from(q) * scale + low);
            }
        }
        _ => {
            for block in raw.chunks_exact(34) {
                let scale = half_at(block, 0);
                out.extend(block[2..].iter().map(|&q| f32::from(q as i8) * scale));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let mut q8 = vec![0u8; 34];
        q8[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        q8[2] = 0xff;
        q8[33] = 4;
        let values = dequantise(8, &q8, 32);
        assert_eq!((values[0], values[31]), (-0.5, 2.0));
        let mut q4 = vec![0u8; 20];
        q4[..2].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        q4[2..4].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
        q4[4] = 0x31;
        let values = dequantise(3, &q4, 32);
        assert_eq!((values[0], values[16], values[1]), (3.0, 7.0, 1.0));
    }

    #[test]
    fn refuses_what_is_no_gguf() {
        assert_eq!(parse(b"nope").err().unwrap(), "is no GGUF file");
        assert!(parse(b"GGUF\x03\0\0\0\x01").err().unwrap().contains("truncated"));
    }
}
