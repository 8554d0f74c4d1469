//! Layered configuration: configs/default.toml < --config files < `MOTRAIN_*` < --set.

use crate::locate;
use anyhow::{Context, Result, bail};
use motrain_core::config::{Layers, keys};
use serde_json::Value;
use std::path::PathBuf;

const DEFAULTS: &str = include_str!("../../../configs/default.toml");
/// Variables with the prefix that are no configuration.
const OTHER_VARIABLES: [&str; 3] = ["HOME", "CACHE", "LOG"];

#[derive(clap::Args)]
pub struct ConfigArgs {
    /// A TOML file over the defaults; may be given several times
    #[arg(long)]
    pub config: Vec<PathBuf>,
    /// One value over everything else: tasks.hh.train.epochs=2
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A plugin, or a folder of plugins, to load; may be given several times
    #[arg(long, value_name = "LIBRARY")]
    pub plugin: Vec<PathBuf>,
}

/// Reads all layers.
pub fn load(args: &ConfigArgs) -> Result<Value> {
    let mut layers = Layers::over(DEFAULTS)?;
    for file in &args.config {
        let found = locate::find(file)?;
        if !found.is_file() {
            bail!("configuration {} does not exist", file.display());
        }
        let text = std::fs::read_to_string(&found).map_err(anyhow::Error::from);
        let laid = text.and_then(|text| Ok(layers.lay(&text)?));
        laid.with_context(|| format!("configuration: {}", found.display()))?;
    }
    for (name, value) in variables() {
        let key = name.to_lowercase();
        let laid = layers.set(&key.split("__").collect::<Vec<_>>(), &value);
        laid.with_context(|| format!("configuration: MOTRAIN_{name}"))?;
    }
    for pair in &args.set {
        let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as key=value"))?;
        let laid = layers.set(&key.split('.').collect::<Vec<_>>(), value);
        laid.with_context(|| format!("configuration: --set {}", pair.chars().take(80).collect::<String>()))?;
    }
    Ok(layers.finish()?)
}

/// For commands that work with what was saved: of the files and values that the user gives them they take what is said of plugins, and
/// refuse all else, which they would not obey.
pub fn of_plugins(args: &ConfigArgs) -> Result<Value> {
    let config = load(args)?;
    for file in &args.config {
        let text = std::fs::read_to_string(locate::find(file)?)?;
        keys(&text)?
            .iter()
            .try_for_each(|key| obeyed(key))
            .with_context(|| format!("configuration: {}", file.display()))?;
    }
    for pair in &args.set {
        let key = pair.split(['.', '=']).next().unwrap_or_default();
        obeyed(key).with_context(|| format!("configuration: --set {}", pair.chars().take(80).collect::<String>()))?;
    }
    Ok(config)
}

fn obeyed(key: &str) -> Result<()> {
    if key == "plugins" {
        return Ok(());
    }
    bail!(
        "\"{key}\" is not obeyed here: --resume, evaluate and generate take only plugins.* from the configuration, and all else as it was saved; \
         for other options, start the run again with --script and --out (stages whose options stay are reused)"
    )
}

/// The layer below all others.
pub fn defaults() -> Result<Value> {
    Ok(Layers::over(DEFAULTS)?.finish()?)
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
    fn tasks_have_what_every_task_has_unless_they_say_otherwise() {
        let epochs = |task: &str, set: &[&str]| load_with(set).unwrap()["tasks"][task]["train"]["epochs"].clone();
        let set = ["tasks.hh.train.epochs=2.5", "every_task.train.epochs=4.0", "every_task.loss=ipo"];
        assert_eq!((epochs("hh", &set), epochs("tldr", &set)), (2.5.into(), 4.0.into()));
        let config = load_with(&set).unwrap();
        assert_eq!(config["tasks"]["hh"]["loss"], serde_json::json!({ "name": "ipo", "options": {} }));
        assert_eq!(config["tasks"]["hh"]["train"]["batch_size"], 48);
        assert!(config["every_task"].is_null());
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
