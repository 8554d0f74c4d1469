//! Runs a plan in a run folder, reusing finished stages.

use crate::algorithm::{
    best_of_n, compare, evaluate, init_model, online_preference, reinforce, reward_model, rewards, ric_data, sft, soup,
};
use crate::model::write_json;
use crate::session::{Session, Stage};
use crate::time_left::TimeLeft;
use crate::{Error, Result, device, generation};
use motrain_core::metrics::report::Fronts;
use motrain_core::plan::{Evaluate, ModelRef, Plan, Work};
use motrain_core::plugin::keep_note;
use motrain_core::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What a finished run leaves for a report.
pub struct Outcome {
    pub fronts: Option<Fronts>,
    /// Ids of the evaluation stages, in the order of the fronts' methods.
    pub evaluations: Vec<String>,
}

/// Runs `plan` in the folder `run`. Finished stages with the same hash are reused; a folder of a changed stage is moved aside.
pub fn run(plan: &Plan, registry: &Registry, run: &Path, stop: &AtomicBool) -> Result<Outcome> {
    let device = device::device(&plan.device)?;
    let kind = device::kind(&plan.dtype, device)?;
    std::fs::create_dir_all(run.join("stages"))
        .map_err(|e| Error::file(run, format!("the run folder cannot be made ({e}); choose another with --out")))?;
    let fingerprints = RefCell::new(BTreeMap::new());
    let hashes = plan.hashes(|path| fingerprint(path, &fingerprints))?;
    let _note = plugin_note(plan, run);
    let session = Session { plan, registry, run: run.to_owned(), device, kind, stop };
    write_json(&run.join("plan.json"), &serde_json::to_value(plan).map_err(|e| Error::invalid(e.to_string()))?)?;
    write_json(&run.join("manifest.json"), &manifest(&session, &hashes, &fingerprints.borrow()))?;
    let mut left = TimeLeft::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        let folder = session.stage_folder(&stage.id);
        let hash = &hashes[&stage.id];
        match Status::of(&folder) {
            Some(before) if before.is_done(hash) => {
                tracing::info!("{}: finished before, reused", stage.id);
                if let Some(seconds) = before.seconds {
                    left.finished(discriminant(&stage.work), seconds);
                }
                continue;
            }
            Some(before) if before.hash != *hash => set_aside(&folder, &before.hash)?,
            _ => {}
        }
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let mut status = Status { hash: hash.clone(), finished: false, seconds: None };
        status.save(&folder)?;
        let done = |id: &String| Status::of(&session.stage_folder(id)).is_some_and(|s| s.is_done(&hashes[id]));
        let rest = left.told(plan.stages[at..].iter().filter(|s| !done(&s.id)).map(|s| discriminant(&s.work)));
        tracing::info!("{}: started (stage {} of {}{rest})", stage.id, at + 1, plan.stages.len());
        let started = Instant::now();
        run_stage(Stage { session: &session, id: &stage.id }, &stage.work)?;
        let seconds = started.elapsed().as_secs_f64();
        left.finished(discriminant(&stage.work), seconds);
        (status.finished, status.seconds) = (true, Some(seconds));
        status.save(&folder)?;
    }
    publish_policy(&session)?;
    outcome(&session)
}

/// While the run uses plugins, a note in its folder names the call that is under way: a process that is killed cannot say it any more.
fn plugin_note(plan: &Plan, run: &Path) -> Option<impl Drop> {
    let file = run.join("plugin-call.txt");
    let (note, left) = (!plan.plugins.is_empty()).then(|| keep_note(&file))?;
    if let Some(calls) = left {
        tracing::warn!(
            "the last run here ended within {calls}; if nobody stopped it, mend that plugin (`motrain plugin check` tries it alone). It goes \
             on from its last checkpoint"
        );
    }
    Some(note)
}

fn run_stage(stage: Stage, work: &Work) -> Result<()> {
    match work {
        Work::InitModel(spec) => init_model::run(stage, spec),
        Work::Sft(spec) => sft::run(stage, spec),
        Work::RewardModel(spec) => reward_model::run(stage, spec),
        Work::Rewards(spec) => rewards::run(stage, spec),
        Work::BestOfN(spec) => best_of_n::run(stage, spec),
        Work::RicData(spec) => ric_data::run(stage, spec),
        Work::OnlinePreference(spec) => online_preference::run(stage, spec),
        Work::Reinforce(spec) => reinforce::run(stage, spec),
        Work::Soup(spec) => soup::run(stage, spec),
        Work::Evaluate(spec) => evaluate::run(stage, spec),
        Work::Compare(spec) => compare::run(stage, spec),
    }
}

/// stage.json: what a stage's folder was made by, and whether it is whole.
#[derive(Serialize, Deserialize)]
struct Status {
    hash: String,
    finished: bool,
    /// How long its last run took.
    seconds: Option<f64>,
}

