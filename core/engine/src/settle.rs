//! Folders that lie at `stages/<id>` themselves: of a motrain that knew no hashes there, or of a copy that followed the links.

use crate::folder::{self, RunFolder, Status};
use crate::names;
use crate::train::log;
use crate::{Error, Result};
use motrain_core::durable;
use std::path::{Path, PathBuf};

/// Gives each its place under its hash, with the lines that the run's logs hold of it. Nothing is lost, and nothing in its way.
pub fn settle(run: &RunFolder) -> Result<()> {
    let stages = run.root().join(names::STAGES);
    for entry in std::fs::read_dir(&stages).into_iter().flatten().flatten() {
        let (id, from) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if from.is_symlink() || !from.is_dir() || folder::check_id(&id).is_err() {
            continue;
        }
        let hash = Status::of(&from).map_or_else(|| "unknown".into(), |s| s.hash);
        let to = free(run.stage(&id, &hash));
        for name in log::FILES {
            log::split(&run.root().join(name), &id, &from.join(name))?;
        }
        durable::sync_tree(&from).and_then(|()| std::fs::rename(&from, &to)).map_err(|e| Error::io(&from, e))?;
        tracing::info!("{} is kept as {}", from.display(), to.display());
    }
    Ok(())
}

/// `path`, or a name beside it that is not taken.
fn free(path: PathBuf) -> PathBuf {
    let taken = |p: &Path| p.symlink_metadata().is_ok();
    let others = (2..).map(|n: u32| durable::beside(&path, &n.to_string()));
    std::iter::once(path.clone()).chain(others).find(|p| !taken(p)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_links_place_is_kept_with_its_logs() {
        let root = tempfile::tempdir().unwrap();
        let run = RunFolder::open(root.path()).unwrap();
        let line = |stage: &str| format!("{{\"stage\":\"{stage}\",\"step\":1,\"loss\":0.5}}\n");
        std::fs::write(root.path().join("metrics.jsonl"), line("a") + &line("b")).unwrap();
        let old = root.path().join("stages/a");
        let kept = |name: &str| root.path().join("stages").join(name);
        for hash in ["0123456789abcdef", "0123456789abcdef", ""] {
            durable::create_folder(&old).unwrap();
            if !hash.is_empty() {
                Status { hash: hash.into(), finished: true, seconds: None }.save(&old).unwrap();
            }
            settle(&run).unwrap();
            assert!(!old.exists());
        }
        for name in ["a.0123456789abcdef", "a.0123456789abcdef.2", "a.unknown"] {
            assert_eq!(std::fs::read_to_string(kept(name).join("metrics.jsonl")).unwrap(), line("a"), "{name}");
        }
    }
}
