//! Options against a JSON Schema, at every depth, so that an error names each option at fault by its path.
//!
//! `type`, `enum`, `const`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength`, `items`, `minItems`,
//! `maxItems`, `properties`, `required`, `additionalProperties`, `minProperties`, `anyOf`, `oneOf`, `allOf`, `$ref` into the schema itself,
//! and the formats `regex`, `name` and `weights`. Other keywords are left to a plugin. An object with `properties` has no others, unless
//! `additionalProperties` says so: a misspelt name is an error.

mod limits;

use crate::error::{Error, Result, did_you_mean};
use limits::{is, not_among, not_of, out_of_format, out_of_range, shown};
use serde_json::{Map, Value};
use std::cell::Cell;

/// Values within values, and references to references, that are followed.
const DEPTH: usize = 200;
/// Looks at some value by some part of the schema: references of a hostile one can multiply.
const LOOKS: usize = 4_000_000;

/// Refuses options that are unknown, missing, of the wrong type or out of range: all of them at once.
pub fn check(owner: &str, schema: &Value, options: &Value) -> Result<()> {
    let empty = Value::Object(Map::new());
    let options = if options.is_null() { &empty } else { options };
    let Value::Object(given) = options else {
        let what = format!("options must be a map, not {}", shown(options));
        return Err(Error::BadOptions { owner: owner.into(), what });
    };
    let mut faults = Vec::new();
    let walk = Walk { root: schema, looks: Cell::new(0) };
    walk.value(schema, options, &Place { path: String::new(), depth: 0 }, &mut faults);
    if walk.looks.get() > LOOKS {
        let what = "are too many, or its schema refers to itself without end".to_owned();
        return Err(Error::BadOptions { owner: owner.into(), what: format!("options {what}") });
    }
    if schema["properties"].is_null() && schema["additionalProperties"].is_null() {
        faults.extend(given.keys().map(|k| Fault { path: k.clone(), what: What::Unknown(String::new()) }));
    }
    Error::all(faults.into_iter().map(|f| f.error(owner)).collect())
}

struct Fault {
    /// `train.batch_size`, `sources[0].name`
    path: String,
    what: What,
}

enum What {
    /// With a suggestion.
    Unknown(String),
    Bad(String),
}

impl Fault {
    fn error(self, owner: &str) -> Error {
        let (owner, option) = (owner.to_owned(), self.path);
        match self.what {
            What::Unknown(suggestion) => Error::UnknownOption { owner, option, suggestion },
            What::Bad(what) if option.is_empty() => Error::BadOptions { owner, what },
            What::Bad(what) => Error::BadOption { owner, option, what },
        }
    }
}

/// Where in the options the walk is.
struct Place {
    path: String,
    depth: usize,
}

impl Place {
    fn bad(&self, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), what: What::Bad(what.into()) }
    }

    fn same(&self) -> Self {
        Self { path: self.path.clone(), depth: self.depth + 1 }
    }

    fn key(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, depth: self.depth + 1 }
    }

    fn item(&self, i: usize) -> Self {
        Self { path: format!("{}[{i}]", self.path), depth: self.depth + 1 }
    }
}

struct Walk<'a> {
    root: &'a Value,
    looks: Cell<usize>,
}

impl<'a> Walk<'a> {
    /// Whether looking on is too much.
    fn too_much(&self, depth: usize) -> bool {
        self.looks.set(self.looks.get() + 1);
        depth > DEPTH || self.looks.get() > LOOKS
    }

