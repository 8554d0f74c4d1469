//! Reading a library's description: no further than its structs say, and within bounds that honest ones keep.

use super::inspect::entry_name;
use super::library::Described;
use motrain_abi as abi;
use motrain_core::registry::Kind;
use serde_json::Value;
use std::path::Path;

/// Bounds in bytes, and of components: lengths beyond them are mistakes, and reading on would crash.
const MOST_NAME: usize = 256;
const MOST_SUMMARY: usize = 4096;
const MOST_SCHEMA: usize = 1 << 20;
const MOST_COMPONENTS: usize = 1000;

type Read<T> = Result<T, String>;

/// A field of a plugin's struct, read only if it lies inside the struct's `struct_size`.
macro_rules! field {
    ($pointer:expr, $type:ty, $field:ident) => {{
        let pointer: *const $type = $pointer;
        if pointer.is_aligned() {
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
        } else {
            Err(format!("{} lies at an address that is not aligned", stringify!($type).trim_start_matches("abi::")))
        }
    }};
}
pub(super) use field;

/// Name, version and components.
///
/// # Safety
/// `plugin` is null or what a library's entry returned: structs that begin with their size and live as long as the process.
pub unsafe fn describe(plugin: *const abi::Plugin, path: &Path) -> Read<(String, String, Vec<Described>)> {
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
        let name = label(field!(plugin, abi::Plugin, name)?, "the plugin's name")?;
        let version = label(field!(plugin, abi::Plugin, version)?, "the plugin's version")?;
        let count = field!(plugin, abi::Plugin, component_count)?;
        let list = field!(plugin, abi::Plugin, components)?;
        if count == 0 || list.is_null() {
            return Err("offers no components".into());
        }
        if count > MOST_COMPONENTS {
            return Err(format!("says that it has {count} components, but at most {MOST_COMPONENTS} are read"));
        }
        let mut components = Vec::new();
        for i in 0..count {
            let component = list.add(i).read();
            let found =
                if component.is_null() { Err("is null".to_owned()) } else { describe_component(component, path) };
            components.push(found.map_err(|what| format!("component {}: {what}", i + 1))?);
        }
        Ok((name, version, components))
    }
}

unsafe fn describe_component(c: *const abi::Component, path: &Path) -> Read<Described> {
    // SAFETY: as in `describe`.
    unsafe {
        let kind = match field!(c, abi::Component, kind)? {
            abi::KIND_SAMPLER => Kind::Sampler,
            abi::KIND_CONDITIONER => Kind::Conditioner,
            abi::KIND_REWARD => Kind::Reward,
            abi::KIND_LABEL => Kind::Label,
            abi::KIND_LOSS => Kind::Loss,
            abi::KIND_JUDGE => Kind::Judge,
            other => return Err(format!("has the unknown kind {other}; it may need a newer motrain")),
        };
        let name = label(field!(c, abi::Component, name)?, "its name")?;
        if name.is_empty() {
            return Err("has no name".into());
        }
        let schema = text(field!(c, abi::Component, schema)?, "its schema", MOST_SCHEMA)?;
        let schema: Value =
            serde_json::from_str(&schema).map_err(|e| format!("\"{name}\": its schema is no JSON: {e}"))?;
        if !schema.is_object() {
            return Err(format!("\"{name}\": its schema is no JSON object"));
        }
        let functions = field!(c, abi::Component, functions)?;
        if functions.is_null() {
            return Err(format!("\"{name}\" has no functions"));
        }
        let summary = text(field!(c, abi::Component, summary)?, "its summary", MOST_SUMMARY)?;
        Ok(Described {
            kind,
            who: format!("{} \"{name}\" of {}", kind.name(), path.display()),
            flags: field!(c, abi::Component, flags)?,
            summary: summary.replace(char::is_control, " "),
            schema,
            create: field!(c, abi::Component, create)?.ok_or(format!("\"{name}\" has no create"))?,
            destroy: field!(c, abi::Component, destroy)?,
            functions,
            name,
        })
    }
}

/// A text that is shown: one line.
unsafe fn label(given: abi::Str, what: &str) -> Read<String> {
    // SAFETY: promised by the caller.
    let found = unsafe { text(given, what, MOST_NAME)? };
    if found.contains(char::is_control) {
        return Err(format!("{what} has control characters: {found:?}"));
    }
    Ok(found)
}

/// A plugin's text, copied.
///
/// # Safety
/// The plugin lends as many bytes as it says.
pub(super) unsafe fn text(text: abi::Str, what: &str, most: usize) -> Read<String> {
    if text.length == 0 {
        return Ok(String::new());
    }
    if text.data.is_null() {
        return Err(format!("{what} is null but {} bytes long", text.length));
    }
    if text.length > most {
        return Err(format!("{what} is {} bytes long, but at most {most} are read", text.length));
    }
    // SAFETY: the plugin lends `length` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.data, text.length) };
    Ok(std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))?.to_owned())
}
