//! The registry that a command works with: built-ins, reward models, plugins, and a script's own functions.

use crate::config::{self, ConfigArgs};
use crate::{allowed, locate, script};
use anyhow::{Context, Result, bail};
use motrain_core::Error;
use motrain_core::registry::Registry;
use motrain_engine::plan::Plan;
use motrain_engine::reward;
use motrain_host::{Asker, Permit, Request};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What motrain ships.
pub fn shipped(device: &str, dtype: &str) -> Result<Registry> {
    let mut registry = Registry::builtin();
    motrain_remote::register(&mut registry)?;
    motrain_tasks::register(&mut registry)?;
    reward::register(&mut registry, device, dtype)?;
    Ok(registry)
}

/// What the configuration and the command line say of plugins.
pub struct Plugins {
    /// Libraries that the user named, each with its pin.
    named: Vec<(PathBuf, Option<String>)>,
    roots: Vec<PathBuf>,
    pub call_seconds: f64,
}

impl Plugins {
    pub fn read(config: &Value, args: &ConfigArgs) -> Result<Self> {
        let plugins = &config["plugins"];
        let wrong =
            |key: &str, wanted: &str| format!("configuration: plugins.{key} is {}; write {wanted}", plugins[key]);
        let list = |key: &str, wanted: &str| plugins[key].as_array().with_context(|| wrong(key, wanted));
        let mut named = Vec::new();
        for item in list("load", "a list: [\"libx.so\"]")? {
            named.push(pinned(item)?);
        }
        named.extend(args.plugin.iter().map(|path| (path.clone(), None)));
        let mut libraries_named = Vec::new();
        for (path, pin) in named {
            libraries_named.extend(libraries(&locate::find(&path)?)?.into_iter().map(|path| (path, pin.clone())));
        }
        let wanted = "a list of folders: [\"plugins\"]";
        let root = |root: &Value| root.as_str().map(PathBuf::from).with_context(|| wrong("roots", wanted));
        let roots = list("roots", wanted)?.iter().map(root).collect::<Result<_>>()?;
        let call_seconds = plugins["call_seconds"].as_f64().with_context(|| wrong("call_seconds", "seconds: 60.0"))?;
        Ok(Self { named: libraries_named, roots, call_seconds })
    }

    /// What a script may load: from the folders of the configuration, or else from the working directory, the script's folder and
    /// motrain's home.
    pub fn for_script(&self, script: &Path) -> Permit {
        let mut roots = self.roots.clone();
        if roots.is_empty() {
            let beside = script.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            roots = vec![PathBuf::from("."), beside.to_owned()];
            roots.extend(locate::home());
            roots.dedup();
        }
        Permit { asker: Asker::Script, roots, hashes: BTreeSet::new() }
    }
}

/// An item of plugins.load.
fn pinned(item: &Value) -> Result<(PathBuf, Option<String>)> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    match item {
        Value::String(path) => Ok((path.into(), None)),
        Value::Object(o) if o.keys().all(|k| k == "path" || k == "sha256") => {
            let path = text(o.get("path")).context("configuration: plugins.load: a table needs \"path\"")?;
            let pin = text(o.get("sha256"));
            if pin.is_none() && o.contains_key("sha256") {
                bail!("configuration: plugins.load: the sha256 of {path} is {}; write it as text", o["sha256"]);
            }
            Ok((path.into(), pin))
        }
        other => {
            bail!("configuration: plugins.load holds {other}; write a path, or {{ path = \"…\", sha256 = \"…\" }}")
        }
    }
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

fn limit(call_seconds: f64) -> Result<()> {
    let limit = Duration::try_from_secs_f64(call_seconds)
        .map_err(|e| anyhow::anyhow!("plugins.call_seconds is {call_seconds:?}: {e}; write seconds, or 0 for never"))?;
    motrain_host::set_time_limit(limit);
    Ok(())
}

/// What motrain ships, and the plugins of the configuration and the command line.
pub fn from_config(config: &Value, plugins: &Plugins) -> Result<Registry> {
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let mut registry = shipped(&text("device"), &text("dtype"))?;
    limit(plugins.call_seconds)?;
    let seed = config["seed"].as_u64().unwrap_or(0);
    for (path, sha256) in &plugins.named {
        motrain_host::load(&mut registry, &Request { path: path.clone(), sha256: sha256.clone(), permit: None }, seed)?;
    }
    Ok(registry)
}

/// What a saved plan needs: its plugins, unchanged, and its script's functions. A run folder may come from somebody else, so its plan is
/// not what allows a library: the user does, by naming it, by its folder, or by having run it before.
pub fn from_plan(plan: &Plan, args: &ConfigArgs) -> Result<Registry> {
    let plugins = Plugins::read(&config::of_plugins(args)?, args)?;
    let mut registry = shipped(&plan.device, &plan.dtype)?;
    let unset = config::defaults()?["plugins"]["call_seconds"].as_f64();
    limit(plan.call_seconds.filter(|_| unset == Some(plugins.call_seconds)).unwrap_or(plugins.call_seconds))?;
    let mut named = BTreeMap::new();
    for (path, _) in &plugins.named {
        named.insert(motrain_host::sha256(path)?, path.clone());
    }
    let hashes = named.keys().cloned().chain(allowed::hashes()).collect();
    let permit = Permit { asker: Asker::SavedPlan, roots: plugins.roots, hashes };
    for file in &plan.plugins {
        // What the user named is the plan's library if its hash is, wherever it lies now.
        let path = named.get(&file.sha256).cloned().unwrap_or_else(|| file.path.clone().into());
        let request = Request { path, sha256: Some(file.sha256.clone()), permit: Some(permit.clone()) };
        let library = motrain_host::load(&mut registry, &request, plan.seed).map_err(|e| match e {
            Error::NotAllowed { .. } => anyhow::Error::from(e),
            e => anyhow::Error::from(e)
                .context("this run used a plugin that is no longer the same; bring it back, or start a new run"),
        })?;
        if library.file.needs != file.needs {
            let then = if file.needs.is_empty() {
                "none".into()
            } else {
                file.needs.keys().cloned().collect::<Vec<_>>().join(", ")
            };
            bail!(
                "{}: the libraries beside this plugin that it needs are no longer those of the run ({then}); bring them back, or start a new run",
                file.path
            );
        }
    }
    match &plan.script {
        None => Ok(registry),
        Some(script) => Ok(script::run(script, registry, permit)?.1),
    }
}