    fn value(&self, schema: &'a Value, value: &Value, at: &Place, out: &mut Vec<Fault>) {
        if self.too_much(at.depth) {
            return out.push(at.bad("is nested too deeply"));
        }
        if let Some(choices) = self.choices(schema, 0) {
            return out.extend(not_among(&choices, value).map(|what| at.bad(what)));
        }
        let types = self.types(schema, 0);
        if !types.is_empty() && !types.iter().any(|t| is(t, value)) {
            return out.push(at.bad(not_of(&types, value)));
        }
        let before = out.len();
        out.extend(out_of_range(schema, value).or_else(|| out_of_format(schema, value)).map(|what| at.bad(what)));
        if let Value::Array(items) = value {
            let each = |(i, item)| self.value(&schema["items"], item, &at.item(i), out);
            items.iter().enumerate().for_each(each);
        }
        if let Value::Object(given) = value {
            self.object(schema, given, at, out);
        }
        if out.len() > before {
            return;
        }
        if let Some(target) = self.target(schema) {
            self.value(target, value, &at.same(), out);
        }
        for part in listed(schema, "allOf") {
            self.value(part, value, &at.same(), out);
        }
        for branches in ["anyOf", "oneOf"].map(|key| listed(schema, key)) {
            self.any_of(branches, value, at, out);
        }
    }

    fn object(&self, schema: &'a Value, given: &Map<String, Value>, at: &Place, out: &mut Vec<Fault>) {
        let known = schema["properties"].as_object();
        for (key, value) in given {
            match (known.and_then(|known| known.get(key)), &schema["additionalProperties"]) {
                (Some(property), _) => self.value(property, value, &at.key(key), out),
                (None, Value::Null) if known.is_none() => {}
                (None, Value::Null | Value::Bool(false)) => {
                    let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
                    let what = What::Unknown(did_you_mean(key, names));
                    out.push(Fault { path: at.key(key).path, what });
                }
                (None, others) => self.value(others, value, &at.key(key), out),
            }
        }
        let missing =
            listed(schema, "required").iter().filter_map(Value::as_str).filter(|name| !given.contains_key(*name));
        out.extend(missing.map(|name| at.key(name).bad("is missing")));
    }

    /// The faults of the branch that is nearest: of those for this type of value, the one with the fewest.
    fn any_of(&self, branches: &'a [Value], value: &Value, at: &Place, out: &mut Vec<Fault>) {
        let tried = branches.iter().map(|branch| {
            let mut faults = Vec::new();
            self.value(branch, value, &at.same(), &mut faults);
            let types = self.types(branch, 0);
            (types.is_empty() || types.iter().any(|t| is(t, value)), faults)
        });
        let tried: Vec<(bool, Vec<Fault>)> = tried.collect();
        if tried.iter().any(|(_, faults)| faults.is_empty()) {
            return;
        }
        let near = tried.into_iter().rev().filter(|(fits, _)| *fits).map(|(_, faults)| faults);
        out.extend(near.min_by_key(Vec::len).into_iter().flatten());
    }

