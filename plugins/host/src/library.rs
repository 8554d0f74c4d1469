//! From a path to a loaded library: permission, pinned hash, format and entry symbol are checked before its code runs.

use super::death;
use super::describe::describe;
use super::image::{self, Image};
use super::inspect::{entry_name, inspect};
use super::needs;
use super::reason::reason;
use super::running::{self, Call};
use libloading::os::unix::{Library as Loaded, RTLD_LOCAL, RTLD_NOW, Symbol};
use motrain_abi as abi;
use motrain_core::error::{Error, Result};
use motrain_core::plan::PluginFile;
use motrain_core::registry::Kind;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A file; its real path is what counts.
    pub path: PathBuf,
    /// The SHA-256 that the file must have.
    pub sha256: Option<String>,
    /// What allows it; `None` for a library that the user named.
    pub permit: Option<Permit>,
}

/// Which libraries a script or a saved plan may load.
#[derive(Clone, Debug)]
pub struct Permit {
    /// Who asks, for the message.
    pub asker: Asker,
    /// Those that lie in these folders,
    pub roots: Vec<PathBuf>,
    /// and those of these SHA-256 hashes.
    pub hashes: BTreeSet<String>,
}

/// Who wants a library that the user did not name.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A script, by `plugin(…)`.
    Script,
    /// A run folder's plan, by `--resume` and others.
    SavedPlan,
}

impl Permit {
    fn check(&self, path: &Path, shown: &Path, sha256: &str) -> Result<()> {
        let inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| path.starts_with(root));
        if self.hashes.contains(sha256) || self.roots.iter().any(inside) {
            return Ok(());
        }
        let what = match self.asker {
            Asker::Script => {
                let roots: Vec<String> = self.roots.iter().map(|r| r.display().to_string()).collect();
                format!(
                    "a script may load plugins only from {}; add its folder to plugins.roots, or name the plugin with --plugin",
                    roots.join(", ")
                )
            }
            Asker::SavedPlan => format!(
                "the run's plan names this library (SHA-256 {sha256}), and nothing of yours allows it; native code can do whatever you \
                 can. If you trust it, add to this command: --plugin {}",
                shown.display()
            ),
        };
        Err(Error::NotAllowed { path: shown.to_owned(), what })
    }
}

/// A component as a library describes it.
pub struct Described {
    /// Which of the six it is.
    pub kind: Kind,
    /// `FLAG_…` of the interface, added up.
    pub flags: u32,
    /// As scripts name it.
    pub name: String,
    /// The component and its library.
    pub who: String,
    /// One line for `motrain list`.
    pub summary: String,
    /// JSON Schema of its options.
    pub schema: Value,
    pub(super) create:
        unsafe extern "C" fn(abi::Str, u64, *mut *mut std::ffi::c_void, *mut abi::ErrorText) -> abi::Status,
    pub(super) destroy: abi::Destroy,
    pub(super) functions: *const std::ffi::c_void,
}

// SAFETY: a description is only read, and lives as long as the process.
unsafe impl Send for Described {}
// SAFETY: as above.
unsafe impl Sync for Described {}

impl Described {
    /// `loss "acme.robust"`, as errors name it.
    pub fn owner(&self) -> String {
        format!("{} \"{}\"", self.kind.name(), self.name)
    }

    /// `loss acme.robust`, as plans name it.
    fn key(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }
}

/// A loaded library.
pub struct Library {
    /// What the plan remembers of it.
    pub file: PluginFile,
    /// By its own account.
    pub name: String,
    /// By its own account.
    pub version: String,
    /// All that it offers.
    pub components: Vec<Described>,
}

/// Libraries by canonical path. They are never unloaded: thread-local destructors make that unsound.
static LOADED: Mutex<BTreeMap<PathBuf, &'static Library>> = Mutex::new(BTreeMap::new());

/// Loads a library, or finds it loaded.
pub fn open(request: &Request) -> Result<&'static Library> {
    let shown = &request.path;
    let path = shown.canonicalize().map_err(|_| Error::file(shown, "there is no such plugin; build it first"))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded.get(&path) {
        permitted(request, &path, &library.file.sha256)?;
        if image::sha256(&path, shown)? != library.file.sha256 {
            return Err(Error::file(shown, "has changed since this process loaded it; start motrain again"));
        }
        return Ok(library);
    }
    let image = Image::read(&path, shown)?;
    permitted(request, &path, &image.sha256)?;
    inspect(shown, &image.file)?;
    let needs = needs::beside(&path, &image.file)?;
    let library: &'static Library = Box::leak(Box::new(load(shown, &path, image, needs)?));
    loaded.insert(path, library);
    Ok(library)
}

fn permitted(request: &Request, path: &Path, sha256: &str) -> Result<()> {
    let shown = &request.path;
    if let Some(pin) = request.sha256.as_ref().filter(|pin| !pin.eq_ignore_ascii_case(sha256)) {
        return Err(Error::file(
            shown,
            format!("the plugin has SHA-256 {sha256}, but {pin} was asked for; rebuild or fetch the right one"),
        ));
    }
    request.permit.as_ref().map_or(Ok(()), |permit| permit.check(path, shown, sha256))
}

/// Binds every symbol at once, so that a missing one is known now and not at the first call of it.
fn load(shown: &Path, path: &Path, image: Image, needs: BTreeMap<String, String>) -> Result<Library> {
    let bad = |what: String| Error::file(shown, what);
    let who: &'static str = String::leak(path.display().to_string());
    death::suspect(who);
    // SAFETY: loading runs the library's initialisers: a native plugin is trusted code.
    let open = || unsafe { Loaded::open(Some(&image.path), RTLD_NOW | RTLD_LOCAL) };
    let library = running::run(Call { who, function: "the initialisers", number: 1 }, open);
    let library = library.map_err(|e| bad(reason(&e, &image, shown)))?;
    // SAFETY: the symbol's type is fixed by its name.
    let entry: Symbol<abi::Entry> =
        unsafe { library.get(abi::ENTRY.to_bytes_with_nul()) }.map_err(|e| bad(reason(&e, &image, shown)))?;
    // SAFETY: as above.
    let plugin = running::run(Call { who, function: entry_name(), number: 1 }, || unsafe { entry() });
    std::mem::forget(library);
    let sha256 = image.keep();
    // SAFETY: the entry returned a description that lives as long as the process, or null.
    let (name, version, components) = unsafe { describe(plugin, path) }.map_err(bad)?;
    let names = components.iter().map(Described::key).collect();
    let folders = components.iter().filter_map(named_folders).collect();
    let file = PluginFile { path: path.to_string_lossy().into_owned(), sha256, components: names, needs, folders };
    Ok(Library { file, name, version, components })
}

/// A component and its options that name a model folder, if it has some.
fn named_folders(component: &Described) -> Option<(String, Vec<String>)> {
    let options = component.schema["properties"].as_object()?;
    let named = options.iter().filter(|(_, option)| option["format"] == "path");
    let names: Vec<String> = named.map(|(name, _)| name.clone()).collect();
    (!names.is_empty()).then(|| (component.key(), names))
}
