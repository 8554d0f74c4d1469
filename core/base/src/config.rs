//! Layers of configuration: TOML tables and single keys, each laid over the defaults that say which keys there are and of what type.

use crate::error::did_you_mean;
use crate::{Error, Result, schema};
use serde_json::{Value, json};

/// Tables in tables that a key may name.
const DEPTH: usize = 16;

/// What every table of `[tasks]` has, unless it says otherwise itself.
const INHERITED: &str = "every_task";

/// The keys that there are, and what all layers so far make of them.
pub struct Layers {
    known: Value,
    config: Value,
}

impl Layers {
    /// The layer below all others, from the text of a TOML file.
    pub fn over(defaults: &str) -> Result<Self> {
        let config = table(defaults)?;
        let mut known = config.clone();
        inherit(&mut known);
        Ok(Self { known, config })
    }

    /// Lays the text of a TOML file over all before.
    pub fn lay(&mut self, text: &str) -> Result<()> {
        self.lay_value(table(text)?)
    }

    /// Lays a single value: TOML, or else the text itself.
    pub fn set(&mut self, keys: &[&str], value: &str) -> Result<()> {
        self.lay_value(nested(keys, parse(value))?)
    }

    /// Refuses keys that the defaults do not know, and values of another type than theirs.
    fn lay_value(&mut self, layer: Value) -> Result<()> {
        let mut faults = Vec::new();
        compare(Some(&self.known), &layer, "", &mut faults);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults.join("\n")));
        }
        merge(&mut self.config, layer);
        Ok(())
    }

    /// What came out, with what commands read of it checked.
    pub fn finish(mut self) -> Result<Value> {
        inherit(&mut self.config);
        if let Some(config) = self.config.as_object_mut() {
            config.shift_remove(INHERITED);
        }
        schema::check("configuration", &of_commands(), &self.config)?;
        Ok(self.config)
    }
}

/// The keys that the text of a TOML file has at its top.
pub fn keys(text: &str) -> Result<Vec<String>> {
    Ok(table(text)?.as_object().map(|keys| keys.keys().cloned().collect()).unwrap_or_default())
}

fn table(text: &str) -> Result<Value> {
    toml::from_str(text).map_err(|e| Error::Invalid(e.to_string()))
}

/// What commands read themselves; scripts check what they use.
fn of_commands() -> Value {
    let path = json!({ "type": "string", "minLength": 1, "maxLength": 4096 });
    let pinned = json!({
        "type": "object",
        "properties": { "path": path, "sha256": { "type": "string", "minLength": 64, "maxLength": 64 } },
        "required": ["path"],
    });
    json!({ "additionalProperties": true, "properties": {
        "seed": { "type": "integer", "minimum": 0 },
        "plugins": { "type": "object", "properties": {
            "load": { "type": "array", "items": { "anyOf": [path, pinned] } },
            "roots": { "type": "array", "items": path },
            "call_seconds": { "type": "number", "minimum": 0, "maximum": 1e6 },
        } },
    } })
}

/// `a.b` and 1 make `{a: {b: 1}}`.
fn nested(keys: &[&str], value: Value) -> Result<Value> {
    if keys.len() > DEPTH || keys.iter().any(|k| k.is_empty()) {
        let what = format!("a key is up to {DEPTH} names joined by dots, such as tasks.hh.train.epochs");
        return Err(Error::Invalid(what));
    }
    Ok(keys.iter().rev().fold(value, |inner, key| json!({ *key: inner })))
}

/// Whether a table of the defaults is a component: its name will do for it.
fn is_component(known: &Value) -> bool {
    known["name"].is_string() && known["options"].is_object()
}

/// Lays `layer` over `base`. A component that gets another name loses the options of the one before it.
fn merge(base: &mut Value, layer: Value) {
    match (base, layer) {
        (Value::Object(base), Value::Object(layer)) => {
            let renamed = matches!((base.get("name"), layer.get("name")), (Some(old), Some(new)) if old != new);
            if renamed && base.contains_key("options") {
                base.insert("options".into(), Value::Object(Default::default()));
            }
            for (key, value) in layer {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, name @ Value::String(_)) if is_component(base) => merge(base, json!({ "name": name })),
        (base, layer) => *base = layer,
    }
}

/// Completes each task by what every task has.
fn inherit(config: &mut Value) {
    let every = config[INHERITED].clone();
    let tasks = config.get_mut("tasks").and_then(Value::as_object_mut);
    for task in tasks.into_iter().flat_map(|tasks| tasks.values_mut()) {
        let own = std::mem::replace(task, every.clone());
        merge(task, own);
    }
}

/// A TOML value, or else the text itself.
fn parse(value: &str) -> Value {
    match toml::from_str::<Value>(&format!("v = {value}")) {
        Ok(Value::Object(mut map)) if map.len() == 1 => map.remove("v").unwrap_or(Value::Null),
        _ => Value::String(value.to_owned()),
    }
}

/// Every table but `options` (which belongs to a component) has no keys but those of the defaults, and values are of their type. TOML's nan
/// and inf have come out as null.
fn compare(known: Option<&Value>, given: &Value, path: &str, out: &mut Vec<String>) {
    match (known, given) {
        (_, Value::Null) => out.push(format!("{path} must be a finite number")),
        (Some(Value::Object(known)), Value::Object(given)) => {
            for (key, value) in given {
                let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    None => {
                        let near = did_you_mean(key, known.keys().map(String::as_str));
                        out.push(format!("there is no key \"{full}\"{near}"));
                    }
                    Some(known) => compare((key != "options").then_some(known), value, &full, out),
                }
            }
        }
        (Some(known), Value::String(_)) if is_component(known) => {}
        (Some(known), _) if kind(known) != kind(given) => {
            let shown: String = given.to_string().chars().take(80).collect();
            out.push(format!("{path} must be {}, not {shown}", kind(known)));
        }
        (known, Value::Array(items)) => {
            // Tables in a list differ from each other: a reward by a model and one by a source.
            let like = known.and_then(|k| k.get(0)).filter(|first| !first.is_object());
            items.iter().enumerate().for_each(|(i, item)| compare(like, item, &format!("{path}[{i}]"), out));
        }
        (_, Value::Object(given)) => {
            given.iter().for_each(|(key, value)| compare(None, value, &format!("{path}.{key}"), out));
        }
        _ => {}
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
