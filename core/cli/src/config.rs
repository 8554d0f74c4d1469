//! Layered configuration: configs/default.toml < --config files < `MOTRAIN_*` < --set.

use crate::args::ConfigArgs;
use crate::locate;
use anyhow::{Context, Result, bail};
use motrain_core::error::did_you_mean;
use motrain_core::schema;
use serde_json::{Value, json};

const DEFAULTS: &str = include_str!("../../../configs/default.toml");
/// Variables with the prefix that are no configuration.
const OTHER_VARIABLES: [&str; 3] = ["HOME", "CACHE", "LOG"];
/// Tables in tables that a key of --set or a variable names.
const DEPTH: usize = 16;

/// Reads all layers and refuses, of each, keys that the defaults do not know and values of another type than theirs.
pub fn load(args: &ConfigArgs) -> Result<Value> {
    let defaults = defaults()?;
    let mut config = defaults.clone();
    let mut lay = |origin: String, layer: Result<Value>| {
        let checked = layer.and_then(|layer| {
            let faults = faults(&defaults, &layer);
            if faults.is_empty() { Ok(layer) } else { Err(anyhow::anyhow!(faults.join("\n"))) }
        });
        merge(&mut config, checked.with_context(|| format!("configuration: {origin}"))?);
        anyhow::Ok(())
    };
    for file in &args.config {
        let found = locate::find(file);
        if !found.is_file() {
            bail!("configuration {} does not exist", file.display());
        }
        let text = std::fs::read_to_string(&found).map_err(anyhow::Error::from);
        lay(found.display().to_string(), text.and_then(|text| Ok(toml::from_str(&text)?)))?;
    }
    for (name, value) in variables() {
        let key = name.to_lowercase();
        lay(format!("MOTRAIN_{name}"), nested(&key.split("__").collect::<Vec<_>>(), parse(&value)))?;
    }
    for pair in &args.set {
        let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as key=value"))?;
        let shown: String = pair.chars().take(80).collect();
        lay(format!("--set {shown}"), nested(&key.split('.').collect::<Vec<_>>(), parse(value)))?;
    }
    schema::check("configuration", &of_commands(), &config)?;
    Ok(config)
}

/// The layer below all others.
pub fn defaults() -> Result<Value> {
    Ok(toml::from_str(DEFAULTS)?)
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

/// Names without the prefix, and values.
fn variables() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.to_str()?.strip_prefix("MOTRAIN_")?.to_owned();
        (!OTHER_VARIABLES.contains(&name.as_str())).then(|| (name, value.to_string_lossy().into_owned()))
    };
    let mut found: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
    found.sort();
    found
}

/// `a.b` and 1 make `{a: {b: 1}}`.
fn nested(keys: &[&str], value: Value) -> Result<Value> {
    if keys.len() > DEPTH || keys.iter().any(|k| k.is_empty()) {
        bail!("a key is up to {DEPTH} names joined by dots, such as tasks.hh.train.epochs");
    }
    Ok(keys.iter().rev().fold(value, |inner, key| json!({ *key: inner })))
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
        (base, layer) => *base = layer,
    }
}

/// A TOML value, or else the text itself.
fn parse(value: &str) -> Value {
    match toml::from_str::<Value>(&format!("v = {value}")) {
        Ok(Value::Object(mut map)) if map.len() == 1 => map.remove("v").unwrap_or(Value::Null),
        _ => Value::String(value.to_owned()),
    }
}

/// What is wrong with a layer, a line each.
fn faults(known: &Value, layer: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare(Some(known), layer, "", &mut out);
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(set: &[&str]) -> Result<Value> {
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        load(&ConfigArgs { config: vec![], set, plugin: vec![] })
    }

    #[test]
    fn set_wins_and_keeps_types() {
        let config = load_with(&["seed=7", "tasks.hh.train.epochs=0.5", "device=cuda"]).unwrap();
        assert_eq!(config["seed"], 7);
        assert_eq!(config["tasks"]["hh"]["train"]["epochs"], 0.5);
        assert_eq!(config["device"], "cuda");
    }

    #[test]
    fn another_component_starts_without_options() {
        let sampler = |set: &[&str]| load_with(set).unwrap()["tasks"]["hh"]["sampler"].clone();
        let uniform = sampler(&["tasks.hh.sampler={ name = \"uniform_grid\" }"]);
        assert_eq!(uniform, serde_json::json!({ "name": "uniform_grid", "options": {} }));
        assert_eq!(sampler(&["tasks.hh.sampler={ name = \"dirichlet\" }"])["options"]["alpha"], 0.5);
    }

    #[test]
    fn wrong_keys_and_types_are_named() {
        let refused = |set: &str| format!("{:#}", load_with(&[set]).unwrap_err());
        let cases = [
            ("tasks.hh.train.epoch=1", "there is no key \"tasks.hh.train.epoch\"; did you mean \"epochs\"?"),
            ("tasks.hh.train.epochs=many", "tasks.hh.train.epochs must be a number, not \"many\""),
            ("tasks.hh.train.epochs=nan", "tasks.hh.train.epochs must be a finite number"),
            ("tasks.hh.sampler.options.alpha=[1.0, -inf]", "tasks.hh.sampler.options.alpha[1] must be a finite number"),
            ("tasks.hh.train=5", "tasks.hh.train must be a table, not 5"),
            ("tasks.hh.policy={}", "tasks.hh.policy must be text, not {}"),
            ("tasks.hh.teach.on=1", "tasks.hh.teach.on must be true or false, not 1"),
            ("paper.alphas=[1, \"x\"]", "paper.alphas[1] must be a number, not \"x\""),
            ("plugins.roots=here", "plugins.roots must be a list, not \"here\""),
        ];
        for (set, expected) in cases {
            assert_eq!(refused(set), format!("configuration: --set {set}: {expected}"));
        }
        let ranges = [
            ("seed=-1", "option \"seed\" must be at least 0, not -1"),
            ("seed=1.5", "option \"seed\" must be a whole number, not 1.5"),
            ("plugins.call_seconds=1e308", "option \"plugins.call_seconds\" must be at most 1000000, not 1e+308"),
            ("plugins.call_seconds=-1", "option \"plugins.call_seconds\" must be at least 0, not -1"),
            ("plugins.roots=[[1]]", "option \"plugins.roots[0]\" must be text, not [1]"),
            ("plugins.load=[{ pth = \"x\" }]", "has no option \"plugins.load[0].pth\"; did you mean \"path\"?"),
        ];
        for (set, expected) in ranges {
            assert!(refused(set).contains(expected), "{set}: {}", refused(set));
        }
        assert!(refused("seed=1\ndevice=\"cuda\"").contains("seed must be a number, not"), "nothing is dropped");
    }

    #[test]
    fn deep_keys_and_values_are_errors() {
        let dots = vec!["a"; 5000].join(".");
        for set in [format!("{dots}=1"), "a..b=1".into(), "=1".into(), format!("seed={}", "[".repeat(100_000))] {
            assert!(load_with(&[&set]).is_err(), "{}", &set[..4]);
        }
        let folder = tempfile::tempdir().unwrap();
        for (i, text) in
            [format!("{dots} = 1"), format!("seed = {}", "[".repeat(100_000)), format!("[{dots}]")].iter().enumerate()
        {
            let file = folder.path().join(format!("{i}.toml"));
            std::fs::write(&file, text).unwrap();
            assert!(load(&ConfigArgs { config: vec![file], set: vec![], plugin: vec![] }).is_err());
        }
    }
}
