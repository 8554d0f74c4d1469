//! The run folder: where everything lies in it, and the lock that keeps a second process out.
//!
//! What a stage makes lies in `stages/<id>.<hash>/`: other options never touch it, and earlier options find it again. The link
//! `stages/<id>`, the run's logs, `policy/` and the reports are views on what the present plan made; they are remade from the stages.

use crate::names;
use crate::{Error, Result};
use indicatif::HumanDuration;
use motrain_core::durable;
use motrain_core::shown::quoted;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A run folder that this process writes to: nobody else does as long as this lives.
pub struct RunFolder {
    root: PathBuf,
    _lock: Option<File>,
}

impl RunFolder {
    /// Makes a run folder or goes on in one; refuses a folder that holds something else, and one that another process works in.
    pub fn open(root: &Path) -> Result<Self> {
        if holds_something_else(root) {
            return Err(Error::file(
                root,
                "is not empty and no run folder (it has no plan.json of motrain); nothing in it was touched; choose another \
                 with --out",
            ));
        }
        durable::create_folder(root).map_err(|e| {
            Error::file(root, format!("the run folder cannot be made ({e}); choose another with --out"))
        })?;
        for name in [names::LOCK, names::STAGES, names::EVENTS] {
            refuse_link(&root.join(name))?;
        }
        Ok(Self { root: root.to_owned(), _lock: lock(root)? })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a stage with this hash works.
    pub fn stage(&self, id: &str, hash: &str) -> PathBuf {
        self.root.join(names::STAGES).join(name(id, hash))
    }

    /// Lets `stages/<id>` lead to the stage with this hash.
    pub fn show(&self, id: &str, hash: &str) -> Result<()> {
        let (link, target) = (self.root.join(names::STAGES).join(id), PathBuf::from(name(id, hash)));
        if std::fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let partial = durable::beside(&link, "partial");
        durable::remove(&partial).map_err(|e| Error::io(&partial, e))?;
        if let Err(error) = std::os::unix::fs::symlink(&target, &partial) {
            tracing::warn!("{} cannot be made a link ({error}); see {} instead", link.display(), target.display());
            return Ok(());
        }
        std::fs::rename(&partial, &link).map_err(|e| Error::io(&link, e))
    }

    /// Puts a file in its place that a later start, or a person, reads.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.root.join(name);
        durable::write(&path, text).map_err(|e| Error::io(&path, e))
    }

    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.root.join(name), value)
    }
}

/// How a run folder is laid out: 2 has stages under their hashes.
pub const LAYOUT: u64 = 2;

/// What manifest.json says of a run, as far as a later start reads it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The hash of each stage of the present plan.
    pub stages: BTreeMap<String, String>,
    pub inputs_sha256: BTreeMap<String, String>,
}

impl Manifest {
    /// Nothing where there is none, or a damaged one: it can be made anew. Hashes become paths, and a manifest from elsewhere may say
    /// anything: what is none is left out.
    pub fn read(run: &Path) -> Self {
        let mut manifest: Self = read_json(&run.join(names::MANIFEST)).unwrap_or_default();
        manifest.stages.retain(|_, hash| !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        manifest
    }
}

/// Whether an earlier motrain made this run, which kept stages in another way.
pub fn is_of_an_earlier_motrain(run: &Path) -> bool {
    let says = |m: Value| m.get("motrain").is_some() && m.get("layout").and_then(Value::as_u64) != Some(LAYOUT);
    read_json(&run.join(names::MANIFEST)).is_some_and(says)
}

/// What a stage of a run made, for whoever only reads.
pub fn stage(run: &Path, id: &str) -> PathBuf {
    let stages = run.join(names::STAGES);
    let own = Manifest::read(run).stages.get(id).map(|hash| stages.join(name(id, hash)));
    own.filter(|folder| folder.is_dir()).unwrap_or_else(|| stages.join(id))
}

/// `stage.json`: what a stage's folder was made by, and whether it is whole.
#[derive(Serialize, Deserialize)]
pub struct Status {
    pub hash: String,
    pub finished: bool,
    /// How long its last run took.
    pub seconds: Option<f64>,
}

impl Status {
    pub fn of(stage: &Path) -> Option<Self> {
        read_json(&stage.join(names::STATUS))
    }

    pub fn is_done(&self, hash: &str) -> bool {
        self.finished && self.hash == hash
    }

    pub fn save(&self, stage: &Path) -> Result<()> {
        write_json(&stage.join(names::STATUS), self)
    }
}

/// A run folder from elsewhere may hold links, and what is written or removed through them lies elsewhere.
pub fn refuse_link(path: &Path) -> Result<()> {
    if path.is_symlink() {
        return Err(Error::file(path, "is a link, and may not be one in a run folder; remove it"));
    }
    Ok(())
}

/// Ids become names of folders; a plan from elsewhere may say anything.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Err(Error::invalid(format!("\"{id}\" is no stage id; use letters, digits, - and _")));
    }
    Ok(())
}

