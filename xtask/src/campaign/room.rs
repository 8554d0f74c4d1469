//! Where trials take place: data, a finished run of every kind of stage, and folders of their own.

use crate::commands::test_binary;
use crate::libtorch;
use crate::run::{checked, root, target};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What says when, where and how fast a run was.
const OF_THE_DAY: [&str; 8] =
    [".lock", "started", "stage.json", "speed.json", "timings.jsonl", "manifest.json", "plan.json", "report.html"];
/// Rows of each plain data file that trials read; the script reads fewer.
const ROWS: usize = 100;

pub struct Room {
    root: PathBuf,
    binary: PathBuf,
    /// How long a run takes that nothing interrupts.
    pub whole: Duration,
}

impl Room {
    /// Makes the data, and lets the script run once.
    pub fn open() -> Result<Self> {
        libtorch::setup(false)?;
        let mut room = Self { root: target().join("campaign"), binary: test_binary()?, whole: Duration::ZERO };
        let _ = fs::remove_dir_all(&room.root);
        fs::create_dir_all(room.root.join("whole"))?;
        let all = room.root.join("all");
        checked(room.motrain(&room.root).args(["make-data", "hh"]).arg(&all).stdout(Stdio::null()))?;
        fs::create_dir_all(room.data())?;
        for file in fs::read_dir(&all)? {
            let file = file?;
            let to = room.data().join(file.file_name());
            if file.path().extension().is_some_and(|e| e == "gz") {
                fs::copy(file.path(), to)?;
                continue;
            }
            let head: String = fs::read_to_string(file.path())?.split_inclusive('\n').take(ROWS).collect();
            fs::write(to, head)?;
        }
        let clock = Instant::now();
        let whole = room.trial("whole")?;
        checked(room.script(&whole).stdout(Stdio::null()).stderr(Stdio::null()))?;
        room.whole = clock.elapsed();
        Ok(room)
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The finished run.
    pub fn finished(&self) -> PathBuf {
        self.root.join("whole/run")
    }

    /// What went wrong is kept here.
    pub fn findings(&self) -> PathBuf {
        self.root.join("findings")
    }

    /// An empty folder to run in, that sees the data.
    pub fn trial(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        std::os::unix::fs::symlink(self.data(), folder.join("data"))?;
        Ok(folder)
    }

    /// `motrain` with one thread, in a folder.
    pub fn motrain(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(folder).env("OMP_NUM_THREADS", "1").env("MOTRAIN_HOME", root()).stdin(Stdio::null());
        command.env("MOTRAIN_CACHE", folder.join(".cache")).env_remove("RUST_BACKTRACE");
        command
    }

    /// The run of every kind of stage, in `run/`.
    pub fn script(&self, folder: &Path) -> Command {
        let mut command = self.motrain(folder);
        command.arg("--script").arg(script()).args(["--out", "run"]);
        command
    }
}

pub fn script() -> PathBuf {
    root().join("xtask/campaign/every_stage.rhai")
}

/// Every file below a folder, not through links, relative to it.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(folder.join(&below)).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            match entry.file_type()? {
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A hash of each file of a run that must not depend on the day.
pub fn results(run: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let of_the_day = |path: &Path| {
        path.starts_with("events") || path.file_name().is_some_and(|name| OF_THE_DAY.iter().any(|own| name == *own))
    };
    let hashed = |path: PathBuf| {
        let hash = Sha256::digest(fs::read(run.join(&path))?).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((path, hash))
    };
    files(run)?.into_iter().filter(|path| !of_the_day(path)).map(hashed).collect()
}

/// Copies a folder, links and all.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    checked(Command::new("cp").arg("-a").arg(from).arg(to))
}

/// Whether the stage in this folder is finished.
pub fn is_finished(stage: &Path) -> bool {
    let status = fs::read(stage.join("stage.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    status.is_some_and(|status: serde_json::Value| status["finished"] == true)
}
