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
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    for file in &args.config {
        let found = locate::find(file);
        if !found.is_file() {
            bail!("configuration {} does not exist", file.display());
        }
        figment = figment.merge(Toml::file(&found));
    }
    let env = Env::prefixed("MOTRAIN_").ignore(&OTHER_VARIABLES).split("__");
    figment = figment.merge(env);
    for pair in &args.set {
        let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as key=value"))?;
        figment = figment.merge(Serialized::default(key, parse(value)));
    }
    let config: Value = figment.extract().map_err(|e| anyhow::anyhow!("configuration: {e}"))?;
    let defaults: Value = Figment::from(Toml::string(DEFAULTS)).extract()?;
    check_keys(&defaults, &config, "")?;
    Ok(config)
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
        load(&ConfigArgs { config: vec![], set: set.iter().map(|s| (*s).to_owned()).collect() })
    }

    #[test]
    fn set_wins_and_keeps_types() {
        let config = load_with(&["seed=7", "tasks.hh.train.epochs=0.5", "device=cuda"]).unwrap();
        assert_eq!(config["seed"], 7);
        assert_eq!(config["tasks"]["hh"]["train"]["epochs"], 0.5);
        assert_eq!(config["device"], "cuda");
    }

    #[test]
    fn unknown_keys_are_named() {
        let message = load_with(&["tasks.hh.train.epoch=1"]).unwrap_err().to_string();
        assert_eq!(message, "configuration has no key \"tasks.hh.train.epoch\"; did you mean \"epochs\"?");
    }
}