/// Ids hold no dot, so the last one begins the hash.
fn name(id: &str, hash: &str) -> String {
    format!("{id}.{}", &hash[..16.min(hash.len())])
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e.to_string()))?;
    durable::write(path, text + "\n").map_err(|e| Error::io(path, e))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn holds_something_else(root: &Path) -> bool {
    let says = |name: &str, key: &str| read_json::<Value>(&root.join(name)).is_some_and(|v| v.get(key).is_some());
    let ours = || says(names::PLAN, "stages") || says(names::MANIFEST, "motrain") || says(names::LOCK, "motrain");
    // A kill may leave a lock that nothing was written to yet.
    let begun = |e: std::fs::DirEntry| e.file_name() == names::LOCK && e.metadata().is_ok_and(|m| m.len() == 0);
    let Ok(entries) = std::fs::read_dir(root) else { return false };
    !entries.flatten().all(begun) && !ours()
}

/// The operating system lets go of the lock when its holder ends, however it does.
fn lock(root: &Path) -> Result<Option<File>> {
    let path = root.join(names::LOCK);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| {
        let what = match e.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!(
                "nothing can be written here ({e}); `motrain evaluate {} --out FOLDER` reads it as it is",
                root.display()
            ),
            _ => format!("cannot be locked ({e})"),
        };
        Error::file(root, what)
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::file(
                root,
                format!(
                    "{} works in this run folder; wait for it, or stop it (a signal saves what it has done)",
                    holder(&mut file)
                ),
            ));
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{} cannot be locked ({error}); see that no second process works in it", root.display());
            return Ok(None);
        }
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let own = json!({ "motrain": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "host": host, "since": since });
    // On the disk, it also says whose folder this is before there is a plan.
    let written =
        file.set_len(0).and_then(|()| file.write_all(format!("{own}\n").as_bytes())).and_then(|()| file.sync_all());
    written.and_then(|()| durable::sync_parent(&path)).map_err(|e| Error::io(&path, e))?;
    Ok(Some(file))
}

/// Who holds the lock, as it wrote there.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let said: Value =
        file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
    let (Some(pid), Some(host), Some(since)) = (said["pid"].as_u64(), said["host"].as_str(), said["since"].as_u64())
    else {
        return "another process".into();
    };
    let begun = UNIX_EPOCH.checked_add(Duration::from_secs(since)).unwrap_or(UNIX_EPOCH);
    let age = SystemTime::now().duration_since(begun).unwrap_or_default();
    format!("process {pid} on {}, started {} ago,", quoted(host), HumanDuration(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_of_the_first() {
        let run = tempfile::tempdir().unwrap();
        let first = RunFolder::open(run.path()).unwrap();
        let message = RunFolder::open(run.path()).err().unwrap().to_string();
        let own = format!("process {} on {}, started", std::process::id(), gethostname::gethostname().display());
        assert!(message.contains(&own), "{message}");
        drop(first);
        RunFolder::open(run.path()).unwrap();
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        for (file, text) in [("notes.txt", "mine"), ("plan.json", "{\"my\": \"plan\"}"), (names::LOCK, "taken by vim")]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), text).unwrap();
            let message = RunFolder::open(folder.path()).err().unwrap().to_string();
            assert!(message.contains("no run folder"), "{file}: {message}");
            assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), text);
        }
        for (file, text) in
            [(names::LOCK, ""), ("plan.json", "{\"stages\": []}"), ("manifest.json", "{\"motrain\": \"0.1.0\"}")]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), text).unwrap();
            RunFolder::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn a_stage_is_shown_and_read_under_its_hash() {
        let run = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(run.path()).unwrap();
        for hash in ["1111111111111111ffff", "2222222222222222ffff"] {
            durable::create_folder(&folder.stage("a", hash)).unwrap();
            folder.show("a", hash).unwrap();
            assert_eq!(
                run.path().join("stages/a").canonicalize().unwrap(),
                folder.stage("a", hash).canonicalize().unwrap()
            );
        }
        folder.write_json("manifest.json", &json!({ "stages": { "a": "1111111111111111ffff" } })).unwrap();
        assert_eq!(stage(run.path(), "a"), run.path().join("stages/a.1111111111111111"));
        assert_eq!(stage(run.path(), "b"), run.path().join("stages/b"));
    }

    #[test]
    fn what_is_no_hash_leads_nowhere() {
        let run = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(run.path()).unwrap();
        std::fs::create_dir_all(run.path().join("stages/a.")).unwrap();
        for hash in ["", "/../../stages", "/..", &"é".repeat(20), "012…"] {
            folder.write_json("manifest.json", &json!({ "stages": { "a": hash } })).unwrap();
            assert_eq!(stage(run.path(), "a"), run.path().join("stages/a"), "{hash}");
            assert!(Manifest::read(run.path()).stages.is_empty(), "{hash}");
        }
    }

    #[test]
    fn an_id_cannot_leave_the_folder() {
        for id in ["", "..", "../x", "/x", "a.b", "a/b"] {
            assert!(check_id(id).is_err(), "{id}");
        }
        check_id("hh_fig2-1").unwrap();
    }
}
