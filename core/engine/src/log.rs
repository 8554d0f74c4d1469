//! The run's logs: metrics.jsonl (identical for identical plans and machines), timings.jsonl, completions.jsonl and TensorBoard events.
//! Lines carry stage and step, so that a resumed stage can drop what came after its checkpoint.

use crate::events::Events;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Metrics of one step, by name.
pub type Metrics = BTreeMap<String, f64>;

/// Logs of one stage.
pub struct Log {
    run: PathBuf,
    stage: String,
    metrics: File,
    timings: File,
    completions: File,
    events: Events,
}

const FILES: [&str; 3] = ["metrics.jsonl", "timings.jsonl", "completions.jsonl"];

impl Log {
    /// Opens the logs for a stage that goes on after `step`; later lines of this stage are dropped.
    pub fn open(run: &Path, stage: &str, step: usize) -> Result<Self> {
        for name in FILES {
            drop_after(&run.join(name), stage, step)?;
        }
        let append = |name: &str| {
            let path = run.join(name);
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))
        };
        let mut events = Events::create(&run.join("events").join(stage))?;
        for (at, metrics) in read_metrics(run, stage)? {
            events.scalars(at, metrics.iter().map(|(k, v)| (k.as_str(), *v)))?;
        }
        let (metrics, timings, completions) = (append(FILES[0])?, append(FILES[1])?, append(FILES[2])?);
        Ok(Self { run: run.into(), stage: stage.into(), metrics, timings, completions, events })
    }

    pub fn metrics(&mut self, step: usize, metrics: &Metrics) -> Result<()> {
        let mut line = json!({ "stage": self.stage, "step": step });
        for (name, value) in metrics {
            line[name] = json!(value);
        }
        self.events.scalars(step, metrics.iter().map(|(k, v)| (k.as_str(), *v)))?;
        write_line(&mut self.metrics, &self.run.join(FILES[0]), &line)
    }

    /// What differs between machines: seconds, tokens per second.
    pub fn timings(&mut self, step: usize, timings: &Metrics) -> Result<()> {
        let mut line = json!({ "stage": self.stage, "step": step });
        for (name, value) in timings {
            line[name] = json!((value * 1e4).round() / 1e4);
        }
        write_line(&mut self.timings, &self.run.join(FILES[1]), &line)
    }

    /// A completion with the prompt as the policy saw it, and its scores.
    pub fn completion(&mut self, step: usize, mut fields: Map<String, Value>) -> Result<()> {
        fields.insert("stage".into(), json!(self.stage));
        fields.insert("step".into(), json!(step));
        write_line(&mut self.completions, &self.run.join(FILES[2]), &Value::Object(fields))
    }
}

fn write_line(file: &mut File, path: &Path, line: &Value) -> Result<()> {
    file.write_all(format!("{line}\n").as_bytes()).map_err(|e| Error::io(path, e))
}

/// The metrics of a stage, step by step.
pub fn read_metrics(run: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    read(&run.join(FILES[0]), stage)
}

/// The timings of a stage, step by step.
pub fn read_timings(run: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    read(&run.join(FILES[1]), stage)
}

fn read(path: &Path, stage: &str) -> Result<Vec<(usize, Metrics)>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
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

/// Keeps whole lines of other stages and those of `stage` up to `step`.
fn drop_after(path: &Path, stage: &str, step: usize) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let keep = |line: &&str| match serde_json::from_str::<Value>(line) {
        Ok(v) => v["stage"] != stage || v["step"].as_u64().unwrap_or(0) as usize <= step,
        Err(_) => false,
    };
    let kept: String = text.lines().filter(keep).map(|l| format!("{l}\n")).collect();
    if kept.len() != text.len() {
        let partial = path.with_extension("partial");
        std::fs::write(&partial, kept).map_err(|e| Error::io(&partial, e))?;
        std::fs::rename(&partial, path).map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_stage_drops_what_came_after_its_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let one = |v: f64| Metrics::from([("loss".to_owned(), v)]);
        for stage in ["a", "b"] {
            let mut log = Log::open(run.path(), stage, 0).unwrap();
            for step in 1..=3 {
                log.metrics(step, &one(step as f64)).unwrap();
            }
        }
        let mut file = OpenOptions::new().append(true).open(run.path().join("metrics.jsonl")).unwrap();
        file.write_all(b"{\"stage\": \"b\", \"st").unwrap();
        Log::open(run.path(), "b", 2).unwrap();
        assert_eq!(read_metrics(run.path(), "a").unwrap().len(), 3);
        assert_eq!(read_metrics(run.path(), "b").unwrap(), [(1, one(1.0)), (2, one(2.0))]);
        assert!(std::fs::read_to_string(run.path().join("metrics.jsonl")).unwrap().ends_with("}\n"));
    }
}
