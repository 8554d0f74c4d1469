//! Runs a plan in a run folder, reusing finished stages.

use crate::folder::{self, Manifest, RunFolder, Status};
use crate::inputs::Inputs;
use crate::names;
use crate::obey;
use crate::plan::{Plan, Stage};
use crate::publish;
use crate::session::{Cx, Session};
use crate::settle::settle;
use crate::stage::{self, AnyWork, Makes, front};
use crate::time_left::TimeLeft;
use crate::tokenizer::clock;
use crate::train::log;
use crate::{Error, PROFILE, Result, device};
use motrain_core::data::json_lines;
use motrain_core::durable;
use motrain_core::metrics::report::Fronts;
use motrain_core::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// Evaluations by the same rewards, which alone can be compared: a run of several tasks has one for each.
pub struct Front {
    /// The id of the `rewards` stage; nothing where the run has no other.
    pub of: Option<String>,
    pub fronts: Fronts,
    /// Ids of the evaluation stages, in the order of the fronts' methods.
    pub evaluations: Vec<String>,
}

impl Front {
    /// `front.json`, or `front-<rewards>.json` beside others.
    pub fn file(&self, name: &str, extension: &str) -> String {
        match &self.of {
            None => format!("{name}.{extension}"),
            Some(rewards) => format!("{name}-{rewards}.{extension}"),
        }
    }
}

/// Runs `plan` in a run folder. What was finished with the same hash, whatever came in between, is reused.
pub fn run(plan: &Plan, registry: &Registry, folder: &RunFolder) -> Result<Vec<Front>> {
    let device = device::device(&plan.device)?;
    let dtype = device::dtype(&plan.dtype, device)?;
    plan.stages.iter().try_for_each(|s| folder::check_id(&s.id))?;
    settle(folder)?;
    let inputs = Inputs::new(Manifest::read(folder.root()).inputs_sha256);
    let hashes = plan.hashes(|path| inputs.fingerprint(path), |work| [stage::SHARED, work.revision()])?;
    let session = Session { stages: plan, registry, folder, hashes, device, dtype };
    needs_nothing_gone(plan, &session, &inputs)?;
    fits(plan, &session)?;
    if !holds(folder, plan) {
        folder.write_json(names::PLAN, plan)?;
    }
    folder.write_json(names::MANIFEST, &manifest(plan, &session, &inputs))?;
    clock::keep(folder)?;
    let mut left = TimeLeft::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        let kind = stage.work.kind();
        if let Some(before) = status(&session, &stage.id) {
            tracing::info!("{}: finished before, reused", stage.id);
            folder.show(&stage.id, &before.hash)?;
            log::show_events(&session, &stage.id)?;
            before.seconds.into_iter().for_each(|s| left.finished(kind, s));
            continue;
        }
        let rest =
            left.told(plan.stages[at..].iter().filter(|s| status(&session, &s.id).is_none()).map(|s| s.work.kind()));
        tracing::info!("{}: started (stage {} of {}{rest})", stage.id, at + 1, plan.stages.len());
        let _part = tracing::trace_span!(target: PROFILE, "stage", id = stage.id.as_str(), kind).entered();
        left.finished(kind, finish(Cx { session: &session, id: &stage.id }, stage.work.as_ref())?);
    }
    log::compose(&session, None)?;
    publish_policy(plan, &session)?;
    fronts(plan, &session)
}

/// Whether the folder's plan, read in this working directory, is `plan`: its relative paths then stay, for the next move.
fn holds(folder: &RunFolder, plan: &Plan) -> bool {
    let saved = std::fs::read(folder.root().join(names::PLAN)).ok();
    let saved = saved.and_then(|text| serde_json::from_slice::<Plan>(&text).ok());
    saved.zip(std::env::current_dir().ok()).is_some_and(|(saved, here)| saved.read_in(&here) == *plan)
}

/// What an open stage reads must be there; finished ones need nothing any more.
fn needs_nothing_gone(plan: &Plan, session: &Session, inputs: &Inputs) -> Result<()> {
    for stage in plan.stages.iter().filter(|s| status(session, &s.id).is_none()) {
        if let Some(path) = stage.inputs(&plan.plugins).into_iter().find(|path| inputs.is_gone(path)) {
            let what = format!("is not there any more, and stage \"{}\" needs it; bring it back", stage.id);
            return Err(Error::file(Path::new(&path), what));
        }
    }
    Ok(())
}

/// Models of open stages must be such as these can read. Those of a new run are looked at before it has a folder (`motrain check`).
fn fits(plan: &Plan, session: &Session) -> Result<()> {
    if !session.folder.root().join(names::PLAN).is_file() {
        return Ok(());
    }
    let unfit = plan.unfit_models(|stage| status(session, &stage.id).is_none());
    if unfit.is_empty() { Ok(()) } else { Err(Error::invalid(unfit.join("\n"))) }
}

/// The status of a stage that was finished with its present hash.
fn status(session: &Session, id: &str) -> Option<Status> {
    Status::of(&session.stage_folder(id)).filter(|s| s.is_done(&session.hashes[id]))
}

