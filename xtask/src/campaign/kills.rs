//! SIGKILLs anywhere, within each kind of stage, inside saves and right after a start: a run that goes on ends with the bytes of one that
//! nothing interrupted.

use super::room::{self, Room};
use super::{Campaign, side_by_side};
use anyhow::{Result, bail};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The share of a whole run after which a kill comes at the latest, where nothing else decides.
const SHARE: f64 = 0.3;
/// How long after a start a resume is still under way.
const START: f64 = 0.6;

/// A kill: when it was meant to come, and what it fell into.
struct Kill {
    moment: &'static str,
    stage: String,
    in_save: bool,
}

struct Trial {
    kills: Vec<Kill>,
    wrong: Option<String>,
}

/// Kills runs until there were as many kills as wanted; returns what went wrong.
pub fn campaign(room: &Room, wanted: &Campaign) -> Result<Vec<String>> {
    if wanted.kills == 0 {
        return Ok(vec![]);
    }
    let expected = room::results(&room.finished())?;
    let left = AtomicU64::new(wanted.kills);
    let trials = side_by_side(wanted.jobs, |number| {
        if left.load(Relaxed) == 0 {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(wanted.seed);
        rng.set_stream(number);
        let name = format!("kills-{number}");
        let folder = room.trial(&name)?;
        let kills = kill_until_finished(room, &folder, &left, &mut rng)?;
        let differs = difference(&expected, &room::results(&folder.join("run"))?);
        let wrong = differs.map(|what| format!("{name}: {what} after {} kills", kills.len()));
        match &wrong {
            None => fs::remove_dir_all(&folder)?,
            Some(_) => keep(room, &folder)?,
        }
        Ok(Some(Trial { kills, wrong }))
    })?;
    say(room, &trials);
    Ok(trials.into_iter().filter_map(|trial| trial.wrong).collect())
}

fn keep(room: &Room, folder: &Path) -> Result<()> {
    fs::create_dir_all(room.findings())?;
    fs::rename(folder, room.findings().join(folder.file_name().unwrap_or_default()))?;
    Ok(())
}

/// Starts a run and goes on with it, killing it at a random moment each time, until it gets through.
fn kill_until_finished(room: &Room, folder: &Path, left: &AtomicU64, rng: &mut ChaCha8Rng) -> Result<Vec<Kill>> {
    let run = folder.join("run");
    let mut kills = Vec::new();
    loop {
        let mut command = match run.join("plan.json").is_file() {
            true => room.motrain(folder),
            false => room.script(folder),
        };
        if run.join("plan.json").is_file() {
            command.args(["--resume", "run"]);
        }
        let log = fs::File::create(folder.join("log"))?;
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let more = left.load(Relaxed) > 0;
        if more && let Some(moment) = wait_for_moment(&mut child, &run, room.whole, rng)? {
            child.kill()?;
            child.wait()?;
            let _ = left.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(1)));
            kills.push(Kill { moment, stage: stage_under_way(&run), in_save: is_saving(&run) });
            continue;
        }
        let status = child.wait()?;
        if !status.success() {
            let log = fs::read_to_string(folder.join("log"))?;
            bail!("{}: ended with {status} after {} kills: {log}", folder.display(), kills.len());
        }
        return Ok(kills);
    }
}

/// When a kill comes: seconds after the start, and what must be seen first.
enum Moment {
    Anywhere,
    AtStart,
    InSave,
    /// Once the stage with this id has begun.
    Within(String),
}

impl Moment {
    fn name(&self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::AtStart => "at a start",
            Self::InSave => "in a save",
            Self::Within(_) => "within a stage",
        }
    }

    fn drawn(run: &Path, rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            0..3 => Self::Anywhere,
            3..5 => Self::InSave,
            5 => Self::AtStart,
            _ => open_stages(run).choose(rng).map_or(Self::Anywhere, |(id, _)| Self::Within(id.clone())),
        }
    }

    /// Seconds after the start, of a run that takes `whole`.
    fn seconds(&self, whole: f64, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Anywhere | Self::InSave => rng.random_range(0.0..SHARE) * whole,
            Self::AtStart => rng.random_range(0.0..START),
            Self::Within(_) => 0.0,
        }
    }

    /// Whether it has come, and at most how long a kill is put off then.
    fn has_come(&self, run: &Path) -> Option<Duration> {
        match self {
            Self::Anywhere | Self::AtStart => Some(Duration::ZERO),
            Self::InSave => is_saving(run).then_some(Duration::from_millis(3)),
            Self::Within(id) => run.join("stages").join(id).exists().then_some(Duration::from_millis(60)),
        }
    }
}

