//! One JSON array of rows, as Alpaca's data sets and pandas' `orient="records"` have them.

use super::columns::found;
use super::mistaken;
use crate::{Error, Result, stop};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// Whether bytes begin with an array.
pub fn begins(head: &[u8]) -> bool {
    head.strip_prefix(super::lines::MARK).unwrap_or(head).trim_ascii_start().starts_with(b"[")
}

/// The rows of an array, each with the line that it begins in. Of a gzipped file, no more than `left` bytes are unpacked.
pub fn rows(path: &Path, input: impl Read, left: u64) -> Result<Vec<(usize, Value)>> {
    let place = Cell::new(Place { line: 1, began: None });
    let mut reader = Counted { input: input.take(left), place: &place };
    let mut rows = Rows { found: Vec::new(), place: &place, left, fault: None };
    let mut json = serde_json::Deserializer::from_reader(&mut reader);
    let read = json.deserialize_seq(&mut rows).and_then(|()| json.end());
    let Err(error) = read else { return Ok(rows.found) };
    let data = |line: usize, what: String| Error::Data { path: path.to_owned(), line, what };
    let line = place.get().line;
    Err(match rows.fault {
        Some(Fault::Stopped) => Error::Stopped,
        Some(Fault::Row(line, what)) => data(line, what),
        Some(Fault::TooMuch) => data(line, super::lines::too_much()),
        None if reader.input.limit() == 0 => data(line, super::lines::too_much()),
        None if error.classify() == Category::Io => data(line, mistaken::unreadable(&error.into())),
        None => data(error.line(), mistaken::array(&error)),
    })
}

#[derive(Clone, Copy)]
struct Place {
    line: usize,
    /// The line of the row's first brace.
    began: Option<usize>,
}

/// Counts lines on the way.
struct Counted<'a, R> {
    input: io::Take<R>,
    place: &'a Cell<Place>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        let mut place = self.place.get();
        for byte in &buffer[..n] {
            match byte {
                b'\n' => place.line += 1,
                b'{' => place.began = place.began.or(Some(place.line)),
                _ => {}
            }
        }
        self.place.set(place);
        Ok(n)
    }
}

enum Fault {
    Stopped,
    Row(usize, String),
    TooMuch,
}

struct Rows<'a> {
    found: Vec<(usize, Value)>,
    place: &'a Cell<Place>,
    left: u64,
    fault: Option<Fault>,
}

impl Rows<'_> {
    fn accept(&mut self, row: Value) -> std::result::Result<(), Fault> {
        let place = self.place.get();
        let (line, number) = (place.began.unwrap_or(place.line), self.found.len() + 1);
        if stop::asked() {
            return Err(Fault::Stopped);
        }
        if number as u64 > self.left / super::lines::ROW {
            return Err(Fault::TooMuch);
        }
        if !row.is_object() {
            let what =
                format!("row {number} of the JSON array is {}; write objects, like {{\"prompt\": \"…\"}}", found(&row));
            return Err(Fault::Row(line, what));
        }
        self.found.push((line, row));
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        loop {
            self.place.set(Place { began: None, ..self.place.get() });
            let Some(row) = items.next_element::<Value>()? else { return Ok(()) };
            self.accept(row).map_err(|fault| {
                self.fault = Some(fault);
                serde::de::Error::custom("")
            })?;
        }
    }
}
