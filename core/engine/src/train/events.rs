//! TensorBoard event files: records of hand-encoded protobuf, enough for scalars.

use crate::{Error, Result};
use motrain_core::durable;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Events {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Events {
    /// Starts an event file in `folder` for the stage with this hash, replacing earlier ones: they are remade from metrics.jsonl.
    pub fn create(folder: &Path, hash: &str) -> Result<Self> {
        durable::remove(folder).map_err(|e| Error::io(folder, e))?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join(format!("events.out.tfevents.{}.{}", now() as u64, name(hash)));
        let out = BufWriter::new(File::create(&path).map_err(|e| Error::io(&path, e))?);
        let mut events = Self { path, out };
        let mut version = double(1, now());
        version.extend(bytes(3, b"brain.Event:2"));
        events.record(&version)?;
        Ok(events)
    }

    /// Whether `folder` holds the events of the stage with this hash.
    pub fn are_of(folder: &Path, hash: &str) -> bool {
        let whole = |e: &std::fs::DirEntry| e.metadata().is_ok_and(|m| m.len() > 0);
        let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.any(|e| e.file_name().to_string_lossy().ends_with(&name(hash)) && whole(&e))
    }

    /// Writes the scalars of one step.
    pub fn scalars<'a>(&mut self, step: usize, values: impl Iterator<Item = (&'a str, f64)>) -> Result<()> {
        self.record(&event(now(), step, values))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(&frame(data)).and_then(|()| self.out.flush()).map_err(|e| Error::io(&self.path, e))
    }
}

fn name(hash: &str) -> String {
    format!("{}.motrain", &hash[..16.min(hash.len())])
}

/// An `Event` with a `Summary` of simple values.
fn event<'a>(time: f64, step: usize, values: impl Iterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut one = bytes(1, tag.as_bytes());
        one.push(2 << 3 | 5);
        one.extend((value as f32).to_le_bytes());
        summary.extend(bytes(1, &one));
    }
    let mut event = double(1, time);
    event.push(2 << 3);
    event.extend(varint(step as u64));
    event.extend(bytes(5, &summary));
    event
}

/// The TFRecord frame: length, its checksum, data, its checksum.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

fn bytes(field: u8, data: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(data.len() as u64), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard 2's own `RecordWriter` writes for this event.
    #[test]
    fn equals_tensorboards_own_bytes() {
        let golden = "300000000000000095f5d05f09000000000000f83f10ac022a220a0b0a046c6f7373150000803e\
                      0a130a0c6f626a6563746976652f6b6c15000040c01eec423f";
        let made = frame(&event(1.5, 300, [("loss", 0.25), ("objective/kl", -3.0)].into_iter()));
        let hex: String = made.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
    }
}
