//! Reads the head of a GGUF file. A file is somebody else's: nothing is allocated that its own bytes do not back, nothing recurses, and
//! sums and products are checked.

use super::blocks;
use std::collections::BTreeMap;

/// A metadata value; integers and floats are widened.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// A list stays in the file until it is asked for.
    List {
        kind: u32,
        count: usize,
        at: usize,
    },
}

#[derive(Debug, PartialEq)]
pub struct TensorInfo {
    /// Row-major shape, outermost first.
    pub shape: Vec<i64>,
    pub kind: u32,
    /// First byte in the file, and bytes.
    pub at: usize,
    pub length: usize,
}

/// What a GGUF file says before its tensors' data.
#[derive(Debug, Default)]
pub struct Head {
    pub metadata: BTreeMap<String, Meta>,
    pub tensors: BTreeMap<String, TensorInfo>,
}

pub type Read<T> = Result<T, String>;

/// The kinds of metadata values that the code names.
const TEXT: u32 = 8;
const LIST: u32 = 9;
const MAX_DIMENSIONS: u32 = 4;
const ALIGNMENT: &str = "general.alignment";

/// A cursor over the file that refuses to read past its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
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

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Read<usize> {
        usize::try_from(self.u64()?).map_err(|e| e.to_string())
    }

    fn text(&mut self) -> Read<&'a str> {
        let (start, length) = (self.at, self.size()?);
        std::str::from_utf8(self.take(length)?).map_err(|_| format!("has a damaged text at byte {start}"))
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
            TEXT => Meta::Text(self.text()?.to_owned()),
            LIST => self.list()?,
            10 => Meta::Int(i64::try_from(self.u64()?).map_err(|_| "has a number of 2^63 or more".to_owned())?),
            11 => Meta::Int(i64::from_le_bytes(self.array()?)),
            12 => Meta::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("has a metadata value of unknown type {other}")),
        })
    }

    /// Passes over a list and remembers where it is.
    fn list(&mut self) -> Read<Meta> {
        let (kind, count) = (self.u32()?, self.size()?);
        let at = self.at;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            TEXT => {
                for _ in 0..count {
                    self.text()?;
                }
                return Ok(Meta::List { kind, count, at });
            }
            LIST => return Err(format!("has lists within a list at byte {at}, which no GGUF reader knows")),
            other => return Err(format!("has a list of unknown type {other}")),
        };
        let bytes =
            count.checked_mul(width).ok_or_else(|| format!("is truncated: a list of {count} values at byte {at}"))?;
        self.take(bytes)?;
        Ok(Meta::List { kind, count, at })
    }
}

/// The values of a list.
pub fn values(bytes: &[u8], list: &Meta) -> Read<Vec<Meta>> {
    let Meta::List { kind, count, at } = list else { return Err("is no list".into()) };
    let mut reader = Reader { bytes, at: *at };
    (0..*count).map(|_| reader.value(*kind)).collect()
}

/// Reads a file's head, and checks that the data of every tensor lies inside the file.
pub fn parse(bytes: &[u8]) -> Read<Head> {
    let mut r = Reader { bytes, at: 0 };
    if r.take(4).ok() != Some(b"GGUF") {
        return Err("is no GGUF file".into());
    }
    let version = r.u32()?;
    if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
        return Err("is a big-endian GGUF file; convert it with gguf-py's gguf-convert-endian".into());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("is GGUF version {version}; 2 and 3 are known"));
    }
    let (tensors, metadata) = (r.size()?, r.size()?);
    let mut head = Head::default();
    for _ in 0..metadata {
        let key = r.text()?;
        let kind = r.u32()?;
        let value = r.value(kind).map_err(|what| format!("{what} (metadata \"{key}\")"))?;
        if head.metadata.insert(key.to_owned(), value).is_some() {
            return Err(format!("has the metadata \"{key}\" twice"));
        }
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(tensor(&mut r)?);
    }
    place(&mut head, infos, r.at, bytes.len())?;
    Ok(head)
}

/// A tensor's name, shape and type; its place in the data is `at`.
fn tensor(r: &mut Reader) -> Read<(String, TensorInfo)> {
    let name = r.text()?.to_owned();
    let bad = |what: String| format!("tensor \"{name}\" {what}");
    let dimensions = r.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(bad(format!("has {dimensions} dimensions; at most {MAX_DIMENSIONS} are known")));
    }
    let sizes = (0..dimensions).map(|_| r.u64()).collect::<Read<Vec<u64>>>()?;
    let kind = r.u32()?;
    let at = r.size()?;
    let length = blocks::bytes(kind, &sizes).map_err(bad)?;
    let shape = sizes.iter().rev().map(|&s| i64::try_from(s)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| bad(format!("is of shape {sizes:?}")))?;
    Ok((name, TensorInfo { shape, kind, at, length }))
}

