//! A stage's logs: metrics.jsonl (identical for identical plans and machines), timings.jsonl, completions.jsonl and TensorBoard events.
//! They lie in the stage's folder; the run's files of the same names are those of all its stages, one after the other. Lines carry stage
//! and step, so that a resumed stage can drop what came after its checkpoint.

use super::events::Events;
use crate::folder;
use crate::names;
use crate::session::{Cx, Session};
use crate::{Error, Result};
use motrain_core::durable;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Metrics of one step, by name.
pub type Metrics = BTreeMap<String, f64>;

/// Logs of one stage.
pub struct Log {
    stage: String,
    metrics: Lines,
    timings: Lines,
    completions: Lines,
    events: Events,
}

pub const FILES: [&str; 3] = [names::METRICS, names::TIMINGS, names::COMPLETIONS];

impl Log {
    /// Opens the logs of a stage that goes on after `step`; later lines are dropped.
    pub fn open(stage: Cx, step: usize) -> Result<Self> {
        let own = stage.folder();
        for name in FILES {
            drop_after(&own.join(name), step)?;
        }
        compose(stage.session, Some(stage.id))?;
        let lines = |name: &str| Lines::open(own.join(name), stage.session.folder.root().join(name));
        let (metrics, timings, completions) =
            (lines(names::METRICS)?, lines(names::TIMINGS)?, lines(names::COMPLETIONS)?);
        let events = events(stage.session, stage.id)?;
        Ok(Self { stage: stage.id.into(), metrics, timings, completions, events })
    }

    pub fn metrics(&mut self, step: usize, metrics: &Metrics) -> Result<()> {
        let mut line = json!({ "stage": self.stage, "step": step });
        for (name, value) in metrics {
            line[name] = json!(value);
        }
        self.events.scalars(step, metrics.iter().map(|(k, v)| (k.as_str(), *v)))?;
        self.metrics.add(&line)
    }

    /// What differs between machines: seconds, tokens per second.
    pub fn timings(&mut self, step: usize, timings: &Metrics) -> Result<()> {
        let mut line = json!({ "stage": self.stage, "step": step });
        for (name, value) in timings {
            line[name] = json!((value * 1e4).round() / 1e4);
        }
        self.timings.add(&line)
    }

    /// A completion with the prompt as the policy saw it, and its scores.
    pub fn completion(&mut self, step: usize, mut fields: Map<String, Value>) -> Result<()> {
        fields.insert("stage".into(), json!(self.stage));
        fields.insert("step".into(), json!(step));
        self.completions.add(&Value::Object(fields))
    }

    /// Waits until what was logged is on the disk: a checkpoint must not be ahead of it.
    pub fn sync(&self) -> Result<()> {
        [&self.metrics, &self.timings, &self.completions].into_iter().try_for_each(Lines::sync)
    }
}

/// Lines that go to the stage's file and to the run's.
struct Lines {
    files: [(PathBuf, File); 2],
}

impl Lines {
    fn open(own: PathBuf, run: PathBuf) -> Result<Self> {
        let open = |path: PathBuf| {
            folder::refuse_link(&path)?;
            match OpenOptions::new().create(true).append(true).open(&path) {
                Ok(file) => Ok((path, file)),
                Err(error) => Err(Error::io(&path, error)),
            }
        };
        Ok(Self { files: [open(own)?, open(run)?] })
    }

    fn add(&mut self, line: &Value) -> Result<()> {
        let line = format!("{line}\n");
        self.files
            .iter_mut()
            .try_for_each(|(path, file)| file.write_all(line.as_bytes()).map_err(|e| Error::io(path, e)))
    }

    fn sync(&self) -> Result<()> {
        let (path, file) = &self.files[0];
        file.sync_all().map_err(|e| Error::io(path, e))
    }
}

