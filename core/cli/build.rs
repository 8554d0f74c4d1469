//! What the binary brings along as a list of files; how it finds libtorch at run time, and plugins motrain's `_exit`.

use sha2::{Digest, Sha256};
use std::env::var;
use std::fmt::Write;
use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};

/// The folders that scripts, configurations and the embedded tasks lie in.
const FOLDERS: [&str; 3] = ["assets", "configs", "scripts"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(folder) = var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}/lib");
    }
    // Plugins find these before the C library's (main.rs).
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for name in ["_exit", "_Exit", "quick_exit"] {
            println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
        }
    }
    let variable = |name: &str| PathBuf::from(var(name).unwrap_or_default());
    let root = variable("CARGO_MANIFEST_DIR").join("../..");
    fs::write(variable("OUT_DIR").join("shipped.rs"), shipped(&root)?)
}

/// Names and bytes of all files, and a hash of both.
fn shipped(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
        below(&root.join(folder), folder, &mut files)?;
    }
    files.sort();
    let (mut list, mut hash) = (String::new(), Sha256::new());
    for (name, path) in &files {
        let bytes = fs::read(path)?;
        hash.update(format!("{name}\n{}\n", bytes.len()));
        hash.update(bytes);
        let _ = writeln!(list, "    ({name:?}, include_bytes!({:?})),", fs::canonicalize(path)?);
    }
    let hash: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    Ok(format!("const HASH: &str = {hash:?};\nconst FILES: &[(&str, &[u8])] = &[\n{list}];\n"))
}

/// The files below a folder, as `name/…` and where they are; hidden ones are no part of what is shipped.
fn below(folder: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        match entry.file_type()?.is_dir() {
            _ if file.starts_with('.') => {}
            true => below(&path, &name, files)?,
            false => files.push((name, path)),
        }
    }
    Ok(())
}
