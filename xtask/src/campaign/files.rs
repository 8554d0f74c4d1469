//! Damaged files of every kind that motrain reads: each is read or refused with a message. None ends in a panic, an abort or a hang,
//! and none costs a stage that was finished.

use super::damage::damage;
use super::room::{self, Room};
use super::{Campaign, side_by_side};
use crate::run::{checked, root};
use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A reader that takes longer hangs.
const SECONDS: u64 = 60;
/// Address space in KiB; a reader that wants more allocates what its file does not back.
const MEMORY: u64 = 8 << 20;

/// A kind of files: what lies in the folder of a trial, which files of it are damaged, and what reads them.
struct Kind {
    name: &'static str,
    lay: fn(&Room, &Path) -> Result<()>,
    damaged: fn(&Path) -> bool,
    read: fn(&Room, &Path) -> Command,
}

const KINDS: [Kind; 7] = [
    Kind { name: "policy folder", lay: policy, damaged: below_policy, read: generate },
    Kind { name: "data file", lay: rows, damaged: below_rows, read: train },
    Kind { name: "GGUF file", lay: gguf, damaged: |path| has(path, "gguf"), read: import },
    Kind { name: "configuration", lay: configuration, damaged: |path| has(path, "toml"), read: check },
    Kind { name: "script", lay: script, damaged: |path| has(path, "rhai"), read: check },
    Kind { name: "finished run", lay: finished, damaged: below_run, read: resume },
    Kind { name: "interrupted run", lay: interrupted, damaged: below_checkpoints, read: resume },
];

struct Trial {
    kind: usize,
    read: bool,
    wrong: Option<String>,
}

