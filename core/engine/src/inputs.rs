//! What a plan reads from outside its run folder: known by its contents, so that it may lie anywhere.

use crate::model::{Adapter, SOFT_TOKENS};
use crate::names;
use motrain_core::{Error, Result, stop};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// SHA-256 of files and model folders by their absolute path, each read once.
pub struct Inputs {
    /// What an earlier start found: what is gone since was that, and stages that are finished do not need it any more.
    before: BTreeMap<String, String>,
    found: RefCell<BTreeMap<String, String>>,
    gone: RefCell<BTreeSet<String>>,
}

impl Inputs {
    pub fn new(before: BTreeMap<String, String>) -> Self {
        Self { before, found: RefCell::default(), gone: RefCell::default() }
    }

    pub fn fingerprint(&self, path: &str) -> Result<String> {
        let key = absolute(path);
        if let Some(found) = self.found.borrow().get(&key) {
            return Ok(found.clone());
        }
        let hash = if Path::new(path).exists() {
            fingerprint(Path::new(path))?
        } else {
            let before = self.before.get(&key).ok_or_else(|| Error::file(Path::new(path), "does not exist"))?;
            self.gone.borrow_mut().insert(key.clone());
            before.clone()
        };
        self.found.borrow_mut().insert(key, hash.clone());
        Ok(hash)
    }

    pub fn is_gone(&self, path: &str) -> bool {
        self.gone.borrow().contains(&absolute(path))
    }

    /// All that were asked for, by path.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.found.borrow().clone()
    }
}

fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| p.to_string_lossy().into_owned())
}

/// Whether a folder in a model folder is a part of it: further chat templates, and what a steering is made of. Others (checkpoints, exports)
/// are not read.
fn is_part(folder: &Path) -> bool {
    let of_a_steering = |whole: &Path| whole.join(names::STEERING).exists() && !whole.join("config.json").exists();
    let named = |name: &str| folder.file_name().is_some_and(|own| own == name);
    let of_an_adapter = named(SOFT_TOKENS) && folder.parent().is_some_and(Adapter::is_one);
    folder.parent().is_some_and(of_a_steering) || of_an_adapter || named("additional_chat_templates")
}

/// Of a file its contents; of a folder the names and contents of the files in it, hidden ones left out.
fn fingerprint(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    if path.is_dir() {
        hash_folder(path, is_part, &mut hasher)?;
        for base in bases(path) {
            hash_folder(&base, is_part, &mut hasher)?;
        }
    } else {
        hash_file(path, &mut hasher)?;
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// The bases of an adapter, or of those that a steering is made of.
fn bases(folder: &Path) -> BTreeSet<PathBuf> {
    let parts = (0..).map(|k| folder.join(names::part(k))).take_while(|part| part.is_dir());
    std::iter::once(folder.to_owned()).chain(parts).filter_map(|folder| base_of_adapter(&folder)).collect()
}

/// What an adapter changes is a part of what it says. One that cannot be found is told of where the adapter is loaded.
fn base_of_adapter(folder: &Path) -> Option<PathBuf> {
    if !Adapter::is_one(folder) || folder.join("config.json").is_file() {
        return None;
    }
    Adapter::base_in(folder).ok()
}

fn hash_folder(path: &Path, is_part: fn(&Path) -> bool, hasher: &mut Sha256) -> Result<()> {
    let hidden = |p: &PathBuf| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
    let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| !hidden(p)).collect();
    entries.sort();
    for entry in entries {
        if entry.is_file() {
            hasher.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
            hash_file(&entry, hasher)?;
        } else if is_part(&entry) && !entry.is_symlink() {
            hash_folder(&entry, |_| true, hasher)?;
        }
    }
    Ok(())
}

/// The length goes in too, so that neither names nor contents can run into each other.
fn hash_file(path: &Path, hasher: &mut Sha256) -> Result<()> {
    let failed = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(failed)?;
    hasher.update(file.metadata().map_err(failed)?.len().to_le_bytes());
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        stop::obey()?;
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_count_and_places_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (model, weights) in [("a", "1"), ("b", "1"), ("c", "2")] {
            std::fs::create_dir(at(model)).unwrap();
            std::fs::write(at(model).join("weights"), weights).unwrap();
        }
        std::fs::write(at("b/.DS_Store"), "").unwrap();
        std::fs::write(at("x.jsonl"), "rows").unwrap();
        std::fs::write(at("y.jsonl"), "rows").unwrap();
        let of = |name: &str| fingerprint(&at(name)).unwrap();
        assert_eq!((of("a"), of("x.jsonl")), (of("b"), of("y.jsonl")));
        assert_ne!(of("a"), of("c"));
        std::fs::rename(at("a/weights"), at("a/other")).unwrap();
        assert_ne!(of("a"), of("b"));
        // What a steering is made of counts, however deep; checkpoints beside it do not.
        std::fs::create_dir(at("soup")).unwrap();
        std::fs::write(at("soup/steering.json"), "{}").unwrap();
        for (part, weights) in [("b/checkpoint-5", "1"), ("soup/any/0", "1"), ("soup/any/0", "2")] {
            std::fs::create_dir_all(at(part)).unwrap();
            let whole = part.split('/').next().unwrap();
            let before = of(whole);
            std::fs::write(at(part).join("weights"), weights).unwrap();
            assert_eq!(before == of(whole), whole == "b", "{part}");
        }
        // Soft tokens count beside an adapter.
        std::fs::create_dir_all(at("c/soft_tokens")).unwrap();
        std::fs::write(at("c/adapter_config.json"), "{}").unwrap();
        let before = of("c");
        std::fs::write(at("c/soft_tokens/weights"), "1").unwrap();
        assert_ne!(before, of("c"));
    }

    #[test]
    fn what_is_gone_is_what_it_was() {
        let inputs = Inputs::new(BTreeMap::from([(absolute("data/gone.jsonl"), "abc".to_owned())]));
        assert_eq!(inputs.fingerprint("data/gone.jsonl").unwrap(), "abc");
        assert!(inputs.is_gone("data/gone.jsonl"));
        assert!(inputs.fingerprint("data/never.jsonl").unwrap_err().to_string().contains("does not exist"));
    }
}
