//! A function of the script: called after the script has run, in the state that it was registered in.

use super::errors;
use super::modules::Files;
use super::watch;
use motrain_core::registry::Kind;
use motrain_core::{Error, Result, stop};
use rhai::{Array, Dynamic, Engine, FnPtr, FuncArgs, GlobalRuntimeState, Locked, Map, NativeCallContext, Position};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError};

/// The engine that functions run in, and the script's texts for error messages; filled when the script has run.
#[derive(Default)]
pub struct Runtime(OnceLock<(Engine, Files)>);

impl Runtime {
    pub fn fill(&self, engine: Engine, files: Files) {
        let _ = self.0.set((engine, files));
    }
}

/// What a function of each kind is given, in order. A reward function may leave out the last.
fn parameters(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Reward => &["prompt", "answer", "finished"],
        Kind::Sampler => &["objectives", "index", "uniform"],
        Kind::Conditioner => &["objectives", "weights", "text"],
        Kind::Label => &["weights", "first", "second"],
        Kind::Loss => &["pair"],
        Kind::Judge => &["prompt", "first", "second"],
        Kind::Advantage | Kind::Normaliser => &[],
    }
}

/// One function under the name that it was registered by.
#[derive(Clone)]
pub struct Function {
    runtime: Arc<Runtime>,
    pointer: FnPtr,
    /// Functions, imports and constants that it sees.
    environment: Arc<GlobalRuntimeState>,
    /// The path of the module that it was written in; "" for the script.
    file: String,
    /// `loss "mine"`, for error messages.
    owner: String,
}

impl Function {
    /// Takes the function and a copy of all that it can see: what the script does later changes nothing.
    pub fn new(
        context: &NativeCallContext,
        runtime: Arc<Runtime>,
        kind: Kind,
        name: &str,
        mut pointer: FnPtr,
    ) -> std::result::Result<Self, String> {
        let mut environment = context.global_runtime_state().clone();
        environment.level = 0;
        environment.num_operations = Default::default();
        check_parameters(kind, &pointer, &environment)?;
        pointer.iter_curry_mut().for_each(|value| *value = frozen(value));
        if let Some(constants) = &mut environment.constants {
            let now = constants.read().unwrap_or_else(PoisonError::into_inner);
            let copy = now.iter().map(|(name, value)| (name.clone(), frozen(value))).collect();
            drop(now);
            *constants = Locked::new(copy).into();
        }
        let file = context.call_source().unwrap_or_default().to_owned();
        let owner = format!("{} \"{name}\"", kind.name());
        Ok(Self { runtime, pointer, environment: environment.into(), file, owner })
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// For `motrain list`.
    pub fn summary(&self) -> String {
        match self.pointer.is_anonymous() {
            true => "a function of the script".into(),
            false => format!("a function of the script: {}", self.pointer.fn_name()),
        }
    }

    pub fn call(&self, args: impl FuncArgs) -> std::result::Result<Dynamic, String> {
        let Some((engine, files)) = self.runtime.0.get() else {
            return Err("is called while its script still runs".into());
        };
        stop::obey().map_err(|e| e.to_string())?;
        let mut values: Vec<Dynamic> = Vec::new();
        args.parse(&mut values);
        let context = (engine, self.pointer.fn_name(), None, &*self.environment, Position::NONE).into();
        let call = || watch::over(|| self.pointer.call_raw(&context, None, values));
        let result = catch_unwind(AssertUnwindSafe(call)).map_err(|_| errors::PANICKED.to_owned())?;
        result.map_err(|e| match files.get(&self.file).or(files.get("")) {
            Some(at) => errors::describe(&at.name, &at.text, &e),
            None => e.to_string(),
        })
    }

    /// Whether it can be called with that many values.
    pub fn takes(&self, values: usize) -> bool {
        counts(&self.pointer, &self.environment).contains(&values)
    }

    pub fn fail<T>(&self, result: std::result::Result<T, String>) -> Result<T> {
        result.map_err(|what| stop::or(Error::Component { owner: self.owner.clone(), what }))
    }
}

fn check_parameters(kind: Kind, pointer: &FnPtr, environment: &GlobalRuntimeState) -> std::result::Result<(), String> {
    let wanted = parameters(kind);
    let least = if kind == Kind::Reward { wanted.len() - 1 } else { wanted.len() };
    let counts = counts(pointer, environment);
    let Some(has) = counts.first().filter(|_| !counts.iter().any(|n| (least..=wanted.len()).contains(n))) else {
        return Ok(());
    };
    Err(format!(
        "takes {has} {}, but a {} function is given {least}: |{}|",
        if *has == 1 { "parameter" } else { "parameters" },
        kind.name(),
        wanted[..least].join(", ")
    ))
}

/// How many parameters the functions of that name take; captured variables come before them and do not count.
fn counts(pointer: &FnPtr, environment: &GlobalRuntimeState) -> Vec<usize> {
    let all = environment.lib.iter().flat_map(|lib| lib.iter_script_fn_info());
    let own = all.filter(|(_, _, name, ..)| *name == pointer.fn_name());
    own.filter_map(|(_, _, _, count, _)| count.checked_sub(pointer.curry().len())).collect()
}

/// A copy that shares nothing with the script's variables.
fn frozen(value: &Dynamic) -> Dynamic {
    let mut value = value.flatten_clone();
    if let Some(mut array) = value.write_lock::<Array>() {
        array.iter_mut().for_each(|v| *v = frozen(v));
    } else if let Some(mut map) = value.write_lock::<Map>() {
        map.values_mut().for_each(|v| *v = frozen(v));
    } else if let Some(mut pointer) = value.write_lock::<FnPtr>() {
        pointer.iter_curry_mut().for_each(|v| *v = frozen(v));
    }
    value
}