/// Damages files and has them read; returns what went wrong.
pub fn campaign(room: &Room, wanted: &Campaign) -> Result<Vec<String>> {
    if wanted.files == 0 {
        return Ok(vec![]);
    }
    KINDS.iter().try_for_each(|kind| is_read_undamaged(room, kind))?;
    let trials = side_by_side(wanted.jobs, |number| {
        if number >= wanted.files {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(wanted.seed);
        rng.set_stream(number);
        let kind = number as usize % KINDS.len();
        let name = format!("files-{number}");
        trial(room, &name, kind, &mut rng).map(Some).with_context(|| format!("{name} ({})", KINDS[kind].name))
    })?;
    say(&trials);
    Ok(trials.into_iter().filter_map(|trial| trial.wrong).collect())
}

/// A kind whose files are refused anyway would show nothing.
fn is_read_undamaged(room: &Room, kind: &Kind) -> Result<()> {
    let folder = room.trial("undamaged")?;
    (kind.lay)(room, &folder)?;
    match end(&mut (kind.read)(room, &folder), &folder)? {
        Some(status) if status.success() => Ok(()),
        _ => bail!("{}: not read undamaged: {}", kind.name, fs::read_to_string(folder.join("log"))?),
    }
}

fn trial(room: &Room, name: &str, number: usize, rng: &mut ChaCha8Rng) -> Result<Trial> {
    let kind = &KINDS[number];
    let folder = room.trial(name)?;
    (kind.lay)(room, &folder)?;
    let all: Vec<PathBuf> = room::files(&folder)?.into_iter().filter(|path| (kind.damaged)(path)).collect();
    let file = all.choose(rng).context("nothing to damage")?;
    let mut bytes = fs::read(folder.join(file))?;
    let how = damage(&mut bytes, rng);
    // A new file: what else leads to the old one's bytes is not to change.
    fs::remove_file(folder.join(file))?;
    fs::write(folder.join(file), bytes)?;
    let kept = stages(&folder, file)?;
    let ended = end(&mut (kind.read)(room, &folder), &folder)?;
    let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lost = stages(&folder, file)?;
    let lost = kept.iter().find(|(path, hash)| lost.get(*path) != Some(hash)).map(|(path, _)| path);
    let wrong = match ended {
        None => Some(format!("did not end within {SECONDS} s")),
        Some(status) if !matches!(status.code(), Some(0..=2)) => Some(format!("ended with {status}")),
        Some(_) if said.contains("panicked at") => Some("panicked".into()),
        Some(_) => lost.map(|path| format!("lost {}", path.display())),
    };
    let wrong = wrong.map(|what| {
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        format!("{name}: {}: {} ({how}): {what}\n  {}", kind.name, file.display(), last.join("\n  "))
    });
    match &wrong {
        None => fs::remove_dir_all(&folder)?,
        Some(_) => {
            fs::create_dir_all(room.findings())?;
            fs::rename(&folder, room.findings().join(name))?;
        }
    }
    Ok(Trial { kind: number, read: ended.is_some_and(|status| status.success()), wrong })
}

/// How a command ends under the limits; nothing if it does not.
fn end(command: &mut Command, folder: &Path) -> Result<Option<ExitStatus>> {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let mut child = limited.stderr(fs::File::create(folder.join("log"))?).spawn()?;
    let clock = Instant::now();
    while clock.elapsed().as_secs() < SECONDS {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Hashes of all that finished stages made, but for those of the damaged file's stage.
fn stages(folder: &Path, damaged: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let run = folder.join("run");
    if !run.join("stages").is_dir() {
        return Ok(BTreeMap::new());
    }
    let damaged: PathBuf = damaged.components().skip(1).take(2).collect();
    let mut found = room::results(&run)?;
    found.retain(|path, _| {
        let stage: PathBuf = path.components().take(2).collect();
        path.starts_with("stages") && stage != damaged && room::is_finished(&run.join(stage))
    });
    Ok(found)
}

fn has(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn policy(room: &Room, folder: &Path) -> Result<()> {
    room::copy(&room.finished().join("policy"), &folder.join("policy"))
}

fn below_policy(path: &Path) -> bool {
    path.starts_with("policy")
}

fn generate(room: &Room, folder: &Path) -> Command {
    let mut command = room.motrain(folder);
    command.args(["generate", "policy", "--prompt", "How do I pick a lock?", "--weights", "0.5,0.5"]);
    command.args(["--max-new-tokens", "4"]);
    command
}

/// Demonstrations, pairs and prompts, and a script that reads all of them.
fn rows(room: &Room, folder: &Path) -> Result<()> {
    fs::create_dir(folder.join("rows"))?;
    for name in ["sft", "reader", "prompts"] {
        fs::copy(
            room.data().join(name).with_extension("jsonl"),
            folder.join("rows").join(name).with_extension("jsonl"),
        )?;
    }
    checked(Command::new("gzip").arg("-k").arg(folder.join("rows/sft.jsonl")))?;
    fs::copy(root().join("xtask/campaign/rows.rhai"), folder.join("rows.script"))?;
    Ok(())
}

fn below_rows(path: &Path) -> bool {
    path.starts_with("rows")
}

fn train(room: &Room, folder: &Path) -> Command {
    let mut command = room.motrain(folder);
    command.args(["--script", "rows.script", "--out", "run"]);
    command
}

/// A whole small file, of those that `cargo xtask fuzz` begins with.
fn gguf(_: &Room, folder: &Path) -> Result<()> {
    fs::copy(root().join("fuzz/corpus/gguf/seed-q8"), folder.join("model.gguf"))?;
    Ok(())
}

fn import(room: &Room, folder: &Path) -> Command {
    let mut command = room.motrain(folder);
    command.args(["import", "model.gguf", "imported"]);
    command
}

fn configuration(_: &Room, folder: &Path) -> Result<()> {
    fs::copy(root().join("configs/default.toml"), folder.join("configuration.toml"))?;
    fs::copy(root().join("scripts/experiments/hh.rhai"), folder.join("script"))?;
    Ok(())
}

fn script(_: &Room, folder: &Path) -> Result<()> {
    fs::copy(root().join("configs/default.toml"), folder.join("configuration"))?;
    fs::copy(room::script(), folder.join("script.rhai"))?;
    Ok(())
}

fn check(room: &Room, folder: &Path) -> Command {
    let mut command = room.motrain(folder);
    match folder.join("script.rhai").is_file() {
        true => command.args(["check", "script.rhai"]),
        false => command.args(["check", "script", "--config", "configuration.toml"]),
    };
    command
}

fn finished(room: &Room, folder: &Path) -> Result<()> {
    room::copy(&room.finished(), &folder.join("run"))
}

/// Whatever a run folder keeps, but checkpoints, which nothing reads once a stage is finished.
fn below_run(path: &Path) -> bool {
    path.starts_with("run") && !path.starts_with("run/events") && !is_of_checkpoint(path)
}

fn is_of_checkpoint(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("checkpoint-"))
}

/// A run whose training stages stand at their last checkpoint but have not ended.
fn interrupted(room: &Room, folder: &Path) -> Result<()> {
    finished(room, folder)?;
    for entry in fs::read_dir(folder.join("run/stages"))? {
        let stage = entry?.path();
        let trains = stage.join("checkpoint-4").is_dir() && !stage.is_symlink();
        // Those that only the end of the run needs, so that a trial is short.
        if trains && ["by_pairs", "by_returns"].iter().any(|id| stage.to_string_lossy().contains(id)) {
            fs::remove_dir_all(stage.join("model"))?;
            let status = fs::read_to_string(stage.join("stage.json"))?;
            fs::write(stage.join("stage.json"), status.replace("true", "false"))?;
        }
    }
    Ok(())
}

fn below_checkpoints(path: &Path) -> bool {
    let of_stage = ["by_pairs", "by_returns"].iter().any(|id| path.to_string_lossy().contains(id));
    of_stage && is_of_checkpoint(path)
}

fn resume(room: &Room, folder: &Path) -> Command {
    let mut command = room.motrain(folder);
    command.args(["--resume", "run"]);
    command
}

fn say(trials: &[Trial]) {
    let wrong = trials.iter().filter(|trial| trial.wrong.is_some()).count();
    println!("\n{} damaged files: {wrong} panics, aborts, hangs or lost stages\n", trials.len());
    println!("| damaged | files | read | refused | went wrong |\n|---|---|---|---|---|");
    for (number, kind) in KINDS.iter().enumerate() {
        let own: Vec<&Trial> = trials.iter().filter(|trial| trial.kind == number).collect();
        let wrong = own.iter().filter(|trial| trial.wrong.is_some()).count();
        let read = own.iter().filter(|trial| trial.read && trial.wrong.is_none()).count();
        println!("| {} | {} | {read} | {} | {wrong} |", kind.name, own.len(), own.len() - read - wrong);
    }
}