/// Waits until a random moment; nothing if the run ends before.
fn wait_for_moment(
    child: &mut Child,
    run: &Path,
    whole: Duration,
    rng: &mut ChaCha8Rng,
) -> Result<Option<&'static str>> {
    let moment = Moment::drawn(run, rng);
    let seconds = moment.seconds(whole.as_secs_f64(), rng);
    let put_off = rng.random_range(0.0..1.0);
    let clock = Instant::now();
    loop {
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        if clock.elapsed().as_secs_f64() >= seconds
            && let Some(longest) = moment.has_come(run)
        {
            sleep(longest.mul_f64(put_off));
            return Ok(child.try_wait()?.is_none().then_some(moment.name()));
        }
        sleep(Duration::from_micros(200));
    }
}

/// Whether something lies in the run folder that is written aside, or about to be replaced.
fn is_saving(run: &Path) -> bool {
    let stages = fs::read_dir(run.join("stages")).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = [run.to_owned(), run.join("stages")].into_iter().chain(stages);
    let mut names = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    names.any(|entry| Path::new(&entry.file_name()).extension().is_some_and(|e| e == "partial" || e == "before"))
}

/// Ids and kinds of the plan's stages that are not finished.
fn open_stages(run: &Path) -> Vec<(String, String)> {
    let plan: Option<Value> = fs::read(run.join("plan.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let stages = plan.map(|plan| plan["stages"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
    let text = |stage: &Value, key: &str| stage[key].as_str().unwrap_or_default().to_owned();
    let all = stages.iter().map(|stage| (text(stage, "id"), text(stage, "kind")));
    all.filter(|(id, _)| !room::is_finished(&run.join("stages").join(id))).collect()
}

/// The kind of the stage that a run was at.
fn stage_under_way(run: &Path) -> String {
    match open_stages(run).into_iter().next() {
        Some((_, kind)) => kind,
        None if run.join("plan.json").is_file() => "reports".into(),
        None => "before the plan".into(),
    }
}

fn difference(expected: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) -> Option<String> {
    let missing = expected.keys().find(|path| !found.contains_key(*path)).map(|path| (path, "is missing"));
    let more = found.keys().find(|path| !expected.contains_key(*path)).map(|path| (path, "is left over"));
    let other = expected.iter().find(|(path, hash)| found.get(*path).is_some_and(|f| f != *hash));
    let (path, what) = missing.or(more).or(other.map(|(path, _)| (path, "differs")))?;
    Some(format!("{} {what}", path.display()))
}

/// Prints the figures as tables.
fn say(room: &Room, trials: &[Trial]) {
    let kills: Vec<&Kill> = trials.iter().flat_map(|trial| &trial.kills).collect();
    let same = trials.iter().filter(|trial| trial.wrong.is_none()).count();
    println!(
        "\n{} SIGKILLs in {} runs of 16 stages ({:.0} s each if nothing interrupts): {same} ended with the same bytes, {} with others\n",
        kills.len(),
        trials.len(),
        room.whole.as_secs_f64(),
        trials.len() - same
    );
    let count = |name: fn(&Kill) -> &str| {
        let mut counts = BTreeMap::<&str, (usize, usize)>::new();
        for kill in &kills {
            let (all, saving) = counts.entry(name(kill)).or_default();
            *all += 1;
            *saving += usize::from(kill.in_save);
        }
        counts
    };
    for (title, counts) in [("moment", count(|kill| kill.moment)), ("stage", count(|kill| &kill.stage))] {
        println!("| {title} | kills | of them with something half written |\n|---|---|---|");
        counts.iter().for_each(|(name, (all, saving))| println!("| {name} | {all} | {saving} |"));
        println!();
    }
}
