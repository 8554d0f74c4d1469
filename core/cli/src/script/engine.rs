//! The Rhai engine with every limit in one place: a script cannot loop for ever, fill the memory, flood the terminal or read files.

use super::api::{self, Builder};
use super::modules::Modules;
use super::watch;
use motrain_engine::plan::ScriptSource;
use rhai::{Engine, EvalAltResult, ImmutableString, OptimizationLevel};

const MAX_TEXT: usize = 1 << 20;

pub fn build(script: &ScriptSource, builder: &Builder) -> Engine {
    let mut engine = Engine::new();
    harden(&mut engine);
    engine.set_module_resolver(Modules::for_script(script, builder.modules.clone()));
    api::register(&mut engine, builder);
    engine
}

fn harden(engine: &mut Engine) {
    // The optimiser puts constants in the place of their names, on the left of `=` too, where Rhai then panics.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_max_operations(5_000_000);
    engine.set_max_call_levels(64);
    engine.set_max_expr_depths(128, 64);
    engine.set_max_string_size(MAX_TEXT);
    // Lists in lists are as deep as they are long, and each level is a level of the stack.
    engine.set_max_array_size(10_000);
    engine.set_max_map_size(10_000);
    engine.set_max_modules(64);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    engine.disable_symbol("eval");
    engine.register_fn("replace", replace);
    engine.on_print(watch::print);
    engine.on_debug(|text, _, _| watch::print(text));
    engine.on_progress(watch::progress);
}

/// Rhai's own builds the text before it looks how long it is.
fn replace(text: &mut ImmutableString, find: &str, by: &str) -> Result<(), Box<EvalAltResult>> {
    let longer = text.matches(find).count().saturating_mul(by.len());
    if text.len().saturating_add(longer) > MAX_TEXT {
        return Err(format!("replace() would make a text of more than {MAX_TEXT} bytes").into());
    }
    *text = text.replace(find, by).into();
    Ok(())
}
