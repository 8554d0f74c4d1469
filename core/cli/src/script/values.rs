//! Values of a script as JSON: only what JSON can say, and never silently changed.

use rhai::{Array, Dynamic, Map};
use serde_json::{Number, Value};

/// Maps in maps and lists in lists.
const DEPTH: usize = 32;

pub fn json_of(value: &Dynamic) -> Result<Value, String> {
    convert(value, "", 0)
}

fn convert(value: &Dynamic, path: &str, depth: usize) -> Result<Value, String> {
    if depth > DEPTH {
        let begin: String = path.chars().take(40).collect();
        return Err(format!("{begin}… are nested more than {DEPTH} deep"));
    }
    if let Some(map) = value.read_lock::<Map>() {
        let mut out = serde_json::Map::new();
        for (key, value) in map.iter() {
            let inner = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            out.insert(key.to_string(), convert(value, &inner, depth + 1)?);
        }
        return Ok(Value::Object(out));
    }
    if let Some(list) = value.read_lock::<Array>() {
        let item = |(i, value)| convert(value, &format!("{path}[{i}]"), depth + 1);
        return list.iter().enumerate().map(item).collect();
    }
    scalar(value).ok_or_else(|| {
        let found = if value.is_float() { value.to_string() } else { format!("a {}", value.type_name()) };
        format!("{path} is {found}; options hold finite numbers, text, true, false, lists and maps")
    })
}

fn scalar(value: &Dynamic) -> Option<Value> {
    if value.is_unit() {
        return Some(Value::Null);
    }
    if let Ok(number) = value.as_float() {
        return Number::from_f64(number).map(Value::Number);
    }
    let whole = value.as_int().ok().map(Value::from);
    let truth = value.as_bool().ok().map(Value::from);
    let text = (value.is_string() || value.is_char()).then(|| Value::String(value.to_string()));
    whole.or(truth).or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn converted(script: &str) -> Result<Value, String> {
        json_of(&rhai::Engine::new().eval::<Dynamic>(script).unwrap())
    }

    #[test]
    fn what_json_can_say_stays() {
        let value = converted("#{ a: [1, 2.5, true, \"x\", 'c', ()], b: #{ c: -9223372036854775807 } }").unwrap();
        assert_eq!(value, json!({ "a": [1, 2.5, true, "x", "c", null], "b": { "c": -9223372036854775807_i64 } }));
    }

    #[test]
    fn the_rest_is_named() {
        let message = |script: &str| converted(script).unwrap_err();
        assert!(message("#{ a: #{ lr: 0.0 / 0.0 } }").starts_with("a.lr is NaN; options hold finite numbers"));
        assert!(message("#{ a: [1.0 / 0.0] }").starts_with("a[0] is inf; "));
        assert!(message("#{ f: |x| x }").starts_with("f is a Fn; "));
        let deep = message("let m = 1; for i in 0..50 { m = #{ m: m }; } m");
        assert!(deep.ends_with("… are nested more than 32 deep"), "{deep}");
    }
}
