//! What scripts call to bring in components of their own: `plugin`, `reward_fn`, `sampler_fn`, `conditioner_fn`, `label_fn`, `loss_fn`,
//! `judge_fn`.

use super::api::{Builder, Scripted, error, from_json, to_json};
use super::function::Function;
use super::functions::{ScriptConditioner, ScriptJudge, ScriptLabel, ScriptLoss, ScriptReward, ScriptSampler};
use motrain_core::options;
use motrain_core::registry::{Entry, Kind, Registry};
use motrain_core::schema;
use motrain_engine::reward::Reward;
use rhai::{Dynamic, Engine, FnPtr, Map, NativeCallContext};
use serde_json::{Value, json};
use std::path::PathBuf;

pub fn register(engine: &mut Engine, builder: &Builder) {
    register_plugin(engine, builder);
    for kind in Kind::OPEN {
        register_function(engine, builder, kind);
    }
}

/// `plugin("path/libx.so", "acme.toxicity", #{ threshold: 0.5 })` → a component, as `reward`, `loss`, … take it.
fn register_plugin(engine: &mut Engine, builder: &Builder) {
    let load = |context: &NativeCallContext, builder: &Builder, path: &str, name: &str, map: Map| {
        let file = builder.found(path).map_err(|e| error(context, format!("{e:#}")))?;
        let request = motrain_host::Request { path: file, sha256: None, permit: Some(builder.permit.as_ref().clone()) };
        let options = to_json(context, map)?;
        let mut registry = builder.registry();
        let library = motrain_host::load(&mut registry, &request, builder.seed()).map_err(|e| error(context, e))?;
        let Some(found) = library.components.iter().find(|c| c.name == name) else {
            let names: Vec<&str> = library.components.iter().map(|c| c.name.as_str()).collect();
            return Err(error(context, format!("{path} has no component \"{name}\"; it has {}", names.join(", "))));
        };
        registry.check(found.kind, name, &options).map_err(|e| error(context, e))?;
        from_json(context, &json!({ "name": name, "options": options }))
    };
    let own = builder.clone();
    engine.register_fn(
        "plugin",
        move |context: NativeCallContext, path: &str, name: &str, map: Map| -> Scripted<Dynamic> {
            load(&context, &own, path, name, map)
        },
    );
    let own = builder.clone();
    engine.register_fn("plugin", move |context: NativeCallContext, path: &str, name: &str| -> Scripted<Dynamic> {
        load(&context, &own, path, name, Map::new())
    });
}

/// `loss_fn("mine", |pair| …)` registers a component and returns it; `reward_fn` returns a whole reward of that name, to which a
/// third argument adds `#{ watch: true, scale: [0.0, 1.0] }`.
fn register_function(engine: &mut Engine, builder: &Builder, kind: Kind) {
    let make = move |context: &NativeCallContext, builder: &Builder, name: &str, pointer: FnPtr, more: Map| {
        let function = Function::new(context, builder.runtime.clone(), kind, name, pointer)
            .map_err(|what| error(context, format!("{}_fn(\"{name}\"): the function {what}", kind.name())))?;
        let owner = function.owner().to_owned();
        add(&mut builder.registry(), kind, name, function).map_err(|e| error(context, e))?;
        builder.uses_function(kind, name);
        let component = json!({ "name": name, "options": { "script": builder.script_hash() } });
        if kind != Kind::Reward {
            return from_json(context, &component);
        }
        let mut reward = to_json(context, more)?;
        reward["name"] = json!(name);
        reward["source"] = component;
        options::read::<Reward>(&owner, &reward).map_err(|e| error(context, e))?;
        from_json(context, &reward)
    };
    let name = format!("{}_fn", kind.name());
    let own = builder.clone();
    engine.register_fn(&name, move |context: NativeCallContext, name: &str, f: FnPtr| -> Scripted<Dynamic> {
        make(&context, &own, name, f, Map::new())
    });
    if kind == Kind::Reward {
        let own = builder.clone();
        engine.register_fn(
            &name,
            move |context: NativeCallContext, name: &str, f: FnPtr, more: Map| -> Scripted<Dynamic> {
                make(&context, &own, name, f, more)
            },
        );
    }
}

fn add(registry: &mut Registry, kind: Kind, name: &str, function: Function) -> motrain_core::Result<()> {
    let summary = function.summary();
    let properties = json!({ "properties": { "script": { "type": "string", "description": "hash of the script" } } });
    let owner = function.owner().to_owned();
    // Each kind wraps the function in its own adapter.
    macro_rules! entry {
        ($section:ident, $adapter:expr) => {{
            let described = properties.clone();
            registry.$section.add(Entry::dynamic(name.to_owned(), summary, properties, move |options: &Value| {
                schema::check(&owner, &described, options)?;
                Ok(Box::new($adapter(function.clone())) as _)
            }))
        }};
    }
    match kind {
        Kind::Sampler => entry!(samplers, ScriptSampler),
        Kind::Conditioner => entry!(conditioners, ScriptConditioner),
        Kind::Reward => entry!(rewards, ScriptReward),
        Kind::Label => entry!(labels, ScriptLabel),
        Kind::Loss => entry!(losses, ScriptLoss),
        Kind::Judge => entry!(judges, ScriptJudge),
        Kind::Advantage | Kind::Normaliser => Err(motrain_core::Error::Invalid(format!(
            "no function of a script can be a component of the kind \"{}\"",
            kind.name()
        ))),
    }
}

impl Builder {
    /// A plugin's path: as given, beside the script, or as `locate` finds it.
    fn found(&self, path: &str) -> anyhow::Result<PathBuf> {
        let beside = self.folder.join(path);
        let found = crate::locate::find(path.as_ref())?;
        Ok(if !found.exists() && beside.exists() { beside } else { found })
    }
}
