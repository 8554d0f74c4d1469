//! `import`: from the importing script's folder, then from scripts/ here and where motrain lives. Nothing outside these folders is read.

use super::functions::{Compiled, Files};
use crate::locate;
use motrain_core::plan::ScriptSource;
use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub struct Modules {
    roots: Vec<PathBuf>,
    /// Texts that a saved plan brings along, by import name: they win over files.
    saved: BTreeMap<String, String>,
    /// What was imported, for functions that are called after the script has run.
    loaded: Arc<Mutex<Files>>,
}

impl Modules {
    pub fn for_script(script: &ScriptSource, loaded: Arc<Mutex<Files>>) -> Self {
        let saved = script.modules.clone();
        let beside = Path::new(&script.path).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let roots = [beside.to_owned(), PathBuf::from("scripts"), locate::home().join("scripts")];
        Self { roots: roots.iter().filter_map(|r| r.canonicalize().ok()).collect(), saved, loaded }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        self.roots.iter().find_map(|root| {
            let path = root.join(format!("{name}.rhai")).canonicalize().ok()?;
            self.roots.iter().any(|r| path.starts_with(r)).then_some(path)
        })
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        name: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let saved = self.saved.contains_key(name).then(|| PathBuf::from(format!("{name}.rhai")));
        let path = saved
            .or_else(|| self.find(name))
            .ok_or_else(|| Box::new(EvalAltResult::ErrorModuleNotFound(name.to_owned(), position)))?;
        let text = match self.saved.get(name) {
            Some(text) => text.clone(),
            None => locate::text(&path)
                .map_err(|e| EvalAltResult::ErrorRuntime(format!("{}: {e}", path.display()).into(), position))?,
        };
        let mut ast = engine.compile(&text).map_err(|e| {
            let message = format!("{}:{e}", path.file_name().unwrap_or_default().to_string_lossy());
            EvalAltResult::ErrorRuntime(message.into(), position)
        })?;
        ast.set_source(path.to_string_lossy().as_ref());
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let compiled = Compiled { ast: ast.clone(), name: file, import: name.to_owned(), text };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(path.to_string_lossy().into_owned(), compiled);
        drop(loaded);
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map(Shared::new)
    }
}
