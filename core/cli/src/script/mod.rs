//! Rhai scripts: a script composes stages from components and its numbers come from the configuration; what it makes is a Plan.

mod api;
mod engine;
mod errors;
mod extend;
mod function;
mod functions;
mod modules;
mod trial;
mod values;
mod watch;

use crate::locate;
use anyhow::{Context, Result};
use modules::Source;
use motrain_core::registry::Registry;
use motrain_engine::plan::{Plan, ScriptSource};
use motrain_host::Permit;
use rhai::{Engine, EvalAltResult, Scope};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    let cfg = rhai::serde::to_dynamic(config).map_err(|e| anyhow::anyhow!("configuration: {e}"))?;
    let mut scope = Scope::new();
    scope.push_constant_dynamic("cfg", cfg);
    let run = || watch::over(|| evaluate(&engine, &mut scope, source));
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(errors::PANICKED.into()))
        .map_err(|e| anyhow::anyhow!(errors::describe(&shown, source, &e)))?;
    // Functions keep copies of what they captured.
    drop(scope);
    let functions = builder.functions();
    let (plan, registry) = builder.finish();
    let mut files = std::mem::take(&mut *builder.modules.lock().unwrap_or_else(PoisonError::into_inner));
    files.insert(String::new(), Source { name: shown.clone(), import: String::new(), text: source.clone() });
    builder.runtime.fill(engine, files);
    plan.check(&registry).with_context(|| format!("{shown}: the plan does not hold together"))?;
    if plan.stages.is_empty() {
        anyhow::bail!(
            "{shown}: the script makes no stages; call online_preference, evaluate or another stage function"
        );
    }
    trial::functions(&plan, &registry, &functions)?;
    Ok((plan, registry))
}

fn evaluate(engine: &Engine, scope: &mut Scope, source: &str) -> Result<(), Box<EvalAltResult>> {
    let ast = engine.compile_with_scope(scope, source)?;
    engine.run_ast_with_scope(scope, &ast)
}
