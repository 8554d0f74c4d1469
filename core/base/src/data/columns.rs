//! Columns of a row, and how messages name them.

use crate::error::did_you_mean;
use serde_json::Value;

/// Names and characters that a message shows.
const NAMES: usize = 8;
const SHOWN: usize = 40;

/// A column that is there and not null, as writers of tables mark what a row does not have.
pub fn column<'a>(columns: &'a Value, name: &str) -> Option<&'a Value> {
    columns.get(name).filter(|v| !v.is_null())
}

/// A column that a row must have.
pub fn needed<'a>(columns: &'a Value, name: &str) -> Result<&'a Value, String> {
    column(columns, name).ok_or_else(|| missing(columns, &[name]))
}

/// A number that a row may have.
pub fn number(columns: &Value, name: &str) -> Result<Option<f64>, String> {
    let Some(value) = column(columns, name) else { return Ok(None) };
    // Models compute in f32.
    let number = value.as_f64().filter(|n| n.abs() <= f64::from(f32::MAX));
    let wrong = || {
        format!(
            "column \"{name}\" is {}; write a number without quotes, of at most 3.4e38, or null where there is none",
            found(value)
        )
    };
    number.map(Some).ok_or_else(wrong)
}

/// A truth value, or what it is where the row says nothing.
pub fn flag(columns: &Value, name: &str, otherwise: bool) -> Result<bool, String> {
    match column(columns, name) {
        None => Ok(otherwise),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(format!("column \"{name}\" is {}; write true or false", found(other))),
    }
}

/// That a row has none of some columns, and what it has.
pub fn missing(columns: &Value, wanted: &[&str]) -> String {
    let quoted: Vec<String> = wanted.iter().map(|w| format!("\"{w}\"")).collect();
    let none = match quoted.as_slice() {
        [one] if columns.get(wanted[0]).is_some() => {
            return format!("column {one} is null; give it a value, or remove the row");
        }
        [one] => format!("has no column {one}"),
        several => format!("has none of the columns {}", several.join(", ")),
    };
    let Value::Object(map) = columns else { return none };
    if map.is_empty() {
        return format!("{none}, and no other");
    }
    let near = map.keys().map(|name| did_you_mean(name, wanted.iter().copied())).find(|s| !s.is_empty());
    let mend = near.unwrap_or_else(|| "; rename the column that is meant".into());
    format!("{none}, only {}{mend}", names(map))
}

/// The names of an object's fields, in quotes.
fn names(map: &serde_json::Map<String, Value>) -> String {
    let one =
        |(name, value): (&String, &Value)| format!("{}{}", quoted(name), if value.is_null() { " (null)" } else { "" });
    let mut shown: Vec<String> = map.iter().take(NAMES).map(one).collect();
    if map.len() > NAMES {
        shown.push(format!("{} more", map.len() - NAMES));
    }
    shown.join(", ")
}

/// What a value is, in a few words.
pub fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the text {}", quoted(s)),
        Value::Array(list) if list.is_empty() => "an empty list".into(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) if map.is_empty() => "an empty object".into(),
        Value::Object(map) => format!("an object with {}", names(map)),
    }
}

/// The beginning of a text, quoted, with control characters escaped.
pub fn quoted(text: &str) -> String {
    let beginning: String = text.chars().take(SHOWN).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!("{:?}", beginning + more)
}

/// Whether a field says nothing.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
