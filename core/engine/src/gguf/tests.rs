//! Writes small GGUF files, for tests here and of the import.

use super::*;
use crate::mutants;

#[derive(Clone)]
pub enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i32>),
}

/// A file before it is written.
#[derive(Clone)]
pub struct Written {
    pub metadata: Vec<(String, Value)>,
    /// Name, sizes with the row first, type, bytes.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    /// Added to the offset of the first tensor.
    pub offset: u64,
    /// Bytes cut off the end.
    pub cut: usize,
}

pub fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

fn value(v: &Value) -> Vec<u8> {
    let list = |kind: u32, count: usize, body: Vec<u8>| {
        [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(count as u64).to_le_bytes(), &body].concat()
    };
    let one = |kind: u32, body: &[u8]| [&kind.to_le_bytes()[..], body].concat();
    match v {
        Value::U32(n) => one(4, &n.to_le_bytes()),
        Value::I32(n) => one(5, &n.to_le_bytes()),
        Value::F32(n) => one(6, &n.to_le_bytes()),
        Value::Flag(b) => one(7, &[u8::from(*b)]),
        Value::Text(s) => one(8, &text(s)),
        Value::Texts(all) => list(8, all.len(), all.iter().flat_map(|s| text(s)).collect()),
        Value::Ints(all) => list(5, all.len(), all.iter().flat_map(|i| i.to_le_bytes()).collect()),
    }
}

pub fn write(file: &Written) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((file.tensors.len() as u64).to_le_bytes());
    out.extend((file.metadata.len() as u64).to_le_bytes());
    for (key, v) in &file.metadata {
        out.extend(text(key));
        out.extend(value(v));
    }
    let mut data = Vec::new();
    for (i, (name, sizes, kind, bytes)) in file.tensors.iter().enumerate() {
        out.extend(text(name));
        out.extend((sizes.len() as u32).to_le_bytes());
        out.extend(sizes.iter().flat_map(|s| s.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend((data.len() as u64 + if i == 0 { file.offset } else { 0 }).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out.truncate(out.len() - file.cut);
    out
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two tensors of eight values.
pub fn file() -> Written {
    let eight = floats(&[0.5; 8]);
    Written {
        metadata: vec![("general.architecture".into(), Value::Text("llama".into()))],
        tensors: vec![("a".into(), vec![4, 2], 0, eight.clone()), ("b".into(), vec![8], 0, eight)],
        offset: 0,
        cut: 0,
    }
}

fn open(bytes: &[u8]) -> Result<Gguf> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

#[test]
fn tensors_and_lists_are_read() {
    let mut written = file();
    written.metadata.push(("list".into(), Value::Ints(vec![3, -4])));
    written.metadata.push(("words".into(), Value::Texts(vec!["x".into(), "yz".into()])));
    let gguf = open(&write(&written)).unwrap();
    assert_eq!(gguf.tensor("a").unwrap().size(), [2, 4]);
    assert_eq!(gguf.list("list").unwrap().unwrap(), [Meta::Int(3), Meta::Int(-4)]);
    assert_eq!(gguf.texts("words").unwrap(), ["x", "yz"]);
    let wrong = gguf.int("words").unwrap_err().to_string();
    assert!(wrong.contains("metadata \"words\" is no integer: a list of 2"), "{wrong}");
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut written = file();
    written.tensors[0].3 = floats(&[0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]);
    let said = open(&write(&written)).unwrap().tensor("a").unwrap_err().to_string();
    assert!(said.contains("tensor \"a\": 1 of 8 values are not finite; the first is NaN at [1, 1]"), "{said}");
}

#[test]
fn mutants_are_read_or_refused() {
    let mut written = file();
    written.metadata.push(("list".into(), Value::Ints(vec![3, -4])));
    written.metadata.push(("words".into(), Value::Texts(vec!["x".into(), "yz".into()])));
    let (mut read, mut refused) = (0, 0);
    for bytes in mutants::of(&write(&written), 4000) {
        match parse(&bytes) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(read > 100 && refused > 1000, "{read} {refused}");
}