impl Status {
    fn of(folder: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(folder.join("stage.json")).ok()?).ok()
    }

    fn is_done(&self, hash: &str) -> bool {
        self.finished && self.hash == hash
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join("stage.json"), &json!(self))
    }
}

/// Nothing finished is ever lost: the folder of a stage with other options keeps its content under another name.
fn set_aside(folder: &Path, hash: &str) -> Result<()> {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".{}", &hash[..8.min(hash.len())]));
    let aside = PathBuf::from(name);
    let _ = std::fs::remove_dir_all(&aside);
    tracing::info!("{} was made with other options; kept as {}", folder.display(), aside.display());
    std::fs::rename(folder, &aside).map_err(|e| Error::io(&aside, e))
}

/// The policy that was evaluated last (without evaluations, the newest one) also lies at policy/, where users look for it. Soups and
/// grids of policies have none to show. Its generation_config.json says how it was evaluated.
fn publish_policy(session: &Session) -> Result<()> {
    let stages = || session.plan.stages.iter().rev();
    let evaluated = stages().find_map(|s| match &s.work {
        Work::Evaluate(Evaluate { policy: Some(ModelRef::Stage { stage }), generate, .. }) => {
            Some((stage.as_str(), Some(generate)))
        }
        _ => None,
    });
    let newest = stages().find(|s| s.work.makes_policy()).map(|s| (s.id.as_str(), None));
    let judged = stages().any(|s| matches!(s.work, Work::Evaluate(_)));
    let Some((id, sampling)) = (if judged { evaluated } else { newest }) else { return Ok(()) };
    let from = session.stage_folder(id).join("model");
    let to = session.run.join("policy");
    let partial = session.run.join("policy.partial");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).map_err(|e| Error::io(&partial, e))?;
    for entry in std::fs::read_dir(&from).map_err(|e| Error::io(&from, e))?.flatten() {
        let target = partial.join(entry.file_name());
        // A hard link where the file system has them: weights are large.
        if std::fs::hard_link(entry.path(), &target).is_err() {
            std::fs::copy(entry.path(), &target).map_err(|e| Error::io(&target, e))?;
        }
    }
    if let Some(sampling) = sampling {
        generation::save(&partial, sampling)?;
    }
    let _ = std::fs::remove_dir_all(&to);
    std::fs::rename(&partial, &to).map_err(|e| Error::io(&to, e))
}

fn outcome(session: &Session) -> Result<Outcome> {
    let mut fronts: Option<Fronts> = None;
    let mut evaluations = Vec::new();
    for stage in session.plan.stages.iter().filter(|s| matches!(s.work, Work::Evaluate(_))) {
        let (objectives, method) = evaluate::load(&session.stage_folder(&stage.id))?;
        let reference_point = vec![0.0; objectives.len()];
        let all = fronts.get_or_insert_with(|| Fronts { objectives, reference_point, methods: vec![] });
        all.methods.push(method);
        evaluations.push(stage.id.clone());
    }
    if let Some(fronts) = &fronts {
        let value = serde_json::to_value(fronts).map_err(|e| Error::invalid(e.to_string()))?;
        write_json(&session.run.join("front.json"), &value)?;
    }
    Ok(Outcome { fronts, evaluations })
}

fn manifest(session: &Session, hashes: &BTreeMap<String, String>, inputs: &BTreeMap<String, String>) -> Value {
    json!({
        "motrain": env!("CARGO_PKG_VERSION"),
        "seed": session.plan.seed,
        "device": session.plan.device,
        "compute_type": format!("{:?}", session.kind),
        "threads": tch::get_num_threads(),
        "cpu": cpu_name(),
        "os": std::env::consts::OS,
        "plugins": session.plan.plugins,
        "stages": hashes,
        "inputs_sha256": inputs,
    })
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("model name"));
    line.and_then(|l| l.split(':').nth(1)).unwrap_or(std::env::consts::ARCH).trim().to_owned()
}

/// The SHA-256 of a file, or of all files of a model folder.
fn fingerprint(path: &str, known: &RefCell<BTreeMap<String, String>>) -> motrain_core::Result<String> {
    if let Some(found) = known.borrow().get(path) {
        return Ok(found.clone());
    }
    let root = Path::new(path);
    let mut hasher = Sha256::new();
    let mut files = vec![root.to_owned()];
    if root.is_dir() {
        let entries = std::fs::read_dir(root).map_err(|e| motrain_core::Error::io(root, e))?;
        files = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
        files.sort();
    } else if !root.is_file() {
        return Err(motrain_core::Error::file(root, "does not exist"));
    }
    for file in files {
        hash_file(&file, &mut hasher).map_err(|e| motrain_core::Error::io(&file, e))?;
    }
    let hash: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    known.borrow_mut().insert(path.to_owned(), hash.clone());
    Ok(hash)
}

fn hash_file(path: &Path, hasher: &mut Sha256) -> std::io::Result<()> {
    hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    let mut file = File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
