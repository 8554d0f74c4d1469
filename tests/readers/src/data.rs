//! Readers that need no tensors.

use crate::{bundle, folder};
use flate2::Compression;
use flate2::write::GzEncoder;
use motrain_core::Registry;
use motrain_core::config::Layers;
use motrain_core::data::{Lines, Notes, forms};

use motrain_engine::folder::{Manifest, Status, stage};
use motrain_engine::plan::Plan;
use serde_json::Value;
use std::io::{Cursor, Write};
use std::path::Path;

/// A data file in every form: as it stands, and gzipped.
pub fn rows(data: &[u8]) {
    let plain = read_rows(data.to_vec());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(data).and_then(|()| gzip.finish()).unwrap_or_default();
    if !data.starts_with(&[0x1f, 0x8b]) {
        assert_eq!(plain, read_rows(packed), "gzipped, a file holds other rows");
    }
}

/// How many rows were read before the end or the first error.
fn read_rows(bytes: Vec<u8>) -> usize {
    let size = bytes.len() as u64;
    let mut notes = Notes::default();
    let Ok(lines) = Lines::new(Path::new("rows.jsonl"), Cursor::new(bytes), size) else { return 0 };
    let mut count = 0;
    for row in lines {
        let Ok((_, columns)) = row else { break };
        let _ = forms::prompt(&columns, &mut notes);
        let _ = forms::pair(&columns, &mut notes);
        let _ = forms::margin(&columns);
        let _ = forms::demonstration(&columns, &mut notes);
        let _ = forms::rating(&columns, &["helpfulness".into(), "verbosity".into()], &mut notes);
        count += 1;
    }
    count
}

/// A layer of configuration over the defaults, as a file and line by line as --set.
pub fn toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let layers = || Layers::over(include_str!("../../../configs/default.toml")).unwrap_or_else(|e| panic!("{e}"));
    let mut file = layers();
    let _ = file.lay(text).and_then(|()| file.finish());
    let mut set = layers();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let _ = set.set(&key.split('.').collect::<Vec<_>>(), value);
    }
    let _ = set.finish();
}

/// A run folder from elsewhere: its plan as --resume checks it, and what else a start reads there.
pub fn plan(data: &[u8]) {
    let files = bundle::files(data, &["plan.json", "manifest.json", "stages/a/stage.json"]);
    let run = folder::with(&files);
    let stage = stage(run.path(), "a");
    let _ = Status::of(&stage).map(|s| s.is_done("x"));
    let _ = Manifest::read(run.path());
    let Ok(text) = std::fs::read_to_string(run.path().join("plan.json")) else { return };
    let read = serde_json::from_str::<Value>(&text).and_then(serde_json::from_value::<Plan>);
    let Ok(plan) = read.map(|plan| plan.read_in(run.path())) else { return };
    if plan.check(&Registry::builtin()).is_err() {
        return;
    }
    let _ = plan.missing_inputs();
    let hashes = plan.hashes(|path| Ok(path.to_owned()), |_| 0);
    assert!(hashes.is_ok(), "a plan that was checked has no hashes: {:?}", hashes.err());
    let saved = serde_json::to_string(&plan).unwrap_or_default();
    let again = serde_json::from_str::<Plan>(&saved);
    assert_eq!(again.ok().as_ref(), Some(&plan), "a plan that was saved is read as another");
}