/// Does a stage, and says that it is finished once all of it is on the disk. Returns the seconds that it took.
fn finish(stage: Cx, work: &dyn AnyWork) -> Result<f64> {
    let (folder, hash) = (stage.folder(), &stage.session.hashes[stage.id]);
    folder::refuse_link(&folder)?;
    durable::create_folder(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut status = Status { hash: hash.clone(), finished: false, seconds: None };
    status.save(&folder)?;
    stage.session.folder.show(stage.id, hash)?;
    let started = Instant::now();
    obey().and_then(|()| work.run(stage)).map_err(|error| match error {
        Error::Stopped => stage.interrupted("; finished stages are kept, this one begins anew".into()),
        other => other,
    })?;
    durable::sync_tree(&folder).map_err(|e| Error::io(&folder, e))?;
    let seconds = started.elapsed().as_secs_f64();
    (status.finished, status.seconds) = (true, Some(seconds));
    status.save(&folder)?;
    Ok(seconds)
}

/// The policy that was evaluated last (without evaluations, the newest one) also lies at policy/, where users look for it, unless it was there
/// before the run. Its generation_config.json says how it was evaluated.
fn publish_policy(plan: &Plan, session: &Session) -> Result<()> {
    let stages = || plan.stages.iter().rev();
    let judged = stages().filter_map(|s| s.work.judged()).find(|judged| judged.by.is_made_by_a_stage());
    let newest = stages().find(|s| s.work.makes().contains(&Makes::Policy)).map(|s| &s.id);
    let to = session.folder.root().join(names::POLICY);
    let partial = durable::beside(&to, "partial");
    durable::remove(&partial).and_then(|()| std::fs::create_dir(&partial)).map_err(|e| Error::io(&partial, e))?;
    match (judged, newest) {
        (Some(judged), _) => {
            let objectives = stage::rewards::of(session, judged.rewards)?.objectives();
            publish::publish(session, &judged, objectives, &partial)?;
        }
        (None, Some(id)) if !stages().any(makes_front) => {
            let model = session.stage_folder(id).join(names::MODEL);
            publish::bring(&model, &partial, &partial)?;
        }
        _ => return durable::remove(&partial).map_err(|e| Error::io(&partial, e)),
    }
    durable::publish(&partial, &to).map_err(|e| Error::io(&to, e))
}

fn makes_front(stage: &Stage) -> bool {
    stage.work.makes().contains(&Makes::Front)
}

fn fronts(plan: &Plan, session: &Session) -> Result<Vec<Front>> {
    let mut all: Vec<Front> = Vec::new();
    for stage in plan.stages.iter().filter(|s| makes_front(s)) {
        let rewards = stage.rewards();
        let (objectives, method) = front::load(&session.stage_folder(&stage.id))?;
        let at = all.iter().position(|f| f.of == rewards).unwrap_or_else(|| {
            let reference_point = vec![0.0; objectives.len()];
            let fronts = Fronts { objectives, reference_point, methods: vec![], ceiling: None };
            all.push(Front { of: rewards.clone(), fronts, evaluations: vec![] });
            all.len() - 1
        });
        if stage.work.makes().contains(&Makes::Ceiling) {
            all[at].fronts.ceiling = all[at].fronts.ceiling.or(Some(method.hypervolume).filter(|volume| *volume > 0.0));
        }
        all[at].fronts.methods.push(method);
        all[at].evaluations.push(stage.id.clone());
    }
    if let [only] = all.as_mut_slice() {
        only.of = None;
    }
    for front in all.iter_mut().filter(|f| f.fronts.ceiling.is_some()) {
        if let Some(odd) = other_prompts(session, &front.evaluations)? {
            let what =
                "was not made of the same prompts as others on its scales: no front is given as a share of the ceiling";
            tracing::warn!("{odd}: {what}");
            front.fronts.ceiling = None;
        }
    }
    if all.len() > 1 {
        // What an earlier plan with one front left would pass for this plan's.
        for (name, extension) in [(names::FRONT, "json"), (names::FRONT, "svg"), (names::REPORT, "html")] {
            let path = session.folder.root().join(name).with_extension(extension);
            durable::remove(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    for front in &all {
        session.folder.write_json(&front.file(names::FRONT, "json"), &front.fronts)?;
    }
    Ok(all)
}

/// The first of the stages whose answers are to other prompts than those of the first one.
fn other_prompts<'a>(session: &Session, stages: &'a [String]) -> Result<Option<&'a String>> {
    let prompts = |id: &String| -> Result<BTreeSet<String>> {
        let path = session.stage_folder(id).join(names::ANSWERS);
        Ok(json_lines(&path)?.into_iter().map(|(_, row)| row["prompt"].to_string()).collect())
    };
    let Some(first) = stages.first() else { return Ok(None) };
    let own = prompts(first)?;
    for id in stages {
        if prompts(id)? != own {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn manifest(plan: &Plan, session: &Session, inputs: &Inputs) -> Value {
    json!({
        "motrain": env!("CARGO_PKG_VERSION"),
        "layout": folder::LAYOUT,
        "seed": plan.seed,
        "device": plan.device,
        "compute_type": format!("{:?}", session.dtype),
        "threads": tch::get_num_threads(),
        "cpu": cpu_name(),
        "os": std::env::consts::OS,
        "plugins": plan.plugins,
        "stages": session.hashes,
        "inputs_sha256": inputs.all(),
    })
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("model name"));
    line.and_then(|l| l.split(':').nth(1)).unwrap_or(std::env::consts::ARCH).trim().to_owned()
}
