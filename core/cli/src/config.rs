//! Layered configuration: configs/default.toml < --config files < `MOTRAIN_*` < --set.

use crate::args::ConfigArgs;
use crate::locate;
use anyhow::{Context, Result, bail};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use motrain_core::error::did_you_mean;
use serde_json::Value;

const DEFAULTS: &str = include_str!("../../../configs/default.toml");
/// Variables with the prefix that are no configuration.
const OTHER_VARIABLES: [&str; 3] = ["HOME", "CACHE", "LOG"];

/// Reads all layers and refuses keys that the defaults do not know.
pub fn load(args: &ConfigArgs) -> Result<Value> {
    let defaults = read(Toml::string(DEFAULTS))?;
    let mut config = defaults.clone();
    for file in &args.config {
        let found = locate::find(file);
        if !found.is_file() {
            bail!("configuration {} does not exist", file.display());
        }
        merge(&mut config, read(Toml::file(&found))?);
    }
    merge(&mut config, read(Env::prefixed("MOTRAIN_").ignore(&OTHER_VARIABLES).split("__"))?);
    for pair in &args.set {
        let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as key=value"))?;
        merge(&mut config, read(Serialized::default(key, parse(value)))?);
    }
    check_keys(&defaults, &config, "")?;
    Ok(config)
}

fn read(provider: impl figment::Provider) -> Result<Value> {
    Figment::from(provider).extract().map_err(|e| anyhow::anyhow!("configuration: {e}"))
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
        Ok(Value::Object(mut map)) => map.remove("v").unwrap_or(Value::Null),
        _ => Value::String(value.to_owned()),
    }
}

/// Every table but `options` (which belongs to a component) has no keys but those of the defaults.
fn check_keys(known: &Value, given: &Value, path: &str) -> Result<()> {
    let (Value::Object(known), Value::Object(given)) = (known, given) else { return Ok(()) };
    for (key, value) in given {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match known.get(key) {
            None => bail!("configuration has no key \"{full}\"{}", did_you_mean(key, known.keys().map(String::as_str))),
            Some(_) if key == "options" => {}
            Some(known) => check_keys(known, value, &full)?,
        }
    }
    Ok(())
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
    fn unknown_keys_are_named() {
        let message = load_with(&["tasks.hh.train.epoch=1"]).unwrap_err().to_string();
        assert_eq!(message, "configuration has no key \"tasks.hh.train.epoch\"; did you mean \"epochs\"?");
    }
}
