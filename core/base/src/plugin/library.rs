//! From a path to a loaded library: allowed folder, pinned hash, entry symbol and layout are checked before its code runs.

use crate::error::{Error, Result};
use crate::plan::PluginFile;
use crate::registry::Kind;
use crate::rng::sha256_hex;
use motrain_abi as abi;
use object::{Object, ObjectSymbol};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: PathBuf,
    /// The SHA-256 that the file must have.
    pub sha256: Option<String>,
    /// The folders that it must lie in; `None` for a library that the user named.
    pub roots: Option<Vec<PathBuf>>,
}

/// A component as a library describes it.
pub struct Described {
    pub kind: Kind,
    pub flags: u32,
    pub name: String,
    pub summary: String,
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
}

/// A loaded library.
pub struct Library {
    pub file: PluginFile,
    pub name: String,
    pub version: String,
    pub components: Vec<Described>,
}

/// Libraries by canonical path. They are never unloaded: thread-local destructors make that unsound.
static LOADED: Mutex<BTreeMap<PathBuf, &'static Library>> = Mutex::new(BTreeMap::new());

/// Loads a library, or finds it loaded.
pub fn open(request: &Request) -> Result<&'static Library> {
    let shown = &request.path;
    let path = shown.canonicalize().map_err(|_| Error::file(shown, "there is no such plugin; build it first"))?;
    if let Some(roots) = &request.roots {
        let inside = roots.iter().filter_map(|r| r.canonicalize().ok()).any(|root| path.starts_with(root));
        if !inside {
            let roots: Vec<String> = roots.iter().map(|r| r.display().to_string()).collect();
            let what = format!(
                "a script may load plugins only from {}; add its folder to plugins.roots, or name the plugin with --plugin",
                roots.join(", ")
            );
            return Err(Error::file(shown, what));
        }
    }
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let sha256 = sha256_hex(&bytes);
    if let Some(pin) = request.sha256.as_ref().filter(|pin| !pin.eq_ignore_ascii_case(&sha256)) {
        return Err(Error::file(
            shown,
            format!("the plugin has SHA-256 {sha256}, but {pin} was asked for; rebuild or fetch the right one"),
        ));
    }
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(library) = loaded.get(&path) {
        return Ok(library);
    }
    check_symbols(shown, &bytes)?;
    let library = load(shown, path.clone(), sha256)?;
    let library: &'static Library = Box::leak(Box::new(library));
    loaded.insert(path, library);
    Ok(library)
}

/// Reads the entry symbol from the file, before any of its code runs.
fn check_symbols(path: &Path, bytes: &[u8]) -> Result<()> {
    let wanted = entry_name();
    let file = object::File::parse(bytes).map_err(|_| Error::file(path, "is no shared library"))?;
    // Mach-O puts an underscore before names.
    let names: Vec<&str> = file
        .dynamic_symbols()
        .chain(file.symbols())
        .filter_map(|s| s.name().ok())
        .map(|n| n.trim_start_matches('_'))
        .collect();
    if names.contains(&wanted) {
        return Ok(());
    }
    let what = match names.iter().find(|n| n.starts_with("motrain_plugin_v")) {
        Some(other) => format!(
            "was built for {other}, and this motrain ({}) loads {wanted} ({}.{}); rebuild it against this version's SDK or header",
            env!("CARGO_PKG_VERSION"),
            abi::VERSION_MAJOR,
            abi::VERSION_MINOR
        ),
        None => format!("is no motrain plugin: it exports no {wanted}; in Rust, export! does that"),
    };
    Err(Error::file(path, what))
}

fn entry_name() -> &'static str {
    abi::ENTRY.to_str().unwrap_or_default()
}

fn load(shown: &Path, path: PathBuf, sha256: String) -> Result<Library> {
    let bad = |what: String| Error::file(shown, what);
    // SAFETY: loading runs the library's initialisers: a native plugin is trusted code.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|e| bad(format!("cannot be loaded: {e}")))?;
    // SAFETY: the symbol's type is fixed by its name.
    let plugin = unsafe {
        let entry: libloading::Symbol<abi::Entry> =
            library.get(abi::ENTRY).map_err(|e| bad(format!("cannot be loaded: {e}")))?;
        entry()
    };
    std::mem::forget(library);
    // SAFETY: the entry returned a description that lives as long as the process, or null.
    unsafe { describe(plugin, path, sha256) }.map_err(bad)
}

