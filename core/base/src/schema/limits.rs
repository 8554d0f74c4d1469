//! One value against types, bounds and formats, in words.

use crate::Weights;
use crate::error::did_you_mean;
use serde_json::Value;

pub fn not_among(choices: &[&Value], value: &Value) -> Option<String> {
    if choices.contains(&value) {
        return None;
    }
    let names: Vec<String> = choices.iter().filter(|c| !c.is_null()).map(|c| c.to_string()).collect();
    let near = value.as_str().map(|v| did_you_mean(v, choices.iter().filter_map(|c| c.as_str()))).unwrap_or_default();
    let one_of = if names.len() == 1 { "" } else { "one of " };
    Some(format!("must be {one_of}{}, not {}{near}", names.join(", "), shown(value)))
}

pub fn is(name: &str, value: &Value) -> bool {
    match name {
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

pub fn not_of(types: &[&str], value: &Value) -> String {
    let words = |name: &&str| match *name {
        "number" => Some("a number"),
        "integer" => Some("a whole number"),
        "string" => Some("text"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a map"),
        _ => None,
    };
    let mut words: Vec<&str> = types.iter().filter_map(words).collect();
    words.dedup();
    format!("must be {}, not {}", words.join(" or "), shown(value))
}

/// A keyword, what must hold of a number and its bound, and words for it.
type Bound = (&'static str, fn(f64, f64) -> bool, &'static str);

/// What of number, text, list or map is too small or too large.
pub fn out_of_range(schema: &Value, value: &Value) -> Option<String> {
    const AT_LEAST: fn(f64, f64) -> bool = |x, b| x >= b;
    const AT_MOST: fn(f64, f64) -> bool = |x, b| x <= b;
    const NUMBER: &[Bound] = &[
        ("minimum", AT_LEAST, "at least"),
        ("maximum", AT_MOST, "at most"),
        ("exclusiveMinimum", |x, b| x > b, "above"),
        ("exclusiveMaximum", |x, b| x < b, "below"),
    ];
    const TEXT: &[Bound] = &[("minLength", AT_LEAST, "at least"), ("maxLength", AT_MOST, "at most")];
    const LIST: &[Bound] = &[("minItems", AT_LEAST, "at least"), ("maxItems", AT_MOST, "at most")];
    const MAP: &[Bound] = &[("minProperties", AT_LEAST, "at least"), ("maxProperties", AT_MOST, "at most")];
    let (bounds, count, what) = match value {
        Value::Number(number) => {
            let (bound, words) = broken(schema, NUMBER, number.as_f64()?)?;
            return Some(format!("must be {words} {bound}, not {}", shown(value)));
        }
        Value::String(text) => (TEXT, text.chars().count(), "characters"),
        Value::Array(list) => (LIST, list.len(), "items"),
        Value::Object(map) => (MAP, map.len(), "entries"),
        _ => return None,
    };
    match (count, broken(schema, bounds, count as f64)?) {
        (0, (1.0, _)) => Some("must not be empty".into()),
        (_, (bound, words)) => Some(format!("must have {words} {bound} {what}, not {count}")),
    }
}

/// The first bound that does not hold, with its words.
fn broken(schema: &Value, bounds: &[Bound], number: f64) -> Option<(f64, &'static str)> {
    let of = |(keyword, holds, words): &Bound| {
        schema[*keyword].as_f64().filter(|bound| !holds(number, *bound)).map(|bound| (bound, *words))
    };
    bounds.iter().find_map(of)
}

pub fn out_of_format(schema: &Value, value: &Value) -> Option<String> {
    match (schema["format"].as_str()?, value) {
        ("regex", Value::String(text)) => {
            regex::Regex::new(text).err().map(|e| format!("is no regular expression: {e}"))
        }
        ("name", Value::String(text)) => {
            let odd = text.trim() != text || text.chars().any(char::is_control);
            odd.then(|| format!("must be a name on one line, without spaces around it, not {}", shown(value)))
        }
        ("weights", Value::Array(list)) => {
            let numbers = list.iter().filter_map(Value::as_f64).collect();
            Weights::new(numbers).err().map(|e| format!("is wrong: {e}"))
        }
        _ => None,
    }
}

/// A value in an error message.
pub fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
