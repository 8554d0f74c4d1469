//! From the bytes of a reply to JSON: encodings, character sets, and what is no JSON at all.

use super::failure::{Failed, header};
use encoding_rs::{Encoding, UTF_8};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use motrain_core::shown::quoted;
use regex::Regex;
use serde_json::Value;
use std::io::Read;
use std::sync::LazyLock;
use ureq::http::HeaderMap;

/// Encodings that are asked for.
pub const ENCODINGS: &str = "gzip, deflate";

/// Bytes of a reply, also unpacked.
pub const LIMIT: u64 = 64 << 20;

/// The text of a reply, in whatever encoding and character set it came.
pub fn text(headers: &HeaderMap, bytes: Vec<u8>) -> Result<String, Failed> {
    let named =
        headers.get_all("content-encoding").iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let mut encodings: Vec<String> =
        named.split(',').map(|e| e.trim().to_lowercase()).filter(|e| !e.is_empty()).collect();
    if encodings.is_empty() && bytes.starts_with(&[0x1f, 0x8b]) {
        encodings.push("gzip".into());
    }
    let bytes = encodings.iter().rev().try_fold(bytes, |bytes, encoding| unpacked(encoding, &bytes))?;
    let charset =
        header(headers, "content-type").and_then(|t| t.split(';').find_map(|p| p.trim().strip_prefix("charset=")));
    let charset = match charset.map(|c| c.trim_matches('"')) {
        Some(name) => Encoding::for_label(name.as_bytes())
            .ok_or_else(|| Failed::never(format!("answered in an unknown character set, \"{}\"", quoted(name))))?,
        None => UTF_8,
    };
    // A byte-order mark at the beginning says more than the header.
    match charset.decode(&bytes) {
        (text, _, false) => Ok(text.into_owned()),
        (text, used, true) => Err(Failed::never(format!("gave text that is not {}: {}", used.name(), quoted(&text)))),
    }
}

fn unpacked(encoding: &str, bytes: &[u8]) -> Result<Vec<u8>, Failed> {
    match encoding {
        "identity" => Ok(bytes.to_vec()),
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(bytes), encoding),
        // Some servers leave out the frame that the standard asks for.
        "deflate" => read(ZlibDecoder::new(bytes), encoding).or_else(|_| read(DeflateDecoder::new(bytes), encoding)),
        other => Err(Failed::never(format!(
            "answered in the encoding \"{}\", which was not asked for ({ENCODINGS} were): turn it off in the server or the proxy",
            quoted(other)
        ))),
    }
}

fn read(from: impl Read, encoding: &str) -> Result<Vec<u8>, Failed> {
    let mut out = Vec::new();
    match from.take(LIMIT + 1).read_to_end(&mut out) {
        Err(e) => Err(Failed::later(format!("gave a reply that cannot be unpacked ({encoding}): {e}"))),
        Ok(n) if n as u64 > LIMIT => Err(too_large()),
        Ok(_) => Ok(out),
    }
}

pub fn too_large() -> Failed {
    Failed::never(format!("gave a reply of more than {} MiB", LIMIT >> 20))
}

/// A reply as JSON. Python's bare NaN and Infinity become text, so that one score that is no number does not cost the others.
pub fn json(text: &str) -> Result<Value, Failed> {
    static WORDS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#""(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b"#).ok());
    let text = text.trim();
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(e) => e,
    };
    let quote = |found: &regex::Captures| {
        if found[0].starts_with('"') { found[0].to_owned() } else { format!("\"{}\"", &found[0]) }
    };
    let words = WORDS.as_ref().map(|words| words.replace_all(text, quote));
    if let Some(value) = words.and_then(|quoted| serde_json::from_str(&quoted).ok()) {
        return Ok(value);
    }
    Err(match text {
        "" => Failed::later("gave an empty reply"),
        _ if text.starts_with('<') => Failed::never(format!(
            "gave a web page instead of JSON: {}; check the path of url, and whether a log-in or a proxy stands before it",
            quoted(text)
        )),
        _ if text.starts_with("data:") || text.starts_with("event:") => Failed::never(format!(
            "gave a stream of events, which was not asked for: {}; turn streaming off in the server",
            quoted(text)
        )),
        _ if error.is_eof() => Failed::later(format!("gave a reply that ends too early: {}", quoted(text))),
        _ => Failed::never(format!("gave no JSON ({error}): {}", quoted(text))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use serde_json::json;
    use std::io::Write;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn encodings_are_undone() {
        let said = b"{\"a\": 1}".as_slice();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(said).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(said).unwrap();
        for (encoding, bytes) in [
            ("identity", said.to_vec()),
            ("gzip", gzip(said)),
            ("X-GZIP", gzip(said)),
            ("gzip, gzip", gzip(&gzip(said))),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ] {
            assert_eq!(text(&headers(&[("content-encoding", encoding)]), bytes).unwrap(), "{\"a\": 1}", "{encoding}");
        }
        assert_eq!(text(&headers(&[]), gzip(said)).unwrap(), "{\"a\": 1}", "packed without a word");
        let refused = text(&headers(&[("content-encoding", "br")]), said.to_vec()).unwrap_err();
        assert!(refused.what.contains("\"br\""), "{}", refused.what);
        let bomb = gzip(&vec![b' '; LIMIT as usize + 1]);
        assert_eq!(text(&headers(&[("content-encoding", "gzip")]), bomb).unwrap_err().what, too_large().what);
    }

    #[test]
    fn character_sets_are_read() {
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("[\"é\"]".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        for (kind, bytes) in [
            ("application/json", b"\xef\xbb\xbf[\"\xc3\xa9\"]".to_vec()),
            ("application/json; charset=utf-8", "[\"é\"]".into()),
            ("application/json; charset=\"ISO-8859-1\"", b"[\"\xe9\"]".to_vec()),
            ("application/json", utf16),
        ] {
            assert_eq!(text(&headers(&[("content-type", kind)]), bytes).unwrap(), "[\"é\"]", "{kind}");
        }
        assert!(text(&headers(&[]), b"[\"\xe9\"]".to_vec()).unwrap_err().what.contains("not UTF-8"));
    }

    #[test]
    fn python_numbers_are_kept_as_words() {
        assert_eq!(json("{\"rewards\": [NaN, -Infinity, 1]}").unwrap(), json!({"rewards": ["NaN", "-Infinity", 1]}));
        assert_eq!(json("[NaN, \"a NaN \\\" Infinity\"]").unwrap(), json!(["NaN", "a NaN \" Infinity"]));
    }

    #[test]
    fn what_is_no_json_is_named() {
        let rows = [
            "",
            " \n",
            "<html>log in</html>",
            "data: {\"x\": 1}\n\ndata: [DONE]",
            "{\"rewards\": [1, 2",
            "OK",
            "{\"a\": 1} {",
            "[1e999]",
        ];
        let said = rows.map(|row| {
            let failed = json(row).unwrap_err();
            format!("{:?}: {}", failed.again, failed.what)
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
