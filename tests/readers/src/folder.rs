//! Folders for readers that want one: in memory where the system has such a place.

use std::path::Path;
use tempfile::TempDir;

/// A new folder that is gone when this is dropped.
pub fn new() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap_or_else(|e| panic!("no temporary folder can be made: {e}"))
}

/// A new folder that holds these files; of two with one name the last.
pub fn with(files: &[(&str, &[u8])]) -> TempDir {
    let folder = new();
    for (name, content) in files {
        write(&folder.path().join(name), content);
    }
    folder
}

pub fn write(path: &Path, content: &[u8]) {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, content)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
