//! Addresses of servers: checked before any request, and printed without what is secret in them.

use crate::http::{proxy, secret};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use motrain_core::options::Checked;
use motrain_core::shown::quoted;
use url::Url;

/// The option `url`.
pub fn check(url: &str) -> Checked {
    let url = parse(url).map_err(|what| ("url", what))?;
    proxy::of(&url).map(|_| ()).map_err(|what| ("url", what))
}

/// An address with what its `${VARIABLES}` hold.
pub fn parse(text: &str) -> Result<Url, String> {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(format!("must begin with http:// or https://, not \"{}\"", without_secrets(text)));
    }
    // The parser takes "http:///path" for a host.
    let host = lower.split_once("//").map_or("", |(_, rest)| rest);
    if host.starts_with(['/', '?', '#', '\\']) {
        return Err(format!("names no host: \"{}\"", without_secrets(text)));
    }
    // The parser drops line breaks and tabs without a word.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("holds a blank or a control character: \"{}\"", without_secrets(text)));
    }
    let url = Url::parse(text).map_err(|e| format!("is no address ({e}): \"{}\"", without_secrets(text)));
    let mut url = url?;
    secret::fill(&mut url, |name| std::env::var(name).ok())?;
    Ok(url)
}

/// An address as messages name it: without user, password and the values of its query, where keys may stand.
pub fn shown(url: &Url) -> String {
    without_secrets(url.as_str())
}

/// The same for text that may be no address at all.
fn without_secrets(text: &str) -> String {
    let (text, query) = match text.split_once('?') {
        Some((before, _)) => (before, "?…"),
        None => (text, ""),
    };
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '#']).map_or(text.len(), |at| start + at);
    let host = text[start..end].rfind('@').map_or(start, |at| start + at + 1);
    quoted(&format!("{}{}{query}", &text[..start], &text[host..]))
}

/// The value of an Authorization header for the user and password of an address.
pub fn basic(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair = decoded(url.username());
    pair.push(b':');
    pair.extend(decoded(url.password().unwrap_or("")));
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// Bytes written as `%2F`, decoded.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// What may be secret in an address, as it was given and as it is sent: the password, a user without one, the values of the query.
pub fn secrets(url: &Url) -> Vec<String> {
    let user = url.password().unwrap_or(url.username()).to_owned();
    let decoded = String::from_utf8_lossy(&decoded(&user)).into_owned();
    let query = url.query_pairs().map(|(_, value)| value.into_owned());
    // What is shorter hides nothing and would garble messages.
    [user, decoded].into_iter().chain(query).filter(|secret| secret.chars().count() >= 4).collect()
}

/// The address without user, password and fragment, as it is asked for.
pub fn bare(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for addresses without a host, which `parse` refuses.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (given, expected) in [
            ("https://user:pass@host:8000/v1/x", "https://host:8000/v1/x"),
            ("https://host/v1?key=abc&v=2", "https://host/v1?…"),
            ("https://user:p@ss@host/p@th", "https://host/p@th"),
            ("htp://user:pass@host", "htp://host"),
            ("user:pass@host/x", "host/x"),
            ("http://[::1]:80/x", "http://[::1]:80/x"),
            ("http://h\u{1b}[31m", "http://h\\u{1b}[31m"),
        ] {
            assert_eq!(without_secrets(given), expected);
        }
        assert_eq!(basic(&Url::parse("http://a:b%2Fc@h").unwrap()).unwrap(), "Basic YTpiL2M=");
        assert_eq!(bare(&Url::parse("http://a:b@h/x?k=1#f").unwrap()).as_str(), "http://h/x?k=1");
    }

    #[test]
    fn what_is_no_address_is_refused_when_options_are_checked() {
        let wrong = [
            "ftp://host/x",
            "localhost:5000",
            "http://",
            "http:///x",
            "http://host:99999/",
            "http://a b/",
            " http://host",
            "http://host/\nx",
            "http://user:secret@",
            "http:host",
            "http://[::1/x",
            "http://user:secret@ho st/",
        ];
        let said: Vec<String> = wrong.iter().map(|url| check(url).unwrap_err().1).collect();
        assert!(said.iter().all(|s| !s.contains("secret")));
        insta::assert_snapshot!(said.join("\n"));
        for right in ["http://localhost:5000/get_reward", "HTTPS://host", "http://[::1]:8000/v1", "http://h/?k=v"] {
            assert!(check(right).is_ok(), "{right}");
        }
    }
}
