//! Libraries that a plugin needs and finds beside itself (`$ORIGIN` in its RUNPATH): they are its code as much as its own file.

use super::image;
use motrain_core::error::{Error, Result};
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH};
use object::read::ReadCache;
use object::read::elf::{DynamicTable, FileHeader};
use object::{File as Object, ReadRef};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Their SHA-256 by name, with those that they need in turn. `file` is the library at `path`, which has no links in it.
pub fn beside(path: &Path, file: &File) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut waiting = of(path, file);
    while let Some(path) = waiting.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if found.contains_key(&name) {
            continue;
        }
        found.insert(name, image::sha256(&path, &path)?);
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        waiting.extend(of(&path, &file));
    }
    Ok(found)
}

/// Those that one library names. Other systems than those of ELF files have other ways.
fn of(path: &Path, file: &File) -> Vec<PathBuf> {
    let cache = ReadCache::new(file);
    let (names, folders) = match Object::parse(&cache) {
        Ok(Object::Elf64(elf)) => elf.elf_dynamic_table().map(names).unwrap_or_default(),
        Ok(Object::Elf32(elf)) => elf.elf_dynamic_table().map(names).unwrap_or_default(),
        _ => Default::default(),
    };
    let own = path.parent().unwrap_or(Path::new("/"));
    let folder = |text: &str| {
        let rest = text.strip_prefix("$ORIGIN").or(text.strip_prefix("${ORIGIN}"))?;
        Some(own.join(rest.trim_start_matches('/')))
    };
    let folders: Vec<PathBuf> = folders.iter().flat_map(|list| list.split(':')).filter_map(folder).collect();
    let found = |name: &String| folders.iter().map(|f| f.join(name)).find(|p| p.is_file())?.canonicalize().ok();
    names.iter().filter_map(found).collect()
}

/// The libraries that it needs, and where it looks for them.
fn names<'d, E: FileHeader, R: ReadRef<'d>>(table: DynamicTable<'d, E, R>) -> (Vec<String>, Vec<String>) {
    let text = |tags: &[object::elf::DynamicTag]| {
        let entries = table.iter().filter(|entry| tags.contains(&entry.tag));
        entries.filter_map(|e| Some(String::from_utf8_lossy(table.string(e).ok()?).into_owned())).collect()
    };
    (text(&[DT_NEEDED]), text(&[DT_RUNPATH, DT_RPATH]))
}
