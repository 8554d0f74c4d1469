//! What a file or a line is that is no JSON line, and how to make one of it.

use super::columns::found;
use serde_json::Value;
use serde_json::error::Category;
use std::io::ErrorKind;

const FORMATS: &[(&[u8], &str)] = &[
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1f\x8b", "gzipped twice"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"%PDF", "a PDF"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\xff\xfe\0\0", "UTF-32 text"),
    (b"\0\0\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
];

/// What a file that begins with `head` is, where that is no text in UTF-8.
pub fn file(head: &[u8]) -> Option<String> {
    let by_magic = FORMATS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name);
    let no_mark = head.starts_with(b"{\0") || head.starts_with(b"\0{");
    let tar = head.get(257..262) == Some(b"ustar");
    let what = by_magic.or(no_mark.then_some("UTF-16 text")).or(tar.then_some("a tar archive"))?;
    let mend = match what {
        text if text.starts_with("UTF") => "convert it: iconv -t UTF-8 -f ".to_owned() + &what.replace(" text", ""),
        packed if packed.contains("archive") || packed.contains("compressed") || packed.contains("gzip") => {
            "unpack it; only one layer of gzip is read".into()
        }
        _ => "read it with Python's pandas, and write it with to_json(\"rows.jsonl\", orient=\"records\", lines=True)"
            .into(),
    };
    Some(format!("is {what}, not JSON lines; {mend}"))
}

/// Why reading stopped.
pub fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "the gzipped data ends in this line: the file is truncated; get it again".into(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            format!("the gzipped data is damaged in this line ({error}); get the file again")
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Why bytes are no text.
pub fn encoding(bytes: &[u8], at: usize) -> String {
    let byte = bytes.get(at).copied().unwrap_or_default();
    format!(
        "is not UTF-8: byte {} of the line is 0x{byte:02x}; convert the file, from Windows or Latin-1 text with \
         iconv -f WINDOWS-1252 -t UTF-8",
        at + 1
    )
}

/// Why a JSON value is no row.
pub fn value(value: &Value) -> String {
    format!("is {}, not an object; write one object a line, like {{\"prompt\": \"…\"}}", found(value))
}

/// Why a file that begins an array is none of rows.
pub fn array(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    let mend = match error.classify() {
        Category::Eof => "; the JSON array does not end: the file is truncated; get it again",
        _ if said.contains("trailing characters") => {
            "; nothing stands behind the JSON array: write one array, or one object a line"
        }
        _ if said.contains("recursion") => "; rows are read to a depth of 128",
        _ if said.contains("unicode code point") => {
            "; the file is not UTF-8: convert it with iconv -f WINDOWS-1252 -t UTF-8"
        }
        _ => "; this is a JSON array, whose rows are objects with commas between them",
    };
    format!("is not JSON: {said} at byte {} of the line{mend}", error.column())
}

/// Why a line is no JSON.
pub fn line(text: &str, error: &serde_json::Error, first: bool) -> String {
    let whole = if first { whole_file(text) } else { None };
    if let Some(what) = whole {
        return what.into();
    }
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    let at = error.column();
    let mend = mend(text, said, error).map(|m| format!("; {m}")).unwrap_or_default();
    format!("is not JSON: {said} at byte {at} of the line{mend}")
}

/// What the first line gives away about a file.
fn whole_file(text: &str) -> Option<&'static str> {
    if text.starts_with('<') {
        return Some("is HTML or XML, not JSON lines, perhaps the page of a failed download; get the file itself");
    }
    if text.starts_with("version https://git-lfs") {
        return Some("is a Git LFS pointer, not the data; get it with `git lfs pull`");
    }
    if !text.contains('{') && text.contains([',', '\t']) {
        return Some(
            "is the header of a CSV or TSV file, not JSON; write one object a line, with Python's pandas: \
             read_csv(\"rows.csv\").to_json(\"rows.jsonl\", orient=\"records\", lines=True)",
        );
    }
    None
}

fn mend(text: &str, said: &str, error: &serde_json::Error) -> Option<&'static str> {
    let rest = text.get(error.column().saturating_sub(1)..).unwrap_or("");
    let comma = |t: &str| serde_json::from_str::<Value>(t.trim()).is_ok();
    if text.contains('\0') {
        return Some("it holds NUL bytes, as a file that was cut off by a crash does; remove them");
    }
    if text.strip_suffix(',').is_some_and(comma) || text.strip_prefix(',').is_some_and(comma) {
        return Some("no comma stands between JSON lines; remove it");
    }
    if text.starts_with("{'") {
        return Some("this is a Python dictionary; write it with json.dumps");
    }
    if ["NaN", "Infinity", "-Infinity"].iter().any(|n| rest.starts_with(n)) {
        return Some("NaN and infinities are no JSON; write null");
    }
    if ["None", "True", "False"].iter().any(|n| rest.starts_with(n)) {
        return Some("this is Python; write it with json.dumps");
    }
    if said.contains("surrogate") || said.contains("hex escape") {
        return Some(
            "\\ud800 to \\udfff are halves of a character and stand in pairs; write the whole character, or remove the half",
        );
    }
    if said.contains("control character") {
        return Some("write line ends and tabs as \\n and \\t");
    }
    if said.contains("recursion") {
        return Some("rows are read to a depth of 128");
    }
    if said.contains("trailing characters") {
        return Some("write one object a line");
    }
    if error.classify() == Category::Eof {
        return Some(
            "the object does not end in this line: `jq -c .` writes one object a line; if it is the last line, the file is truncated",
        );
    }
    None
}
