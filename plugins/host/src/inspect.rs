//! What a file is, before any of its code runs: a shared library for this machine that defines the entry symbol.

use motrain_abi as abi;
use motrain_core::error::{Error, Result};
use object::read::ReadCache;
use object::{Architecture, BinaryFormat, FileKind, Object, ObjectKind, ObjectSymbol, ReadRef, SymbolKind};
use std::fs::File;
use std::path::Path;

const HOW: &str = "link it with -shared, or in Rust with crate-type = [\"cdylib\"]";

pub fn entry_name() -> &'static str {
    abi::ENTRY.to_str().unwrap_or_default()
}

pub fn inspect(shown: &Path, file: &File) -> Result<()> {
    let cache = ReadCache::new(file);
    library(&cache).and_then(|library| entry(&library)).map_err(|what| Error::file(shown, what))
}

type Found<T> = std::result::Result<T, String>;

fn library<'d, R: ReadRef<'d>>(cache: R) -> Found<object::File<'d, R>> {
    match FileKind::parse(cache) {
        Ok(FileKind::Archive) => return Err(format!("is a static archive, not a shared library; {HOW}")),
        Err(_) if cache.len() == Ok(0) => return Err("is empty; build it again".into()),
        _ => {}
    }
    let file = object::File::parse(cache).map_err(|e| match FileKind::parse(cache) {
        Ok(_) => format!("is damaged ({e}); build it again"),
        Err(_) => format!("is no shared library; {HOW}"),
    })?;
    match file.kind() {
        ObjectKind::Relocatable => return Err(format!("is an object file, not a shared library; {HOW}")),
        ObjectKind::Executable => return Err(format!("is a program, not a shared library; {HOW}")),
        _ => {}
    }
    let here = (BinaryFormat::native_object(), architecture());
    if file.format() != here.0 || here.1.is_some_and(|a| a != file.architecture()) {
        return Err(format!(
            "is a library for {:?} ({:?}), and this machine is {} ({}); build it here",
            file.architecture(),
            file.format(),
            std::env::consts::ARCH,
            std::env::consts::OS
        ));
    }
    Ok(file)
}

/// This machine's, where `object` knows it under a name.
fn architecture() -> Option<Architecture> {
    Some(match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        "arm" => Architecture::Arm,
        "riscv64" => Architecture::Riscv64,
        "loongarch64" => Architecture::LoongArch64,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        _ => return None,
    })
}

/// The entry symbol must be exported, defined, and a function.
fn entry<'d, R: ReadRef<'d>>(library: &object::File<'d, R>) -> Found<()> {
    let wanted = entry_name();
    // Mach-O keeps exported symbols among the others and puts an underscore before names.
    let mach = library.format() == BinaryFormat::MachO;
    let name = |s: &object::Symbol<'d, '_, R>| -> String {
        let name = s.name().unwrap_or_default();
        if mach { name.strip_prefix('_').unwrap_or(name) } else { name }.to_owned()
    };
    let own = || library.symbols().filter(|s| !s.is_undefined()).map(|s| (name(&s), s.kind()));
    let exported = || library.dynamic_symbols().filter(|s| !s.is_undefined()).map(|s| (name(&s), s.kind()));
    let defined: Vec<(String, SymbolKind)> = if mach { own().collect() } else { exported().collect() };
    match defined.iter().find(|(name, _)| name == wanted) {
        Some((_, SymbolKind::Data | SymbolKind::Tls)) => {
            return Err(format!("{wanted} is data in it, not a function; declare it as in motrain.h"));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    if library.dynamic_symbols().any(|s| name(&s) == wanted) {
        return Err(format!("only refers to {wanted}, which is defined elsewhere; link the file that defines it"));
    }
    if let Some((other, _)) = defined.iter().find(|(name, _)| name.starts_with("motrain_plugin_v")) {
        return Err(format!(
            "was built for {other}, and this motrain ({}) loads {wanted} ({}.{}); rebuild it against this version's SDK or header",
            env!("CARGO_PKG_VERSION"),
            abi::VERSION_MAJOR,
            abi::VERSION_MINOR
        ));
    }
    if own().any(|(name, _)| name == wanted) {
        return Err(format!("keeps {wanted} to itself; export it: not static, and with MOTRAIN_EXPORT of motrain.h"));
    }
    Err(format!("is no motrain plugin: it exports no {wanted}; in Rust, export! does that"))
}