type Read<T> = std::result::Result<T, String>;

/// A field of a plugin's struct, read only if it lies inside the struct's `struct_size`.
macro_rules! field {
    ($pointer:expr, $type:ty, $field:ident) => {{
        let pointer: *const $type = $pointer;
        let size = pointer.cast::<usize>().read();
        let end = std::mem::offset_of!($type, $field) + size_of_val(&(*pointer).$field);
        if end <= size {
            Ok((*pointer).$field)
        } else {
            Err(format!(
                "{} has struct_size {size} and ends before its field {}; set struct_size to sizeof the struct",
                stringify!($type).trim_start_matches("abi::"),
                stringify!($field)
            ))
        }
    }};
}
pub(super) use field;

unsafe fn describe(plugin: *const abi::Plugin, path: PathBuf, sha256: String) -> Read<Library> {
    if plugin.is_null() {
        return Err(format!("{} returned nothing", entry_name()));
    }
    // SAFETY: `plugin` points to a struct that begins with struct_size; `field!` reads no further than that.
    unsafe {
        let (major, minor) = (field!(plugin, abi::Plugin, version_major)?, field!(plugin, abi::Plugin, version_minor)?);
        if major != abi::VERSION_MAJOR {
            return Err(format!(
                "says that it was built for version {major}.{minor}, and this motrain loads {}.x; rebuild it",
                abi::VERSION_MAJOR
            ));
        }
        let name = text(field!(plugin, abi::Plugin, name)?, "the plugin's name")?;
        let version = text(field!(plugin, abi::Plugin, version)?, "the plugin's version")?;
        let count = field!(plugin, abi::Plugin, component_count)?;
        let list = field!(plugin, abi::Plugin, components)?;
        if count == 0 || list.is_null() {
            return Err("offers no components".into());
        }
        let mut components = Vec::new();
        for i in 0..count {
            let component = list.add(i).read();
            let found = if component.is_null() { Err("is null".to_owned()) } else { describe_component(component) };
            components.push(found.map_err(|what| format!("component {}: {what}", i + 1))?);
        }
        let names = components.iter().map(|c: &Described| format!("{} {}", c.kind.name(), c.name)).collect();
        let file = PluginFile { path: path.to_string_lossy().into_owned(), sha256, components: names };
        Ok(Library { file, name, version, components })
    }
}

unsafe fn describe_component(c: *const abi::Component) -> Read<Described> {
    // SAFETY: as in `describe`.
    unsafe {
        let kind = match field!(c, abi::Component, kind)? {
            abi::KIND_SAMPLER => Kind::Sampler,
            abi::KIND_CONDITIONER => Kind::Conditioner,
            abi::KIND_REWARD => Kind::Reward,
            abi::KIND_LABEL => Kind::Label,
            abi::KIND_LOSS => Kind::Loss,
            other => return Err(format!("has the unknown kind {other}; it may need a newer motrain")),
        };
        let name = text(field!(c, abi::Component, name)?, "its name")?;
        if name.is_empty() {
            return Err("has no name".into());
        }
        let schema = text(field!(c, abi::Component, schema)?, "its schema")?;
        let schema: Value =
            serde_json::from_str(&schema).map_err(|e| format!("\"{name}\": its schema is no JSON: {e}"))?;
        if !schema.is_object() {
            return Err(format!("\"{name}\": its schema is no JSON object"));
        }
        let functions = field!(c, abi::Component, functions)?;
        if functions.is_null() {
            return Err(format!("\"{name}\" has no functions"));
        }
        Ok(Described {
            kind,
            flags: field!(c, abi::Component, flags)?,
            summary: text(field!(c, abi::Component, summary)?, "its summary")?,
            schema,
            create: field!(c, abi::Component, create)?.ok_or(format!("\"{name}\" has no create"))?,
            destroy: field!(c, abi::Component, destroy)?,
            functions,
            name,
        })
    }
}

/// A plugin's text, copied.
pub(super) unsafe fn text(text: abi::Str, what: &str) -> Read<String> {
    if text.length == 0 {
        return Ok(String::new());
    }
    if text.data.is_null() {
        return Err(format!("{what} is null but {} bytes long", text.length));
    }
    // SAFETY: the plugin lends `length` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.data, text.length) };
    Ok(std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))?.to_owned())
}
