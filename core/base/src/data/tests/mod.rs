mod forms;
mod messages;
mod mutants;

use super::forms as forms_of;
use super::*;
use std::io::{Cursor, Write};

/// A `DataOptions` over one file.
fn options(path: &Path) -> DataOptions {
    let paths = vec![path.to_string_lossy().into_owned()];
    DataOptions { paths, part: Part::All, test_share: 0.1, limit: None, max_prompt_tokens: None }
}

fn file(bytes: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut f = tempfile::NamedTempFile::new().unwrap();
    f.write_all(bytes.as_ref()).unwrap();
    f
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Reads bytes as a file of rows of one form.
fn rows<T>(bytes: &[u8], form: impl Fn(&Value, &mut Notes) -> forms_of::Found<T>) -> (Result<Vec<T>>, Notes) {
    let mut notes = Notes::default();
    let mut read = || -> Result<Vec<T>> {
        let path = Path::new("rows.jsonl");
        let mut out = Vec::new();
        for row in Lines::new(path, Cursor::new(bytes.to_vec()), bytes.len() as u64)? {
            let (line, columns) = row?;
            notes.line = line;
            out.extend(form(&columns, &mut notes).map_err(|what| Error::Data { path: path.into(), line, what })?);
        }
        Ok(out)
    };
    (read(), notes)
}

#[test]
fn parts_are_disjoint_and_limits_are_fair() {
    let rows: String = (0..200).map(|i| format!("{{\"prompt\": \"p{i}\"}}\n")).collect();
    let f = file(&rows);
    let count = |part| prompts(&DataOptions { part, test_share: 0.2, ..options(f.path()) }).unwrap().len();
    assert_eq!(count(Part::Train) + count(Part::Test), 200);
    assert!((20..60).contains(&count(Part::Test)));
    let taken = interleave(vec![vec![1; 30], vec![2; 10]], Some(8));
    assert_eq!((taken.len(), taken.iter().filter(|v| **v == 2).count()), (8, 2));
}

#[test]
fn the_embedded_prompts_keep_their_split() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let split = |task: &str| {
        let whole = DataOptions { test_share: 0.2, ..options(&assets.join(task).join("prompts.jsonl")) };
        [Part::Train, Part::Test].map(|part| {
            let rows = prompts(&DataOptions { part, ..whole.clone() }).unwrap();
            let lines: String = rows.iter().map(|r| format!("{}:{}\n", r.place.line, r.prompt.last_user())).collect();
            (rows.len(), crate::rng::sha256_hex(lines.as_bytes())[..16].to_owned())
        })
    };
    // Made outside motrain from the definition of the split: policies and figures that were published stand on it.
    assert_eq!(split("hh"), SPLIT_HH.map(|(n, h)| (n, h.to_owned())));
    assert_eq!(split("tldr"), SPLIT_TLDR.map(|(n, h)| (n, h.to_owned())));
}

const SPLIT_HH: [(usize, &str); 2] = [(795, "8d53979bbbf5738b"), (205, "77a0913d31164e54")];
const SPLIT_TLDR: [(usize, &str); 2] = [(801, "df3d0aa4a0614732"), (199, "b107be76034c84db")];

#[test]
fn all_columns_stay_and_nothing_is_read_twice() {
    let f = file(
        "{\"prompt\": \"a\", \"score\": 0.5, \"more\": {\"x\": [1]}}\n{\"prompt\": \"a\", \"score\": 0.5, \"more\": {\"x\": [1]}}\n",
    );
    let rows = prompts(&options(f.path())).unwrap();
    assert_eq!(rows[1].columns["more"]["x"][0], 1);
    assert_eq!((rows.len(), rows[1].place.line), (2, 2));
}

#[test]
fn what_is_left_out_explains_an_empty_result() {
    let f = file("{\"chosen\": \"a b\", \"rejected\": \"a b\"}\n{\"chosen\": \"c\", \"rejected\": \"c\"}\n");
    let message =
        pairs(&options(f.path())).unwrap_err().to_string().replace(&f.path().display().to_string(), "rows.jsonl");
    assert_eq!(
        message,
        "no rows in rows.jsonl (All part)\n  rows.jsonl: left out 2 rows: chosen and rejected are equal (the first in line 1)"
    );
    assert!(prompts(&options(file("\n\n").path())).unwrap_err().to_string().ends_with("holds no rows"));
    assert!(prompts(&options(file("").path())).unwrap_err().to_string().ends_with("holds no rows"));
}
