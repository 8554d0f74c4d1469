//! Methods of Python's strings, lists and dicts that chat templates call and minijinja does not bring.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// The widest field that `ljust` and its like pad to.
const WIDEST: usize = 1 << 16;

pub fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match on_text(text, method, args)? {
            Some(found) => Ok(found),
            None => pycompat::unknown_method_callback(state, value, method, args),
        },
        None if method == "copy" && matches!(value.kind(), ValueKind::Seq | ValueKind::Map) => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        None if method == "index" && value.kind() == ValueKind::Seq => {
            let (wanted,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *wanted);
            at.map(Value::from).ok_or_else(|| failed("list.index: the value is not in the list"))
        }
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn failed(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn on_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let three = |before: &str, mark: &str, after: &str| {
        Value::from(Tuple::from([Value::from(before), Value::from(mark), Value::from(after)]))
    };
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (mark,): (&str,) = from_args(args)?;
            text.split_once(mark).map_or_else(|| three(text, "", ""), |(a, b)| three(a, mark, b))
        }
        "rpartition" => {
            let (mark,): (&str,) = from_args(args)?;
            text.rsplit_once(mark).map_or_else(|| three("", "", text), |(a, b)| three(a, mark, b))
        }
        "rsplit" => rsplit(text, args)?,
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            split_lines(text, keep.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            let found = if method == "index" { text.find(wanted) } else { text.rfind(wanted) };
            let at = found.ok_or_else(|| failed("str.index: the text is not in the string"))?;
            Value::from(text[..at].chars().count())
        }
        "ljust" | "rjust" | "center" | "zfill" => Value::from(padded(text, method, args)?),
        "format" if text.contains(":{") || widest(text) > WIDEST => {
            return Err(failed("str.format: a field is too wide, or its width is a field"));
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))
        }
        _ => return Ok(None),
    }))
}

/// The largest number in the fields of a format, as their widths are.
fn widest(format: &str) -> usize {
    let fields = format.split('{').skip(1).filter_map(|field| field.split('}').next());
    let numbers = fields.flat_map(|field| field.split(|c: char| !c.is_ascii_digit())).filter(|n| !n.is_empty());
    numbers.map(|n| n.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (mark, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let pieces = most.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match mark {
        Some("") => return Err(failed("str.rsplit: the separator is empty")),
        Some(mark) => text.rsplitn(pieces, mark).collect(),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim());
            while !rest.is_empty() {
                let cut = if parts.len() + 1 == pieces { None } else { rest.rfind(char::is_whitespace) };
                let from = cut.map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
                parts.push(&rest[from..]);
                rest = rest[..cut.unwrap_or(0)].trim_end();
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Lines at all ends that Python knows, not only at "\n".
fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let ends =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let Some(at) = rest.find(ends) else {
            lines.push(rest);
            break;
        };
        let end = rest[at..].chars().next().map_or(1, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

fn padded(text: &str, method: &str, args: &[Value]) -> Result<String, Error> {
    let (width, fill): (usize, Option<char>) = from_args(args)?;
    let missing = width.min(WIDEST).saturating_sub(text.chars().count());
    let fill = fill.unwrap_or(if method == "zfill" { '0' } else { ' ' });
    let fill = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(match method {
        "ljust" => text.to_owned() + &fill(missing),
        "center" => {
            // Python gives the odd space to the left where the width is odd.
            let left = missing / 2 + (missing & width & 1);
            fill(left) + text + &fill(missing - left)
        }
        "zfill" if text.starts_with(['+', '-']) => text[..1].to_owned() + &fill(missing) + &text[1..],
        _ => fill(missing) + text,
    })
}
