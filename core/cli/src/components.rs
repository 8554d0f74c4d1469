//! The registry that a command works with: built-ins, reward models, plugins, and a script's own functions.

use crate::args::ConfigArgs;
use crate::{locate, script};
use anyhow::{Context, Result, bail};
use motrain_core::plan::Plan;
use motrain_core::plugin::{self, Request};
use motrain_core::registry::Registry;
use motrain_engine::reward;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What motrain ships.
pub fn shipped(device: &str, dtype: &str) -> Result<Registry> {
    let mut registry = Registry::builtin();
    reward::register(&mut registry, device, dtype)?;
    Ok(registry)
}

/// What motrain ships, and the plugins of the configuration and the command line.
pub fn from_config(config: &Value, args: &ConfigArgs) -> Result<Registry> {
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let mut registry = shipped(&text("device"), &text("dtype"))?;
    let plugins = &config["plugins"];
    plugin::set_time_limit(Duration::from_secs_f64(plugins["call_seconds"].as_f64().unwrap_or(0.0).max(0.0)));
    let seed = config["seed"].as_u64().unwrap_or(0);
    let listed = plugins["load"].as_array().cloned().unwrap_or_default();
    let named = args.plugin.iter().map(|p| Value::String(p.to_string_lossy().into_owned()));
    for item in listed.into_iter().chain(named) {
        let (path, sha256) = match &item {
            Value::String(path) => (path.clone(), None),
            Value::Object(o) if o.keys().all(|k| k == "path" || k == "sha256") => (
                o.get("path")
                    .and_then(Value::as_str)
                    .context("configuration: plugins.load: a table needs \"path\"")?
                    .into(),
                o.get("sha256").and_then(Value::as_str).map(str::to_owned),
            ),
            other => {
                bail!("configuration: plugins.load holds {other}; write a path, or {{ path = \"…\", sha256 = \"…\" }}")
            }
        };
        for path in libraries(&locate::find(Path::new(&path)))? {
            plugin::load(&mut registry, &Request { path, sha256: sha256.clone(), roots: None }, seed)?;
        }
    }
    Ok(registry)
}

/// A library, or all libraries of a folder.
fn libraries(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let is_library = |p: &PathBuf| p.extension().is_some_and(|e| e == std::env::consts::DLL_EXTENSION);
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_library).collect();
    found.sort();
    if found.is_empty() {
        bail!("{} holds no plugins (*.{})", path.display(), std::env::consts::DLL_EXTENSION);
    }
    Ok(found)
}

/// The folders that scripts may load plugins from: the configuration's, or else the working directory, the script's folder and
/// motrain's own.
pub fn roots(config: &Value, script: &Path) -> Vec<PathBuf> {
    let listed = config["plugins"]["roots"].as_array().cloned().unwrap_or_default();
    let mut roots: Vec<PathBuf> = listed.iter().filter_map(Value::as_str).map(PathBuf::from).collect();
    if roots.is_empty() {
        let beside = script.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        roots = vec![PathBuf::from("."), beside.to_owned(), locate::home()];
        roots.dedup();
    }
    roots
}

/// What a saved plan needs: its plugins, unchanged, and its script's functions.
pub fn from_plan(plan: &Plan) -> Result<Registry> {
    let mut registry = shipped(&plan.device, &plan.dtype)?;
    for file in &plan.plugins {
        let request = Request { path: file.path.clone().into(), sha256: Some(file.sha256.clone()), roots: None };
        plugin::load(&mut registry, &request, plan.seed)
            .context("this run used a plugin that is no longer the same; bring it back, or start a new run")?;
    }
    match &plan.script {
        None => Ok(registry),
        Some(script) => {
            let roots = roots(&script.config, Path::new(&script.path));
            Ok(script::run(script, registry, roots)?.1)
        }
    }
}
