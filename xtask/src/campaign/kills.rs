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
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Kills that are still to come, and how many fell into each kind of stage.
struct Tally {
    left: AtomicU64,
    kinds: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    fn new(left: u64, stages: &[(String, String)]) -> Self {
        let kinds = stages.iter().map(|(_, kind)| (kind.clone(), 0)).collect();
        Self { left: AtomicU64::new(left), kinds: Mutex::new(kinds) }
    }

    fn more(&self) -> bool {
        self.left.load(Relaxed) > 0
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: &str) {
        let _ = self.left.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(1)));
        *self.kinds().entry(kind.into()).or_default() += 1;
    }

    /// A stage of a kind that has been killed least.
    fn rarest(&self, open: &[(String, String)], rng: &mut ChaCha8Rng) -> Option<String> {
        let kinds = self.kinds();
        let kills = |kind: &String| kinds.get(kind).copied().unwrap_or(0);
        let least = open.iter().map(|(_, kind)| kills(kind)).min()?;
        let rare: Vec<&String> = open.iter().filter(|(_, kind)| kills(kind) == least).map(|(id, _)| id).collect();
        rare.choose(rng).map(|id| (*id).clone())
    }

    /// Kinds that no kill fell into.
    fn never(&self) -> Vec<String> {
        self.kinds().iter().filter(|(_, kills)| **kills == 0).map(|(kind, _)| kind.clone()).collect()
    }
}

/// Kills runs until there were as many kills as wanted; returns what went wrong.
pub fn campaign(room: &Room, wanted: &Campaign) -> Result<Vec<String>> {
    if wanted.kills == 0 {
        return Ok(vec![]);
    }
    let expected = room::results(&room.finished())?;
    let stages = stages_of(&room.finished());
    let tally = Tally::new(wanted.kills, &stages);
    let trials = side_by_side(wanted.jobs, |number| {
        if !tally.more() {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(wanted.seed);
        rng.set_stream(number);
        let name = format!("kills-{number}");
        let folder = room.trial(&name)?;
        let kills = kill_until_finished(room, &folder, &tally, &mut rng)?;
        let differs = difference(&expected, &room::results(&folder.join("run"))?);
        let wrong = differs.map(|what| format!("{name}: {what} after {} kills", kills.len()));
        match &wrong {
            None => fs::remove_dir_all(&folder)?,
            Some(_) => keep(room, &folder)?,
        }
        Ok(Some(Trial { kills, wrong }))
    })?;
    say(room, stages.len(), &trials);
    let never = tally.never().into_iter().map(|kind| format!("no kill fell into a stage of kind {kind}; try more"));
    Ok(trials.into_iter().filter_map(|trial| trial.wrong).chain(never).collect())
}

fn keep(room: &Room, folder: &Path) -> Result<()> {
    fs::create_dir_all(room.findings())?;
    fs::rename(folder, room.findings().join(folder.file_name().unwrap_or_default()))?;
    Ok(())
}

/// Starts a run and goes on with it, killing it at a random moment each time, until it gets through.
fn kill_until_finished(room: &Room, folder: &Path, tally: &Tally, rng: &mut ChaCha8Rng) -> Result<Vec<Kill>> {
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
        if tally.more()
            && let Some(moment) = wait_for_moment(&mut child, &run, room.whole, tally, rng)?
        {
            child.kill()?;
            child.wait()?;
            let stage = stage_under_way(&run);
            tally.add(&stage);
            kills.push(Kill { moment, stage, in_save: is_saving(&run) });
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

    fn drawn(run: &Path, tally: &Tally, rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            0..3 => Self::Anywhere,
            3..5 => Self::InSave,
            5 => Self::AtStart,
            _ => tally.rarest(&open_stages(run), rng).map_or(Self::Anywhere, Self::Within),
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
    tally: &Tally,
    rng: &mut ChaCha8Rng,
) -> Result<Option<&'static str>> {
    let moment = Moment::drawn(run, tally, rng);
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

/// Ids and kinds of the plan's stages.
fn stages_of(run: &Path) -> Vec<(String, String)> {
    let plan: Option<Value> = fs::read(run.join("plan.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let stages = plan.map(|plan| plan["stages"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
    let text = |stage: &Value, key: &str| stage[key].as_str().unwrap_or_default().to_owned();
    stages.iter().map(|stage| (text(stage, "id"), text(stage, "kind"))).collect()
}

/// Those that are not finished.
fn open_stages(run: &Path) -> Vec<(String, String)> {
    let open = |(id, _): &(String, String)| !room::is_finished(&run.join("stages").join(id));
    stages_of(run).into_iter().filter(open).collect()
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
fn say(room: &Room, stages: usize, trials: &[Trial]) {
    let kills: Vec<&Kill> = trials.iter().flat_map(|trial| &trial.kills).collect();
    let same = trials.iter().filter(|trial| trial.wrong.is_none()).count();
    println!(
        "\n{} SIGKILLs in {} runs of {stages} stages ({:.0} s each if nothing interrupts): {same} ended with the same bytes, {} with others\n",
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
