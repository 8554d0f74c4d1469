//! Plans for a command: made from a script, or read from a run folder.

use crate::components::{self, Plugins};
use crate::config::{self, ConfigArgs};
use crate::{locate, script, shipped};
use anyhow::{Context, Result, bail};
use motrain_core::registry::Registry;
use motrain_engine::names;
use motrain_engine::plan::Plan;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// From script and configuration to a checked plan, and the components that it uses.
pub fn make(script: &Path, args: &ConfigArgs) -> Result<(Plan, Registry)> {
    let config = config::load(args)?;
    let script = locate::script(script)?;
    let plugins = Plugins::read(&config, args)?;
    let registry = components::from_config(&config, &plugins)?;
    let (mut plan, registry) = script::plan(&script, &config, registry, plugins.for_script(&script))?;
    if plan.inputs().any(|path| Path::new(&path).is_relative()) {
        plan.directory = Some(here()?.to_string_lossy().into_owned());
    }
    for path in plan.plugins.iter_mut().map(|p| &mut p.path).chain(plan.script.as_mut().map(|s| &mut s.path)) {
        *path = std::path::absolute(&*path)?.to_string_lossy().into_owned();
    }
    plan.call_seconds = (!plan.plugins.is_empty()).then_some(plugins.call_seconds);
    Ok((plan, registry))
}

/// The plan that a run folder holds.
pub fn saved(folder: &Path) -> Result<Plan> {
    let path = folder.join(names::PLAN);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} is no run folder: it has no plan.json", folder.display()))?;
    let plan = serde_json::from_str::<Value>(&text).and_then(serde_json::from_value);
    let plan: Plan = plan.with_context(|| format!("{} cannot be used", path.display()))?;
    plan.inputs().try_for_each(|path| shipped::restore(Path::new(&path)))?;
    Ok(plan)
}

pub fn check_inputs(plan: &Plan) -> Result<()> {
    match plan.missing_inputs() {
        missing if missing.is_empty() => Ok(()),
        missing => bail!("{}: inputs are missing\n{}", plan.name, missing.join("\n")),
    }
}

/// Whether its models can be read, as far as that can be known without their weights.
pub fn check_models(plan: &Plan) -> Result<()> {
    match plan.unfit_models(|_| true) {
        unfit if unfit.is_empty() => Ok(()),
        unfit => bail!("{}: models cannot be used\n{}", plan.name, unfit.join("\n")),
    }
}

/// The working directory, which relative paths of a plan start from.
pub fn here() -> Result<PathBuf> {
    std::env::current_dir().context("the working directory is not there any more")
}
