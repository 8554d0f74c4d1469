//! Numbers as people and models write them, with what they are out of.

use regex::Regex;
use std::sync::LazyLock;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    pub value: f64,
    /// What it is out of: 10 in "8/10".
    pub of: Option<f64>,
    pub percent: bool,
}

/// A number, or why there is none that is sure.
pub type Stated = Result<Number, String>;

const NUMBER: &str = r"[+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?";

/// What follows a number and makes two of it: "7-8", "7 or 8", "7, maybe 8".
const RANGE: &str = r"^\s*[,;(]?\s*(?:[-–—−~…±+]+|\.\.+|\b(?:to|or|and|through|maybe|perhaps|possibly|if not|plus|minus)\b)(?:\s|\b(?:an?|maybe|even|perhaps)\b)*[+-]?[.,]?[0-9]";

/// Words that may follow a score; others would be what is counted ("3 parts").
const AFTER: &str = r"^\s+(?:points?|stars?|out|of|because|since|as|for|but|due|given|on|in|with|overall|the|it|this|that|which|here|so|based|from|i|my|and|is|was|if|though|although|while|when|to)\b";

struct Patterns {
    number: Regex,
    of: Regex,
    percent: Regex,
    range: Regex,
    after: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let regex = |pattern: &str| Regex::new(pattern).ok();
    Some(Patterns {
        number: regex(&format!("^{NUMBER}"))?,
        of: regex(&format!(
            r"(?i)^\s*(?:/|(?:points?\s+|stars?\s+)?(?:out\s+)?of\b(?:\s+an?\b)?(?:\s+(?:possible|maximum|total)\b)?)\s*({NUMBER})"
        ))?,
        percent: regex(r"(?i)^\s*(?:%|percent\b)")?,
        range: regex(&format!("(?i){RANGE}"))?,
        after: regex(&format!("(?i){AFTER}"))?,
    })
});

fn patterns() -> Result<&'static Patterns, String> {
    PATTERNS.as_ref().ok_or_else(|| "motrain's patterns do not compile".into())
}

/// A text that is nothing but a number, by the word of a user's pattern. So ".7" and "−7" are numbers too, which by themselves may
/// be the dot of a list and a dash.
pub fn exactly(text: &str) -> Stated {
    let text = plain(text.trim()).replace('\u{2212}', "-");
    let (sign, digits) = text.split_at(text.find(|c| c != '-' && c != '+').unwrap_or(0));
    if digits.starts_with('.') { alone(&format!("{sign}0{digits}")) } else { alone(&text) }
}

/// Other characters for the same: full-width digits, blanks of all kinds.
pub fn plain(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{3000}' => ' ',
        c => c,
    };
    text.chars()
        .filter(|c| !matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{fe0f}' | '\u{20e3}'))
        .map(plain)
        .collect()
}

/// A text that is a number in some decoration.
pub fn alone(text: &str) -> Stated {
    let decoration = |c: char| c.is_whitespace() || r#"*_`"'“”‘’()[]{}<>#$:=!"#.contains(c);
    let inner = text.trim_matches(decoration);
    // Two of a kind: a bullet and a minus look alike.
    if inner.strip_prefix('-').is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
        return Err(format!("the dash in \"{inner}\" may be a minus"));
    }
    let (number, rest) = number_at(inner, 0)?;
    let rest = rest.trim_matches(decoration).trim_end_matches('.').to_lowercase();
    let unit = ["", "point", "points", "star", "stars"].contains(&rest.as_str());
    if unit { Ok(number) } else { Err(format!("\"{inner}\" is more than a number")) }
}

/// The number at a place in a sentence, if what follows leaves it one.
pub fn whole(line: &str, at: usize) -> Stated {
    let (number, rest) = number_at(line, at)?;
    if rest.starts_with(char::is_whitespace)
        && rest.trim_start().starts_with(char::is_alphabetic)
        && !patterns()?.after.is_match(rest)
    {
        return Err(format!("\"{}\" may count something", line[at..].trim()));
    }
    Ok(number)
}

