//! Options against a JSON Schema: the part of the standard that a plugin's schema may use, so that errors name the option.
//!
//! `type`, `enum`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `items` and `required`; other keywords are left
//! to the plugin.

use crate::error::{Error, Result};
use crate::options::check_names;
use serde_json::Value;

/// Refuses options that are unknown, missing, of the wrong type or out of range.
pub fn check(owner: &str, schema: &Value, options: &Value) -> Result<()> {
    let empty = Value::Object(Default::default());
    let options = if options.is_null() { &empty } else { options };
    check_names(owner, schema, options)?;
    let bad = |option: &str, what: String| Error::BadOption { owner: owner.into(), option: option.into(), what };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if options.get(name).is_none() {
            return Err(bad(name, "is missing".into()));
        }
    }
    for (name, value) in options.as_object().into_iter().flatten() {
        fits(&schema["properties"][name], value).map_err(|what| bad(name, what))?;
    }
    Ok(())
}

fn fits(schema: &Value, value: &Value) -> std::result::Result<(), String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !types.is_empty() && !types.iter().any(|t| is(t, value)) {
        return Err(format!("must be {}, not {value}", types.join(" or ")));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Err(format!("must be one of {}, not {value}", allowed.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        type Bound = (&'static str, fn(f64, f64) -> bool, &'static str);
        const BOUNDS: [Bound; 4] = [
            ("minimum", |x, b| x >= b, "at least"),
            ("maximum", |x, b| x <= b, "at most"),
            ("exclusiveMinimum", |x, b| x > b, "above"),
            ("exclusiveMaximum", |x, b| x < b, "below"),
        ];
        for (keyword, holds, words) in BOUNDS {
            if let Some(bound) = schema[keyword].as_f64().filter(|b| !holds(number, *b)) {
                return Err(format!("must be {words} {bound}, not {value}"));
            }
        }
    }
    value.as_array().into_iter().flatten().try_for_each(|item| fits(&schema["items"], item))
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|x| x.fract() == 0.0),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_the_option_at_fault() {
        let schema = json!({"properties": {
            "threshold": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "mode": {"enum": ["a", "b"]},
            "words": {"type": "array", "items": {"type": "string"}},
            "n": {"type": ["integer", "null"]},
        }, "required": ["mode"]});
        let message = |options: Value| check("reward \"r\"", &schema, &options).err().map(|e| e.to_string());
        assert_eq!(message(json!({"mode": "a", "threshold": 1, "words": ["x"], "n": 3})), None);
        assert_eq!(message(json!({})).unwrap(), "reward \"r\": option \"mode\" is missing");
        let cases = [
            (json!({"mode": "a", "threshold": 0}), "reward \"r\": option \"threshold\" must be above 0, not 0"),
            (json!({"mode": "a", "threshold": "x"}), "reward \"r\": option \"threshold\" must be number, not \"x\""),
            (json!({"mode": "c"}), "reward \"r\": option \"mode\" must be one of \"a\", \"b\", not \"c\""),
            (json!({"mode": "a", "words": [1]}), "reward \"r\": option \"words\" must be string, not 1"),
            (json!({"mode": "a", "n": 1.5}), "reward \"r\": option \"n\" must be integer or null, not 1.5"),
            (
                json!({"mode": "a", "treshold": 1}),
                "reward \"r\" has no option \"treshold\"; did you mean \"threshold\"?",
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(message(options).unwrap(), expected);
        }
    }
}
