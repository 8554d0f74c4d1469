//! Rhai scripts: a script composes stages from components and its numbers come from the configuration; what it makes is a Plan.

mod api;
mod engine;
mod errors;
mod extend;
mod functions;
mod modules;
mod values;

use crate::locate;
use anyhow::{Context, Result};
use functions::Compiled;
use motrain_core::plan::{Plan, ScriptSource};
use motrain_core::plugin::Permit;
use motrain_core::registry::Registry;
use rhai::{Dynamic, Scope};
use serde_json::Value;
use std::path::Path;
use std::sync::PoisonError;

/// Reads a script, runs it and checks the plan that it makes.
pub fn plan(path: &Path, config: &Value, registry: Registry, permit: Permit) -> Result<(Plan, Registry)> {
    let source = locate::text(path)
        .with_context(|| format!("script {} cannot be read; it is looked up here and in scripts/", path.display()))?;
    let path = path.to_string_lossy().into_owned();
    let modules = Default::default();
    run(&ScriptSource { path, source, modules, config: config.clone() }, registry, permit)
}

/// Runs a script. The registry comes back with the script's own components.
pub fn run(script: &ScriptSource, registry: Registry, permit: Permit) -> Result<(Plan, Registry)> {
    let (path, source, config) = (Path::new(&script.path), &script.source, &script.config);
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let plan = Plan {
        name,
        seed: config["seed"].as_u64().context("configuration: seed must be a whole number, 0 or more")?,
        device: text("device"),
        dtype: text("dtype"),
        plugins: vec![],
        call_seconds: None,
        directory: None,
        script: None,
        stages: vec![],
    };
    plan.check_machine().context("the configuration makes no sense")?;
    let builder = api::Builder::new(plan, registry, script.clone(), permit);
    let engine = engine::build(script, &builder);
    let mut scope = Scope::new();
    let cfg = rhai::serde::to_dynamic(config).map_err(|e| anyhow::anyhow!("configuration: {e}"))?;
    scope.push_constant_dynamic("cfg", cfg);
    let ast = engine
        .compile_with_scope(&scope, source)
        .map_err(|e| anyhow::anyhow!(errors::render(&shown, source, e.1, &e.0.to_string())))?;
    engine.run_ast_with_scope(&mut scope, &ast).map_err(|e| anyhow::anyhow!(errors::describe(&shown, source, &e)))?;
    drop::<(Dynamic, _)>((Dynamic::UNIT, scope));
    let (plan, registry) = builder.finish();
    let mut files = std::mem::take(&mut *builder.modules.lock().unwrap_or_else(PoisonError::into_inner));
    files.insert(String::new(), Compiled { ast, name: shown.clone(), import: String::new(), text: source.clone() });
    builder.runtime.fill(engine, files);
    plan.check(&registry).with_context(|| format!("{shown}: the plan does not hold together"))?;
    if plan.stages.is_empty() {
        anyhow::bail!(
            "{shown}: the script makes no stages; call online_preference, evaluate or another stage function"
        );
    }
    Ok((plan, registry))
}
