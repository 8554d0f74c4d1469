//! Files and folders that survive a kill, a full disk and a power cut: written aside, synced, renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

/// Puts a file with these bytes at `path`. Whatever happens meanwhile, what is found there is whole: the new bytes, or what was there before.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let partial = beside(path, "partial");
    let _ = fs::remove_file(&partial);
    let written = File::create_new(&partial).and_then(|mut file| {
        file.write_all(bytes.as_ref())?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&partial, path)) {
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    sync_parent(path)
}

/// Puts the folder `partial`, with all that is in it, at `folder`; what was there before goes once the new one is in its place.
pub fn publish(partial: &Path, folder: &Path) -> Result<()> {
    sync_tree(partial)?;
    let before = beside(folder, "before");
    remove(&before)?;
    match fs::rename(folder, &before) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(partial, folder)?;
    sync_parent(folder)?;
    remove(&before)
}

/// Copies a folder, with all that is in it; weights by hard links where the file system has them, since they are large and only ever replaced.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (source, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else if target.extension().is_none_or(|e| e != "safetensors")
            || fs::hard_link(source.canonicalize()?, &target).is_err()
        {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Makes a folder, with those that it lies in.
pub fn create_folder(folder: &Path) -> Result<()> {
    let new: Vec<&Path> = folder.ancestors().take_while(|f| !f.exists()).collect();
    fs::create_dir_all(folder)?;
    new.into_iter().try_for_each(sync_parent)
}

/// Waits until a folder, with all that is in it, is on the disk.
pub fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Waits until a new name in the folder of `path` is on the disk.
pub fn sync_parent(path: &Path) -> Result<()> {
    parent(path).map_or(Ok(()), sync_folder)
}

/// Removes a file or a folder, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// `path` with `.extension` after its name.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}

fn parent(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn sync_folder(folder: &Path) -> Result<()> {
    // Some network file systems cannot sync folders; they write names at once.
    let cannot = |error: &Error| matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported);
    File::open(folder)?.sync_all().or_else(|error| if cannot(&error) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write(&path, "old").unwrap();
        // What is in the way of the new file cannot be removed as a file.
        fs::create_dir(folder.path().join("plan.json.partial")).unwrap();
        write(&path, "new").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_dir(folder.path().join("plan.json.partial")).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_hard_link_keeps_what_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        write(&path, "old").unwrap();
        fs::hard_link(&path, &link).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "old");
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (new, place) = (folder.path().join("new/inner"), folder.path().join("place"));
        for text in ["first", "second"] {
            create_folder(&new).unwrap();
            fs::write(new.join(text), text).unwrap();
            publish(&folder.path().join("new"), &place).unwrap();
        }
        let names = |at: &Path| fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!((names(folder.path()), names(&place.join("inner"))), (vec!["place".into()], vec!["second".into()]));
    }
}