/// The number that begins at a place, and what follows it.
pub fn number_at(text: &str, at: usize) -> Result<(Number, &str), String> {
    let p = patterns()?;
    let found = p.number.find(&text[at..]).ok_or("it begins with none")?;
    // "A4", "1.2": a number that is a part of something.
    let before = text[..at].chars().next_back();
    let token = found.as_str().trim_end_matches(['.', ',']);
    let rest = &text[at + token.len()..];
    let odd = || Err(format!("\"{}\" is no plain number", text[at..].split_whitespace().next().unwrap_or("")));
    if before.is_some_and(|c| c.is_alphanumeric() || ".,-–—−~/+±".contains(c)) {
        return odd();
    }
    let Some(value) = value(token) else { return odd() };
    let (of, rest) = match p.of.captures(rest) {
        Some(c) => {
            let of = c.get(1).map_or("", |m| m.as_str()).trim_end_matches(['.', ',']);
            let end = c.get(1).map_or(0, |m| m.start()) + of.len();
            (Some(of), &rest[end..])
        }
        None => (None, rest),
    };
    let of = match of.map(self::value) {
        Some(None) => return odd(),
        of => of.flatten(),
    };
    let percent = p.percent.find(rest);
    let rest = percent.map_or(rest, |m| &rest[m.end()..]);
    let joined = rest.starts_with(|c: char| c.is_alphanumeric() || "_/%+½-–—".contains(c));
    let time = rest.strip_prefix(':').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    if joined && !rest.starts_with("- ") && !rest.starts_with("—") || time {
        return odd();
    }
    if p.range.is_match(rest) {
        return Err(format!("\"{}\" names two numbers", text[at..].trim()));
    }
    Ok((Number { value, of, percent: percent.is_some() }, rest))
}

/// "7", "7.5", "7,5", "1e-1" and "1,234,567"; not "1,000", which is one thousand or one.
fn value(token: &str) -> Option<f64> {
    let (mantissa, exponent) = match token.find(['e', 'E']) {
        Some(at) => token.split_at(at),
        None => (token, ""),
    };
    let parts: Vec<&str> = mantissa.split(',').collect();
    let whole = match parts.as_slice() {
        [one] => (*one).to_owned(),
        [left, right] if !right.contains('.') && right.len() != 3 => format!("{left}.{right}"),
        [first, groups @ ..] => {
            let (last, middle) = groups.split_last()?;
            let last_whole = last.split('.').next()?;
            let three = |g: &&str| g.len() == 3;
            let clear = groups.len() > 1 || last.contains('.');
            if !clear || first.len() > 4 || !middle.iter().all(three) || last_whole.len() != 3 {
                return None;
            }
            parts.concat()
        }
        [] => return None,
    };
    format!("{whole}{exponent}").parse::<f64>().ok().filter(|v| v.is_finite())
}

/// A number's place on a scale, if it was written on that scale.
pub fn on_scale(number: Number, scale: Option<[f64; 2]>) -> Result<f64, String> {
    let Number { value, of, percent } = number;
    let Some([low, high]) = scale else {
        return match of {
            _ if percent => Err(format!("{value} % of what? `scale` says it")),
            Some(of) if !(0.0..=of).contains(&value) => Err(format!("{value} is not between 0 and {of}")),
            _ => Ok(value),
        };
    };
    let value = match (of, percent) {
        (Some(of), _) if of != high => return Err(format!("{value}/{of} is on another scale than {low} to {high}")),
        (_, true) if high == 1.0 && low == 0.0 => value / 100.0,
        (_, true) if high != 100.0 => return Err(format!("{value} % is on another scale than {low} to {high}")),
        _ => value,
    };
    if (low..=high).contains(&value) { Ok(value) } else { Err(format!("{value} is outside the scale {low} to {high}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_number_or_none() {
        for text in ["8", "**8**", "8/10", " 8 points.", "<8>"] {
            assert_eq!(exactly(text).map(|n| n.value), Ok(8.0), "{text}");
        }
        assert_eq!(exactly(".7").map(|n| n.value), Ok(0.7));
        assert_eq!(exactly("−.7").map(|n| n.value), Ok(-0.7));
        for text in ["", "8 9", "merit 8", "8 parts", "7-8"] {
            assert!(exactly(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_counts_on_its_own_scale() {
        let on = |text: &str, scale: Option<[f64; 2]>| exactly(text).and_then(|n| on_scale(n, scale));
        for (text, scale, expected) in [
            ("8/10", None, Some(8.0)),
            ("12/10", None, None),
            ("80%", None, None),
            ("80%", Some([0.0, 100.0]), Some(80.0)),
            ("80 percent", Some([0.0, 1.0]), Some(0.8)),
            ("80%", Some([0.0, 10.0]), None),
            ("8/10", Some([0.0, 10.0]), Some(8.0)),
            ("8/10", Some([0.0, 5.0]), None),
            ("80/100", Some([0.0, 10.0]), None),
            ("11", Some([0.0, 10.0]), None),
            ("-1", Some([0.0, 10.0]), None),
            ("-1", Some([-5.0, 5.0]), Some(-1.0)),
            ("10/10", Some([1.0, 10.0]), Some(10.0)),
        ] {
            assert_eq!(on(text, scale).ok(), expected, "{text} {scale:?}");
        }
    }
}
