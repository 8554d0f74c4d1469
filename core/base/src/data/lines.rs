//! Rows out of bytes, plain or gzipped: JSON lines, or one JSON array. What is read is bounded by the file's own size, and an error names the line.

use super::{array, mistaken};
use crate::{Error, Result, stop};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// The longest line.
const LINE: u64 = 64 << 20;
/// What a gzipped file may unpack to, whatever its size, and as a multiple of its size. A line counts with what a row of it takes in memory.
const UNPACKED: u64 = 16 << 20;
const RATIO: u64 = 64;
pub(super) const ROW: u64 = 256;
/// The byte-order mark of UTF-8.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes that tell what a file is.
const HEAD: u64 = 512;

/// The rows of a file, each an object, with their line numbers. Blank lines are skipped.
pub struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead>,
    /// The rows, where the file is an array.
    array: Option<std::vec::IntoIter<(usize, Value)>>,
    line: usize,
    buffer: Vec<u8>,
    /// What a gzipped file may still unpack to.
    left: u64,
}

/// All rows of a file that must hold some.
pub fn json_lines(path: &Path) -> Result<Vec<(usize, Value)>> {
    let rows = Lines::open(path)?.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() { Err(Error::file(path, "holds no rows")) } else { Ok(rows) }
}

impl Lines {
    /// Opens a file, plain or gzipped; a folder, and what is neither JSON lines nor a JSON array, is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let about = file.metadata().map_err(|e| Error::io(path, e))?;
        if about.is_dir() {
            return Err(Error::file(path, "is a folder; name the .jsonl files in it"));
        }
        Self::new(path, file, about.len())
    }

    /// The rows of `size` bytes under the name `path`.
    pub fn new(path: &Path, bytes: impl Read + 'static, size: u64) -> Result<Self> {
        let (mut head, mut input) = peeked(path, Box::new(BufReader::new(bytes)))?;
        let mut left = u64::MAX;
        if head.starts_with(&[0x1f, 0x8b]) {
            left = UNPACKED.max(size.saturating_mul(RATIO));
            (head, input) = peeked(path, Box::new(BufReader::new(MultiGzDecoder::new(input))))?;
        }
        if let Some(what) = mistaken::file(&head) {
            return Err(Error::file(path, what));
        }
        let mut array = None;
        if array::begins(&head) {
            let mark = if head.starts_with(MARK) { MARK.len() } else { 0 };
            input.read_exact(&mut MARK.to_vec()[..mark]).map_err(|e| Error::io(path, e))?;
            array = Some(array::rows(path, &mut input, left)?.into_iter());
        }
        Ok(Self { path: path.to_owned(), input, array, line: 0, buffer: Vec::new(), left })
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::Data { path: self.path.clone(), line: self.line, what: what.into() }
    }

    /// Whether there was another line.
    fn advance(&mut self) -> Result<bool> {
        stop::obey()?;
        self.buffer.clear();
        self.line += 1;
        let read = self.input.by_ref().take(LINE + 1).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|e| self.error(mistaken::unreadable(&e)))? as u64;
        self.left = self.left.saturating_sub(read + ROW);
        match read {
            0 => Ok(false),
            length if length > LINE => Err(self.error(format!(
                "is longer than {} MiB; JSON lines hold one object a line, so this is no such file, or its line ends are lost",
                LINE >> 20
            ))),
            _ if self.left == 0 => Err(self.error(too_much())),
            _ => Ok(true),
        }
    }

    /// The row of the line that was read, or nothing where it is blank.
    fn row(&self) -> Result<Option<Value>> {
        let bytes = self.buffer.strip_prefix(MARK).unwrap_or(&self.buffer).trim_ascii();
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes).map_err(|e| self.error(mistaken::encoding(bytes, e.valid_up_to())))?;
        let first = self.line == 1;
        match serde_json::from_str(text) {
            Ok(row @ Value::Object(_)) => Ok(Some(row)),
            Ok(other) => Err(self.error(mistaken::value(&other))),
            Err(e) => Err(self.error(mistaken::line(text, &e, first))),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<(usize, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(rows) = &mut self.array {
            return rows.next().map(Ok);
        }
        loop {
            match self.advance().and_then(|more| if more { self.row().map(Some) } else { Ok(None) }) {
                Ok(None) => return None,
                Ok(Some(None)) => (),
                Ok(Some(Some(row))) => return Some(Ok((self.line, row))),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Why no more is read of a gzipped file.
pub(super) fn too_much() -> String {
    format!(
        "ends what is read of this gzipped file: it unpacks to more than {RATIO} times its size, as a file made to fill the memory does; \
         if it is what you want, unpack it first"
    )
}

/// The first bytes, and all bytes.
fn peeked(path: &Path, mut input: Box<dyn BufRead>) -> Result<(Vec<u8>, Box<dyn BufRead>)> {
    let mut head = Vec::new();
    let read = input.by_ref().take(HEAD).read_to_end(&mut head);
    read.map_err(|e| Error::Data { path: path.to_owned(), line: 1, what: mistaken::unreadable(&e) })?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(input))))
}
