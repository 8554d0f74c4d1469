//! The Rhai engine, hardened: a script cannot loop for ever, fill the memory or read files.

use super::api::{self, Builder};
use super::modules::Modules;
use motrain_core::plan::ScriptSource;
use rhai::Engine;

pub fn build(script: &ScriptSource, builder: &Builder) -> Engine {
    let mut engine = Engine::new();
    harden(&mut engine);
    engine.set_module_resolver(Modules::for_script(script, builder.modules.clone()));
    engine.on_print(|text| tracing::info!("{text}"));
    api::register(&mut engine, builder);
    engine
}

/// Every limit in one place.
fn harden(engine: &mut Engine) {
    engine.set_max_operations(5_000_000);
    engine.set_max_call_levels(64);
    engine.set_max_expr_depths(128, 64);
    engine.set_max_string_size(1 << 20);
    engine.set_max_array_size(100_000);
    engine.set_max_map_size(10_000);
    engine.set_max_modules(64);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    engine.disable_symbol("eval");
}
