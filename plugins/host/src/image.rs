//! The bytes that are hashed are the bytes that are loaded: a library is read once, into memory that is then sealed, and loaded from there.
//!
//! The loader is given a path in a private folder, a link to that memory. Its neighbours there, and those of its folder, are links to the
//! library's own neighbours, so that `$ORIGIN`, `$ORIGIN/..` and a library that asks where it lies find what they look for.

use motrain_core::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// More than any library has; what is larger is something else.
const MOST_BYTES: u64 = 2 << 30;

/// Private folders begin with this and the number of their process.
const PREFIX: &str = "motrain-plugin-";

/// Private folders of this process: they are needed for as long as it runs.
static FOLDERS: Mutex<Vec<TempDir>> = Mutex::new(Vec::new());

/// A library's bytes, which nothing changes any more.
pub struct Image {
    pub sha256: String,
    pub file: File,
    /// What the loader opens.
    pub path: PathBuf,
    folder: TempDir,
}

impl Image {
    /// Reads the library at `path`, which has no links in it; errors call it `shown`.
    pub fn read(path: &Path, shown: &Path) -> Result<Self> {
        let failed = |e: io::Error| Error::io(shown, e);
        let mut source = source(path, shown)?;
        let (folder, place) = private_folder(path).map_err(|e| {
            let above = std::env::temp_dir();
            Error::file(shown, format!("needs a private folder in {}: {e}; set TMPDIR", above.display()))
        })?;
        let (mut file, sealed) = match memory().and_then(|memory| link(memory, &place)) {
            Some(memory) => (memory, true),
            None => (OpenOptions::new().read(true).write(true).create_new(true).open(&place).map_err(failed)?, false),
        };
        let sha256 = copy(&mut source, &mut file).map_err(failed)?;
        if sealed {
            seal(&file).map_err(failed)?;
        } else {
            file.set_permissions(Permissions::from_mode(0o500)).map_err(failed)?;
        }
        Ok(Self { sha256, file, path: place, folder })
    }

    /// Keeps file and folder until the process ends: debuggers, backtraces and the library itself look for them. The hash remains.
    pub fn keep(self) -> String {
        std::mem::forget(self.file);
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(self.folder);
        self.sha256
    }
}

/// The SHA-256 of a library that is not going to be loaded now.
pub fn sha256(path: &Path, shown: &Path) -> Result<String> {
    copy(&mut source(path, shown)?, &mut io::sink()).map_err(|e| Error::io(shown, e))
}

fn source(path: &Path, shown: &Path) -> Result<File> {
    let failed = |e: io::Error| Error::io(shown, e);
    // Opening a pipe would wait for its writer.
    let source =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::file(shown, "there is no such plugin; build it first"),
            _ => failed(e),
        })?;
    let found = source.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Error::file(shown, "is no file; name the library itself"));
    }
    if found.len() > MOST_BYTES {
        return Err(Error::file(shown, format!("has {} bytes; no plugin is that large", found.len())));
    }
    Ok(source)
}

/// Removes what was made in the folder for temporary files.
pub fn clean() {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

#[cfg(target_os = "linux")]
fn memory() -> Option<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know the flag and allows execution without it.
    memfd_create("plugin", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("plugin", flags)).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn link(memory: File, place: &Path) -> Option<File> {
    use std::os::fd::AsRawFd;
    symlink(format!("/proc/self/fd/{}", memory.as_raw_fd()), place).ok()?;
    // Without /proc it leads nowhere.
    if place.exists() { Some(memory) } else { std::fs::remove_file(place).ok().and(None) }
}

#[cfg(target_os = "linux")]
fn seal(file: &File) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    let fixed = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    // WRITE refuses (EBUSY) while the kernel itself holds a page, as it does now and then; nobody has this memory mapped, so future writes are all.
    // Linux before 5.1 knows WRITE only.
    fcntl_add_seals(file, fixed | SealFlags::FUTURE_WRITE)
        .or_else(|_| fcntl_add_seals(file, fixed | SealFlags::WRITE))?;
    Ok(())
}

/// Other systems have no memory that can be sealed: the copy lies in the private folder.
#[cfg(not(target_os = "linux"))]
fn memory() -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn link(_memory: File, _place: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn seal(_file: &File) -> io::Result<()> {
    Ok(())
}

fn copy(from: &mut File, to: &mut impl Write) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut from = from.take(MOST_BYTES);
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// A folder that only this user can enter, in which `path` has its neighbours, and the place for itself.
fn private_folder(path: &Path) -> io::Result<(TempDir, PathBuf)> {
    sweep();
    let root = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()?;
    let own = path.parent().unwrap_or(Path::new("/"));
    let folder = root.path().join(own.file_name().unwrap_or("root".as_ref()));
    std::fs::create_dir(&folder)?;
    link_neighbours(own, path, &folder)?;
    if let Some(above) = own.parent() {
        link_neighbours(above, own, root.path())?;
    }
    Ok((root, folder.join(path.file_name().unwrap_or_default())))
}

/// Links to all that lies in `from`, except `without`. A folder that cannot be listed has no neighbours to offer.
fn link_neighbours(from: &Path, without: &Path, to: &Path) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    for path in entries.flatten().map(|e| e.path()).filter(|p| p != without) {
        symlink(&path, to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Removes the folders of processes that were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<i32>().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_loader_opens_what_was_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(&path, "before").unwrap();
        std::fs::write(folder.path().join("words.txt"), "beside").unwrap();
        let image = Image::read(&path, &path).unwrap();
        std::fs::write(&path, "after").unwrap();
        assert_eq!(std::fs::read(&image.path).unwrap(), b"before");
        assert_eq!(image.sha256, motrain_core::rng::sha256_hex(b"before"));
        assert!((&image.file).write_all(b"x").is_err(), "the memory is not sealed");
        assert_eq!(std::fs::read(image.path.with_file_name("words.txt")).unwrap(), b"beside");
        let private = image.path.clone();
        drop(image);
        assert!(!private.parent().unwrap().exists());
    }

    /// As the kernel holds pages for a moment when memory is short, which no test can ask of it.
    #[test]
    fn memory_whose_pages_are_held_is_sealed() {
        let mut file = memory().unwrap();
        file.write_all(&[0; 4096]).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of a page that the file has.
        let held = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, shared, fd, 0) };
        assert_ne!(held, libc::MAP_FAILED);
        seal(&file).unwrap();
        assert!(file.write_all(b"x").is_err(), "the memory is not sealed");
        // SAFETY: nothing refers to the mapping.
        assert_eq!(unsafe { libc::munmap(held, 4096) }, 0);
    }
}