/// Remakes the run's logs from those of its stages, in the order of the plan, up to the stage `last`.
pub fn compose(session: &Session, last: Option<&str>) -> Result<()> {
    let ids = session.stages.ids();
    let end = last.and_then(|last| ids.iter().position(|id| *id == last)).map_or(ids.len(), |at| at + 1);
    for name in FILES {
        let mut all = Vec::new();
        for id in &ids[..end] {
            all.extend(std::fs::read(session.stage_folder(id).join(name)).unwrap_or_default());
        }
        let path = session.folder.root().join(name);
        if !all.is_empty() || path.exists() {
            durable::write(&path, all).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}

/// Shows a stage that is reused to TensorBoard too, where its place shows one with other options.
pub fn show_events(session: &Session, id: &str) -> Result<()> {
    let folder = session.folder.root().join(names::EVENTS).join(id);
    if Events::are_of(&folder, &session.hashes[id]) || read_metrics(session.folder.root(), id)?.is_empty() {
        return Ok(());
    }
    events(session, id).map(drop)
}

/// The events of a stage so far.
fn events(session: &Session, id: &str) -> Result<Events> {
    let mut events = Events::create(&session.folder.root().join(names::EVENTS).join(id), &session.hashes[id])?;
    for (at, metrics) in read(&session.stage_folder(id).join(names::METRICS), id)? {
        events.scalars(at, metrics.iter().map(|(k, v)| (k.as_str(), *v)))?;
    }
    Ok(events)
}

/// Gives a stage without logs of its own the lines that the run's have of it.
pub fn split(run: &Path, stage: &str, own: &Path) -> Result<()> {
    if own.exists() {
        return Ok(());
    }
    let of_stage = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|v| v["stage"] == stage);
    let lines: String = text(run)?.lines().filter(of_stage).map(|l| format!("{l}\n")).collect();
    if lines.is_empty() { Ok(()) } else { durable::write(own, lines).map_err(|e| Error::io(own, e)) }
}

/// The metrics of a stage, step by step.
pub fn read_metrics(run: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    read(&log_of(run, stage, names::METRICS), stage)
}

/// The timings of a stage, step by step.
pub fn read_timings(run: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    read(&log_of(run, stage, names::TIMINGS), stage)
}

/// A stage's own log; a run of an earlier motrain has only the run's.
fn log_of(run: &Path, stage: &str, name: &str) -> PathBuf {
    let own = folder::stage(run, stage).join(name);
    if own.exists() { own } else { run.join(name) }
}

fn read(path: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    let text = text(path)?;
    let mut out = Vec::new();
    for line in text.lines() {
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(line) else { continue };
        if map.get("stage").and_then(Value::as_str) != Some(stage) {
            continue;
        }
        let step = map.get("step").and_then(Value::as_u64).unwrap_or(0) as usize;
        let metrics = map.iter().filter(|(k, _)| *k != "step").filter_map(|(k, v)| Some((k.clone(), v.as_f64()?)));
        out.push((step, metrics.collect()));
    }
    Ok(out)
}

/// The text of a log, empty where there is none. A kill may have torn the last line, even within a character.
fn text(path: &Path) -> Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// Keeps whole lines up to `step`.
fn drop_after(path: &Path, step: usize) -> Result<()> {
    let text = text(path)?;
    let keep = |line: &&str| {
        serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].as_u64().is_some_and(|at| at as usize <= step))
    };
    let kept: String = text.lines().filter(keep).map(|l| format!("{l}\n")).collect();
    if kept == text {
        return Ok(());
    }
    durable::write(path, kept).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_a_checkpoint_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(names::METRICS);
        let line = |step: usize| format!("{}\n", json!({ "stage": "a", "step": step, "loss": 0.1 + step as f64 }));
        let whole: String = (1..=3).map(line).collect();
        std::fs::write(&path, [whole.as_bytes(), b"{\"stage\": \"a\", \"text\": \"\xc3"].concat()).unwrap();
        drop_after(&path, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        drop_after(&path, 2).unwrap();
        let one = |v: f64| Metrics::from([("loss".to_owned(), v)]);
        assert_eq!(read(&path, "a").unwrap(), [(1, one(1.1)), (2, one(2.1))]);
        assert_eq!(read(&path, "b").unwrap(), []);
    }
}
