//! `import`: from the importing script's folder, then from scripts/ here, in motrain's home, and in the binary. Nothing outside these folders is read.

use super::api::Scripted;
use crate::{locate, shipped};
use anyhow::Result;
use motrain_engine::plan::ScriptSource;
use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest chain of modules that import each other.
const MAX_DEPTH: usize = 16;

/// A script or module, with its name and text for error messages.
#[derive(Clone)]
pub struct Source {
    pub name: String,
    /// What it was imported as; "" for the script.
    pub import: String,
    pub text: String,
}

/// Modules by path, and the script itself under "".
pub type Files = BTreeMap<String, Source>;

pub struct Modules {
    roots: Vec<PathBuf>,
    /// Texts that a saved plan brings along, by import name: they win over files.
    saved: BTreeMap<String, String>,
    /// What was imported, for functions that are called after the script has run.
    loaded: Arc<Mutex<Files>>,
}

thread_local! {
    /// The imports under way, the first outside.
    static OPEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Modules {
    pub fn for_script(script: &ScriptSource, loaded: Arc<Mutex<Files>>) -> Self {
        let saved = script.modules.clone();
        let beside = Path::new(&script.path).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut roots = vec![beside.to_owned(), PathBuf::from("scripts")];
        roots.extend(locate::home().map(|home| home.join("scripts")));
        Self { roots: roots.iter().filter_map(|r| r.canonicalize().ok()).collect(), saved, loaded }
    }

    fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let file = format!("{name}.rhai");
        let within = |path: &PathBuf| self.roots.iter().any(|root| path.starts_with(root));
        let on_disk = self.roots.iter().find_map(|root| root.join(&file).canonicalize().ok().filter(within));
        on_disk.map_or_else(|| shipped::find(&Path::new("scripts").join(&file)), |path| Ok(Some(path)))
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        name: &str,
        position: Position,
    ) -> Scripted<Shared<Module>> {
        OPEN.with_borrow_mut(|open| enter(open, name))
            .map_err(|what| EvalAltResult::ErrorRuntime(what.into(), position))?;
        let module = self.load(engine, name, position);
        OPEN.with_borrow_mut(Vec::pop);
        module
    }
}

fn enter(open: &mut Vec<String>, name: &str) -> std::result::Result<(), String> {
    let circle = open.iter().any(|n| n == name);
    if circle || open.len() == MAX_DEPTH {
        let chain: Vec<&str> = open.iter().map(String::as_str).chain([name]).collect();
        let what = if circle { "these modules import each other in a circle" } else { "imports are too deep" };
        return Err(format!("{what}: {}", chain.join(" → ")));
    }
    open.push(name.to_owned());
    Ok(())
}

impl Modules {
    fn load(&self, engine: &Engine, name: &str, position: Position) -> Scripted<Shared<Module>> {
        let failed = |what: String| Box::new(EvalAltResult::ErrorRuntime(what.into(), position));
        let saved = self.saved.contains_key(name).then(|| PathBuf::from(format!("{name}.rhai")));
        let path = saved
            .map_or_else(|| self.find(name), |path| Ok(Some(path)))
            .map_err(|e| failed(format!("{e:#}")))?
            .ok_or_else(|| Box::new(EvalAltResult::ErrorModuleNotFound(name.to_owned(), position)))?;
        let text = match self.saved.get(name) {
            Some(text) => text.clone(),
            None => locate::text(&path).map_err(|e| failed(format!("{}: {e}", path.display())))?,
        };
        let mut ast = engine
            .compile(&text)
            .map_err(|e| failed(format!("{}:{e}", path.file_name().unwrap_or_default().to_string_lossy())))?;
        ast.set_source(path.to_string_lossy().as_ref());
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = Source { name: file, import: name.to_owned(), text };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(path.to_string_lossy().into_owned(), source);
        drop(loaded);
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map(Shared::new)
    }
}