    /// What `$ref` points at, inside the schema.
    fn target(&self, schema: &'a Value) -> Option<&'a Value> {
        self.root.pointer(schema["$ref"].as_str()?.strip_prefix('#')?)
    }

    /// The types that a value may have; none where the schema does not say.
    fn types(&self, schema: &'a Value, depth: usize) -> Vec<&'a str> {
        if self.too_much(depth) {
            return vec![];
        }
        let own: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        if !own.is_empty() {
            return own;
        }
        if let Some(target) = self.target(schema) {
            return self.types(target, depth + 1);
        }
        let of = |branch| self.types(branch, depth + 1);
        let branches: Vec<Vec<&str>> = ["anyOf", "oneOf"].iter().flat_map(|k| listed(schema, k)).map(of).collect();
        if branches.iter().any(Vec::is_empty) { vec![] } else { branches.concat() }
    }

    /// The values that are allowed, if they can be counted.
    fn choices(&self, schema: &'a Value, depth: usize) -> Option<Vec<&'a Value>> {
        if self.too_much(depth) {
            return None;
        }
        if let Some(all) = schema["enum"].as_array() {
            return Some(all.iter().collect());
        }
        if let Some(one) = schema.get("const") {
            return Some(vec![one]);
        }
        if schema["type"] == "null" {
            return Some(vec![&Value::Null]);
        }
        if let Some(target) = self.target(schema) {
            return self.choices(target, depth + 1);
        }
        let branches = ["anyOf", "oneOf"].into_iter().map(|k| listed(schema, k)).find(|b| !b.is_empty())?;
        let each: Option<Vec<Vec<&Value>>> = branches.iter().map(|b| self.choices(b, depth + 1)).collect();
        Some(each?.concat())
    }
}

fn listed<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema[key].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(schema: &Value, options: Value) -> String {
        check("reward \"r\"", schema, &options).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn names_the_option_at_fault() {
        let schema = json!({"properties": {
            "threshold": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "mode": {"enum": ["fast", "slow"]},
            "words": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 2},
            "n": {"type": ["integer", "null"]},
            "pattern": {"type": "string", "format": "regex"},
        }, "required": ["mode"]});
        assert_eq!(
            message(&schema, json!({"mode": "fast", "threshold": 1, "words": ["x"], "n": 3, "pattern": "a+"})),
            ""
        );
        assert_eq!(message(&schema, json!({"mode": "fast", "n": null})), "");
        let cases = [
            (json!({}), "option \"mode\" is missing"),
            (json!({"mode": "fast", "threshold": 0}), "option \"threshold\" must be above 0, not 0"),
            (json!({"mode": "fast", "threshold": "x"}), "option \"threshold\" must be a number, not \"x\""),
            (
                json!({"mode": "fats"}),
                "option \"mode\" must be one of \"fast\", \"slow\", not \"fats\"; did you mean \"fast\"?",
            ),
            (json!({"mode": "fast", "words": [1]}), "option \"words[0]\" must be text, not 1"),
            (json!({"mode": "fast", "words": ["a", ""]}), "option \"words[1]\" must not be empty"),
            (json!({"mode": "fast", "words": ["a", "b", "c"]}), "option \"words\" must have at most 2 items, not 3"),
            (json!({"mode": "fast", "n": 1.5}), "option \"n\" must be a whole number, not 1.5"),
            (json!({"mode": "fast", "n": 8.0}), "option \"n\" must be a whole number, not 8.0"),
        ];
        for (options, expected) in cases {
            assert_eq!(message(&schema, options), format!("reward \"r\": {expected}"));
        }
        let unknown = message(&schema, json!({"mode": "fast", "treshold": 1}));
        assert_eq!(unknown, "reward \"r\" has no option \"treshold\"; did you mean \"threshold\"?");
        assert!(
            message(&schema, json!({"mode": "fast", "pattern": "("})).contains("\"pattern\" is no regular expression")
        );
    }

    #[test]
    fn walks_to_every_depth_and_lists_all_faults() {
        let schema = json!({
            "properties": {
                "train": {"$ref": "#/$defs/Train"},
                "model": {"anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "object", "properties": {"stage": {"type": "string"}}, "required": ["stage"]},
                ]},
                "scores": {"type": "object", "additionalProperties": {"type": "number", "maximum": 1}},
            },
            "$defs": {"Train": {"type": "object", "properties": {"epochs": {"type": "number", "minimum": 0}}}},
        });
        let good = json!({"train": {"epochs": 1}, "model": {"stage": "a"}, "scores": {"b": 0.5}});
        assert_eq!(message(&schema, good), "");
        let bad = json!({"train": {"epochs": -1, "epoch": 1}, "model": {"stag": 1}, "scores": {"b": 2}});
        let expected = [
            "reward \"r\": option \"train.epochs\" must be at least 0, not -1",
            "reward \"r\" has no option \"train.epoch\"; did you mean \"epochs\"?",
            "reward \"r\" has no option \"model.stag\"; did you mean \"stage\"?",
            "reward \"r\": option \"model.stage\" is missing",
            "reward \"r\": option \"scores.b\" must be at most 1, not 2",
        ];
        assert_eq!(message(&schema, bad).lines().collect::<Vec<_>>(), expected);
        assert_eq!(
            message(&schema, json!({"model": 3})),
            "reward \"r\": option \"model\" must be text or a map, not 3"
        );
    }

    #[test]
    fn hostile_schemas_end_in_an_error() {
        let round = json!({"$ref": "#", "properties": {"a": {"$ref": "#/properties/a"}}});
        assert!(message(&round, json!({"a": 1})).contains("nested too deeply"));
        let wide = json!({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"$ref": "#/properties/a"}]}}});
        assert!(message(&wide, json!({"a": 1})).contains("refers to itself"));
    }
}
