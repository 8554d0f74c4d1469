//! What chat templates take from Python: how values are printed, `tojson` with json.dumps's arguments, methods of strings.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use std::fmt::Write;

/// Values inside values inside values …: deeper ones are refused, for they are written by recursion.
const DEEPEST: usize = 100;

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Prints a value as Python's `str` does.
pub fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => out.write_str(&str(value)?),
        _ => write!(out, "{value}"),
    };
    written.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

/// The `string` filter.
pub fn string(value: &Value) -> Result<Value, Error> {
    Ok(if value.kind() == ValueKind::String { value.clone() } else { Value::from(str(value)?) })
}

fn str(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    repr(value, 0, &mut text)?;
    Ok(text)
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(invalid("a value is nested too deeply to be printed"));
    }
    match value.kind() {
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => out.push_str(&number(value, ["nan", "inf", "-inf"])),
        ValueKind::Seq => {
            let open = if value.is_tuple() { ["(", ")"] } else { ["[", "]"] };
            out.push_str(open[0]);
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count == 0 { "" } else { ", " });
                repr(&item, depth + 1, out)?;
                count += 1;
            }
            out.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
            out.push_str(open[1]);
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A string as Python writes it in a list: single quotes, unless it holds some and no double ones.
fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || (0x7f..0xa1).contains(&u32::from(c)) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// A number as Python writes it; `other` are the words for what is no number and for the infinities.
fn number(value: &Value, other: [&str; 3]) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return other[0].into();
    }
    if float.is_infinite() {
        return other[if float > 0.0 { 1 } else { 2 }].into();
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{float:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// json.dumps with the defaults that transformers gives it.
struct Json {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub fn tojson(state: &State, value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let given: Option<Value> = named.get(name)?;
        Ok(positional.get(at).cloned().or(given).filter(|v| !v.is_none()))
    };
    let (ascii, indent) = (argument(0, "ensure_ascii")?, argument(1, "indent")?);
    let (separators, sort) = (argument(2, "separators")?, argument(3, "sort_keys")?);
    named.assert_all_used()?;
    let indent = indent.map(|v| match v.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => usize::try_from(v).map(|n| " ".repeat(n.min(64))),
    });
    let indent = indent.transpose()?;
    let mut separators = match separators {
        None => vec![if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
        Some(pair) => pair.try_iter()?.map(|v| str(&v)).collect::<Result<_, _>>()?,
    };
    let (Some(key), Some(item), None) = (separators.pop(), separators.pop(), separators.pop()) else {
        return Err(invalid("tojson: separators are two strings, between items and behind keys"));
    };
    let true_or = |v: Option<Value>| v.is_some_and(|v| v.is_true());
    let json = Json { ascii: true_or(ascii), indent, item, key, sort: true_or(sort) };
    let mut out = String::new();
    json.write(state, value, 0, &mut out)?;
    Ok(out)
}

impl Json {
    fn write(&self, state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(invalid("tojson: a value is nested too deeply"));
        }
        state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, ["NaN", "Infinity", "-Infinity"])),
            ValueKind::String => self.text(state, value.as_str().unwrap_or_default(), out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], items, depth, out, |item, out| self.write(state, &item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.list(['{', '}'], keys, depth, out, |key, out| {
                    match key.as_str() {
                        Some(text) => self.text(state, text, out)?,
                        None => {
                            out.push('"');
                            self.write(state, &key, DEEPEST, out)?;
                            out.push('"');
                        }
                    }
                    out.push_str(&self.key);
                    self.write(state, &value.get_item(&key)?, depth + 1, out)
                })?;
            }
            kind => return Err(invalid(format!("tojson: a value of type {kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn list(
        &self,
        ends: [char; 2],
        items: Vec<Value>,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize| self.indent.as_ref().map_or(String::new(), |i| format!("\n{}", i.repeat(depth)));
        out.push(ends[0]);
        let empty = items.is_empty();
        for (at, item) in items.into_iter().enumerate() {
            out.push_str(if at == 0 { "" } else { &self.item });
            out.push_str(&line(depth + 1));
            write(item, out)?;
        }
        if !empty {
            out.push_str(&line(depth));
        }
        out.push(ends[1]);
        Ok(())
    }

    fn text(&self, state: &State, text: &str, out: &mut String) -> Result<(), Error> {
        state.consume_fuel(text.len() as u64 / 64)?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}
