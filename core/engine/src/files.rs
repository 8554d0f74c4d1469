//! Files of a model folder: read with a bound, written as transformers writes them, and spoken of once.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Mutex;

/// The largest file that is read whole: vocabularies of 260 000 tokens take 35 MB.
const LARGEST: u64 = 256 << 20;

/// The text of a file, or nothing where there is none.
pub fn read_text(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::io(path, e))?,
    };
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::file(path, format!("is larger than {} MB; is it what its name says?", LARGEST >> 20)));
    }
    Ok(Some(text))
}

/// The content of a JSON file, or nothing where there is none.
pub fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, format!("is not JSON: {e}")))
}

/// The fields of a JSON file; none where there is no file.
pub fn read_fields(path: &Path) -> Result<Map<String, Value>> {
    match read_json(path)? {
        None => Ok(Map::new()),
        Some(Value::Object(fields)) => Ok(fields),
        Some(_) => Err(Error::file(path, "is not a JSON object")),
    }
}

/// For a file of a folder that is put in its place, synced, as a whole; `RunFolder::write_json` is for others.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e.to_string()))?;
    std::fs::write(path, text + "\n").map_err(|e| Error::io(path, e))
}

/// Says something about a file once in a process: folders are loaded again for every stage.
pub fn warn(path: &Path, what: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let line = format!("{}: {what}", path.display());
    if SAID.lock().is_ok_and(|mut said| said.insert(line.clone())) {
        tracing::warn!("{line}");
    }
}

/// What lies beside a model's weights.
pub trait Beside {
    /// Writes its files.
    fn save(&self, folder: &Path) -> Result<()>;
}