/// Tensors lie one behind the other, each at a multiple of the alignment: so none can share bytes, and all together are no larger than the file.
fn place(head: &mut Head, infos: Vec<(String, TensorInfo)>, end: usize, file: usize) -> Read<()> {
    let align = match head.metadata.get(ALIGNMENT) {
        None => 32,
        Some(Meta::Int(a)) => usize::try_from(*a).ok().filter(|a| a.is_power_of_two()).unwrap_or(0),
        Some(_) => 0,
    };
    if align == 0 {
        return Err(format!("says a {ALIGNMENT} that is no power of two"));
    }
    let padded = |n: usize| n.checked_next_multiple_of(align).ok_or_else(|| format!("has a {ALIGNMENT} of {align}"));
    let mut next = padded(end)?;
    let start = next;
    for (name, mut info) in infos {
        let bad = |what: String| format!("tensor \"{name}\" {what}");
        if start.checked_add(info.at) != Some(next) {
            return Err(bad(format!("lies at offset {}, where {} is its place", info.at, next - start)));
        }
        info.at = next;
        let end = next.checked_add(info.length).filter(|&end| end <= file);
        let end = end.ok_or_else(|| {
            bad(format!("is truncated: it needs {} bytes from byte {next}, the file has {file}", info.length))
        })?;
        next = padded(end)?;
        if head.tensors.insert(name.clone(), info).is_some() {
            return Err(bad("is there twice".into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Value, file, write};
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err()
    }

    #[test]
    fn refuses_what_is_no_gguf() {
        assert_eq!(refused(b"nope"), "is no GGUF file");
        assert!(refused(b"GGUF\x03\0\0\0\x01").contains("truncated"));
        assert!(refused(b"GGUF\0\0\0\x03").contains("big-endian"));
        assert!(refused(b"GGUF\x01\0\0\0").contains("is GGUF version 1; 2 and 3 are known"));
    }

    #[test]
    fn lists_within_lists_and_long_lists_are_refused() {
        let nested =
            [&b"GGUF\x03\0\0\0"[..], &0u64.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes(), b"a"].concat();
        let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
        let deep = [nested.clone(), 9u32.to_le_bytes().to_vec(), level.repeat(100_000)].concat();
        assert!(refused(&deep).contains("has lists within a list"), "{}", refused(&deep));
        for kind in [0u32, 8, 12] {
            let long = [
                nested.clone(),
                9u32.to_le_bytes().to_vec(),
                kind.to_le_bytes().to_vec(),
                u64::MAX.to_le_bytes().to_vec(),
            ];
            assert!(refused(&long.concat()).contains("truncated"), "{}", refused(&long.concat()));
        }
    }

    #[test]
    fn tensors_that_lie_about_themselves_are_refused() {
        let with = |change: &dyn Fn(&mut super::super::tests::Written)| {
            let mut written = file();
            change(&mut written);
            refused(&write(&written))
        };
        let says = |message: String, what: &str| assert!(message.contains(what), "{message}");
        says(with(&|f| f.tensors[0].1 = vec![1 << 62]), "needs more than");
        says(with(&|f| f.tensors[0].1 = vec![1 << 62, 1 << 62]), "needs more than");
        says(with(&|f| f.tensors[0].1 = vec![u64::MAX, 0]), "has no values");
        says(with(&|f| f.tensors[0].1 = vec![1; 5]), "has 5 dimensions");
        says(with(&|f| f.tensors[0].2 = 12), "has type Q4_K");
        says(with(&|f| f.tensors[0].2 = 8), "no multiple of 32");
        says(with(&|f| f.offset = 32), "lies at offset 32");
        says(with(&|f| f.cut = 1), "is truncated: it needs");
        says(with(&|f| f.tensors[1].0 = f.tensors[0].0.clone()), "is there twice");
        says(with(&|f| f.metadata.push(f.metadata[0].clone())), "\"general.architecture\" twice");
        says(with(&|f| f.metadata.push((ALIGNMENT.into(), Value::U32(24)))), "no power of two");
        says(with(&|f| f.metadata.push((ALIGNMENT.into(), Value::U32(0)))), "no power of two");
    }
}
