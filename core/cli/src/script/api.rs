//! What scripts can call. Components: `sampler`, `conditioner`, `label`, `loss`, `advantage`, `normaliser`, `reward`, `judge`. Stages: each of `STAGES` takes an id and
//! its options and returns a handle that later stages take. Everything is checked where it is written.

use super::extend;
use super::function::Runtime;
use super::modules::Files;
use super::values;
use crate::locate;
use motrain_core::options;
use motrain_core::registry::{Kind, Registry};
use motrain_core::rng::sha256_hex;
use motrain_engine::plan::{Component, Plan, ScriptSource, Stage};
use motrain_engine::reward::Reward;
use motrain_engine::stage::STAGES;
use motrain_host::Permit;
use rhai::serde::to_dynamic;
use rhai::{Dynamic, Engine, EvalAltResult, Map, NativeCallContext};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub type Scripted<T> = Result<T, Box<EvalAltResult>>;

/// The plan while a script builds it.
#[derive(Clone)]
pub struct Builder {
    plan: Arc<Mutex<Plan>>,
    registry: Arc<Mutex<Registry>>,
    /// What the script's own functions run in.
    pub runtime: Arc<Runtime>,
    /// The modules imported so far.
    pub modules: Arc<Mutex<Files>>,
    /// The script's folder.
    pub folder: Arc<PathBuf>,
    /// Which plugins the script may load.
    pub permit: Arc<Permit>,
    source: Arc<ScriptSource>,
    /// The functions that became components.
    functions: Arc<Mutex<Vec<(Kind, String)>>>,
}

impl Builder {
    pub fn new(plan: Plan, registry: Registry, source: ScriptSource, permit: Permit) -> Self {
        let folder = Path::new(&source.path).parent().unwrap_or(Path::new(".")).to_owned();
        Self {
            plan: Arc::new(Mutex::new(plan)),
            registry: Arc::new(Mutex::new(registry)),
            runtime: Arc::default(),
            modules: Arc::default(),
            folder: Arc::new(folder),
            permit: Arc::new(permit),
            source: Arc::new(source),
            functions: Arc::default(),
        }
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn seed(&self) -> u64 {
        self.plan().seed
    }

    /// Texts of the modules imported so far, by import name.
    fn module_texts(&self) -> BTreeMap<String, String> {
        let modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        modules.values().map(|m| (m.import.clone(), m.text.clone())).collect()
    }

    /// Functions are known by the script and the modules that they are in: their code has no other name.
    pub fn script_hash(&self) -> String {
        sha256_hex(json!([self.source.source, self.module_texts(), self.source.config]).to_string().as_bytes())
    }

    /// The plan must carry the script, so that a resumed run has its functions.
    pub fn uses_function(&self, kind: Kind, name: &str) {
        self.plan().script = Some(self.source.as_ref().clone());
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).push((kind, name.to_owned()));
    }

    pub fn functions(&self) -> Vec<(Kind, String)> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plan, with the libraries that it needs, and the registry.
    pub fn finish(&self) -> (Plan, Registry) {
        let registry = std::mem::replace(&mut *self.registry(), Registry::builtin());
        let mut plan = self.plan().clone();
        plan.plugins = plan.needed_plugins(&registry.plugins);
        if let Some(script) = &mut plan.script {
            script.modules = self.module_texts();
        }
        (plan, registry)
    }
}

pub fn register(engine: &mut Engine, builder: &Builder) {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Reward) {
        register_component(engine, builder, kind);
    }
    register_reward(engine, builder);
    for kind in STAGES {
        register_stage(engine, builder, kind.name);
    }
    extend::register(engine, builder);
    engine.register_fn("path", found);
}

/// A path of the configuration, as `locate` finds it.
fn found(context: NativeCallContext, path: &str) -> Scripted<String> {
    let found = locate::find(Path::new(path)).map_err(|e| error(&context, format!("{e:#}")))?;
    Ok(found.to_string_lossy().into_owned())
}

pub fn error(context: &NativeCallContext, message: impl std::fmt::Display) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(message.to_string().into(), context.call_position()))
}

pub fn to_json(context: &NativeCallContext, map: Map) -> Scripted<Value> {
    values::json_of(&Dynamic::from_map(map)).map_err(|e| error(context, e))
}

