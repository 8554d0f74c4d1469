//! Text from elsewhere (a server's reply, a model's answer, a name in a file), made safe to print: it can neither steer a terminal nor
//! break XML nor fill the screen.

use std::borrow::Cow;

/// Characters of foreign text that a message quotes.
pub const QUOTED: usize = 300;

/// The text with every character that steers a terminal, reverses the writing or has no place in XML written as `\u{1b}`; line breaks
/// and tabs are left.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(unprintable) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if unprintable(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// The same on one line, cut at `most` characters with a note of how many there are.
pub fn one_line(text: &str, most: usize) -> String {
    let text = text.trim();
    let start: String =
        text.chars().take(most).map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
    let start = printable(&start);
    match text.chars().count() {
        all if all > most => format!("{start}… ({all} characters)"),
        _ => start.into_owned(),
    }
}

/// `one_line` at the length that messages quote.
pub fn quoted(text: &str) -> String {
    one_line(text, QUOTED)
}

/// Text of the user's own, with what may be secret in the addresses in it starred out: user, password, values of the query; as long as before,
/// so that columns stay.
pub fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| c.is_whitespace() || "\"'`".contains(c)).unwrap_or(after.len());
        out += before;
        out += &starred(&after[..end]);
        rest = &after[end..];
    }
    out + rest
}

fn starred(address: &str) -> String {
    let host = address.find(['/', '?', '#']).unwrap_or(address.len());
    let user = address[..host].rfind('@').unwrap_or(0);
    let query = address.find('?').unwrap_or(address.len());
    let mut value = false;
    let star = |(at, c): (usize, char)| {
        let hidden = at < user || (value && c != '&');
        value = at >= query && c != '&' && (value || c == '=');
        if hidden { '*' } else { c }
    };
    address.char_indices().map(star).collect()
}

fn unprintable(c: char) -> bool {
    let reverses = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || reverses
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(printable("plain\n\ttext, é, 字"), "plain\n\ttext, é, 字");
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\u{9b}c\0"), "a\\u{1b}[2Jb\\u{7}\\u{9b}c\\u{0}");
        assert_eq!(printable("\u{202e}txt.exe\u{ffff}"), "\\u{202e}txt.exe\\u{ffff}");
        assert_eq!(one_line("  two\r\nlines\t\u{1b}[31m ", 100), "two  lines \\u{1b}[31m");
    }

    #[test]
    fn passwords_in_addresses_are_starred_out() {
        let line = "reward(\"R\", #{ url: \"http://me:pä@ss@host/a@b\", other: \"https://host/x\" }) // a@b";
        let starred = "reward(\"R\", #{ url: \"http://********@host/a@b\", other: \"https://host/x\" }) // a@b";
        assert_eq!(without_passwords(line), starred);
        assert_eq!(without_passwords("no address"), "no address");
    }

    #[test]
    fn foreign_text_is_cut_between_characters_and_says_how_long_it_is() {
        assert_eq!(one_line("ééééé", 5), "ééééé");
        assert_eq!(one_line("éééééé", 5), "ééééé… (6 characters)");
        let long = "x".repeat(1 << 20);
        assert_eq!(quoted(&long), format!("{}… (1048576 characters)", "x".repeat(QUOTED)));
    }
}
