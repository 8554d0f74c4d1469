//! What a run folder keeps: the results of every stage under every hash, and what of it may go when the user says so.

use crate::folder::{Manifest, Status, check_id};
use crate::names;
use crate::{Error, Result};
use motrain_core::durable;
use motrain_core::shown::one_line;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use indicatif::HumanBytes;

/// What one stage made with some options.
pub struct Kept {
    pub id: String,
    pub hash: String,
    pub folder: PathBuf,
    /// Whether the run's present plan uses it.
    pub present: bool,
    pub finished: bool,
    /// Bytes that go with it, and those of its checkpoints alone.
    pub bytes: u64,
    pub checkpoints: u64,
}

/// All that the stages of a run made, by id.
pub fn kept(run: &Path) -> Result<Vec<Kept>> {
    let (manifest, stages) = (Manifest::read(run), run.join(names::STAGES));
    let entries = std::fs::read_dir(&stages).map_err(|e| Error::file(run, format!("is no run folder ({e})")))?;
    let mut all = Vec::new();
    for folder in entries.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (id, hash) = name.split_once('.').unwrap_or((&name, ""));
        let status = Status::of(&folder);
        let present = manifest.stages.get(id).is_some_and(|now| status.as_ref().is_some_and(|s| s.hash == *now));
        let checkpoints = checkpoints(&folder)?.iter().map(|c| bytes(c)).sum::<Result<u64>>()?;
        all.push(Kept {
            id: id.into(),
            hash: hash.into(),
            present: present && check_id(id).is_ok(),
            finished: status.is_some_and(|s| s.finished),
            bytes: bytes(&folder)?,
            checkpoints,
            folder,
        });
    }
    all.sort_by(|a, b| (&a.id, !a.present, &a.hash).cmp(&(&b.id, !b.present, &b.hash)));
    Ok(all)
}

/// What the user names to be removed.
pub struct Prune {
    /// Only of this stage: `id`, or `id.hash` (or its beginning) as `runs list` shows it.
    pub stage: Option<String>,
    /// The checkpoints of finished stages.
    pub checkpoints: bool,
    /// What the present plan does not use.
    pub unused: bool,
}

impl Prune {
    /// The folders to remove, with their bytes.
    pub fn of(&self, run: &Path) -> Result<Vec<(PathBuf, u64)>> {
        if self.stage.is_none() && !self.checkpoints && !self.unused {
            return Err(Error::invalid("say what to remove: --unused, --checkpoints, --stage, or several of them"));
        }
        let all = kept(run)?;
        let named: Vec<&Kept> = all.iter().filter(|k| self.names(k)).collect();
        if let (Some(stage), []) = (&self.stage, named.as_slice()) {
            let there: Vec<String> = all.iter().map(|k| format!("{}.{}", k.id, k.hash)).collect();
            let there = one_line(&there.join(", "), 2000);
            return Err(Error::invalid(format!("no stage here is called \"{stage}\"; there are {there}")));
        }
        let mut out = Vec::new();
        for one in named {
            if (self.unused && !one.present) || (!self.unused && !self.checkpoints) {
                out.push((one.folder.clone(), one.bytes));
            } else if self.checkpoints && one.finished {
                for folder in checkpoints(&one.folder)? {
                    let bytes = bytes(&folder)?;
                    out.push((folder, bytes));
                }
            }
        }
        Ok(out)
    }

    fn names(&self, kept: &Kept) -> bool {
        let Some(stage) = &self.stage else { return true };
        match stage.split_once('.') {
            Some((id, hash)) => kept.id == id && kept.hash.starts_with(hash),
            None => kept.id == *stage,
        }
    }
}

/// Removes a folder, and the link that led to it.
pub fn remove(folder: &Path) -> Result<()> {
    durable::remove(folder).map_err(|e| Error::io(folder, e))?;
    let link = folder.with_extension("");
    let leads_nowhere = link.is_symlink() && !link.exists();
    if leads_nowhere { durable::remove(&link).map_err(|e| Error::io(&link, e)) } else { Ok(()) }
}

/// All folders of checkpoints, damaged ones too.
fn checkpoints(stage: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(stage).map_err(|e| Error::io(stage, e))?.flatten();
    let is_one = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(names::CHECKPOINT));
    Ok(entries.map(|e| e.path()).filter(|p| is_one(p) && p.is_dir()).collect())
}

/// Bytes that would be free without this folder: what other names share stays.
fn bytes(folder: &Path) -> Result<u64> {
    let own = |m: &Metadata| if m.nlink() < 2 { m.len() } else { 0 };
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten() {
        let found = entry.metadata().map_err(|e| Error::io(&entry.path(), e))?;
        sum += if found.is_dir() { bytes(&entry.path())? } else { own(&found) };
    }
    Ok(sum)
}