pub fn from_json(context: &NativeCallContext, value: &Value) -> Scripted<Dynamic> {
    to_dynamic(value).map_err(|e| error(context, e))
}

/// `sampler("dirichlet", #{ alpha: 0.7 })` → `#{ name, options }`.
fn component(context: &NativeCallContext, builder: &Builder, kind: Kind, name: &str, map: Map) -> Scripted<Value> {
    let options = to_json(context, map)?;
    builder.registry().check(kind, name, &options).map_err(|e| error(context, e))?;
    Ok(json!({ "name": name, "options": options }))
}

fn register_component(engine: &mut Engine, builder: &Builder, kind: Kind) {
    let own = builder.clone();
    engine.register_fn(kind.name(), move |context: NativeCallContext, name: &str, map: Map| -> Scripted<Dynamic> {
        from_json(&context, &component(&context, &own, kind, name, map)?)
    });
    let own = builder.clone();
    engine.register_fn(kind.name(), move |context: NativeCallContext, name: &str| -> Scripted<Dynamic> {
        from_json(&context, &component(&context, &own, kind, name, Map::new())?)
    });
    // A component as the configuration has it: #{ name: "dirichlet", options: #{ … } }.
    let own = builder.clone();
    engine.register_fn(kind.name(), move |context: NativeCallContext, map: Map| -> Scripted<Dynamic> {
        let json = to_json(&context, map)?;
        let given: Component = options::read(kind.name(), &json).map_err(|e| error(&context, e))?;
        own.registry().check(kind, &given.name, &given.options).map_err(|e| error(&context, e))?;
        from_json(&context, &json!({ "name": given.name, "options": given.options }))
    });
}

/// `reward("Helpfulness", "reward_model", #{ model: rm })`, with `#{ watch: true, scale: [0.0, 1.0] }` as a fourth argument.
fn register_reward(engine: &mut Engine, builder: &Builder) {
    let make = |context: &NativeCallContext, name: &str, component: Value, more: Map| {
        let mut reward = to_json(context, more)?;
        reward["name"] = json!(name);
        reward["source"] = component;
        options::read::<Reward>(&format!("reward \"{name}\""), &reward).map_err(|e| error(context, e))?;
        from_json(context, &reward)
    };
    let own = builder.clone();
    engine.register_fn(
        "reward",
        move |context: NativeCallContext, name: &str, source: &str, map: Map| -> Scripted<Dynamic> {
            make(&context, name, component(&context, &own, Kind::Reward, source, map)?, Map::new())
        },
    );
    let own = builder.clone();
    engine.register_fn(
        "reward",
        move |context: NativeCallContext, name: &str, source: &str, map: Map, more: Map| -> Scripted<Dynamic> {
            make(&context, name, component(&context, &own, Kind::Reward, source, map)?, more)
        },
    );
    // A component that `plugin` made: reward("Toxicity", plugin(…), #{ watch: true }).
    engine.register_fn(
        "reward",
        move |context: NativeCallContext, name: &str, source: Map, more: Map| -> Scripted<Dynamic> {
            make(&context, name, to_json(&context, source)?, more)
        },
    );
    engine.register_fn("reward", move |context: NativeCallContext, name: &str, source: Map| -> Scripted<Dynamic> {
        make(&context, name, to_json(&context, source)?, Map::new())
    });
    let own = builder.clone();
    engine.register_fn("reward", move |context: NativeCallContext, name: &str, source: &str| -> Scripted<Dynamic> {
        make(&context, name, component(&context, &own, Kind::Reward, source, Map::new())?, Map::new())
    });
}

fn register_stage(engine: &mut Engine, builder: &Builder, kind: &'static str) {
    let own = builder.clone();
    engine.register_fn(kind, move |context: NativeCallContext, id: &str, map: Map| -> Scripted<Dynamic> {
        let options = to_json(&context, map)?;
        let stage = Stage::read(kind, id, &options).map_err(|e| error(&context, e))?;
        stage.check_with(&own.registry()).map_err(|e| error(&context, e))?;
        own.plan().add(stage).map_err(|e| error(&context, e))?;
        from_json(&context, &json!({ "stage": id }))
    });
}
