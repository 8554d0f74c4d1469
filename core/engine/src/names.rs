//! Every name in a run folder. Where it is read or written, it is said by these.

// The run.
/// What runs, as `--resume` reads it.
pub const PLAN: &str = "plan.json";
/// What made the run: versions, hashes of stages and inputs.
pub const MANIFEST: &str = "manifest.json";
/// Names the process that works in the folder.
pub const LOCK: &str = ".lock";
/// `<id>.<hash>/` for what each stage made, and a link `<id>` to the present one.
pub const STAGES: &str = "stages";
/// The policy that was judged last, in a folder that stands alone.
pub const POLICY: &str = "policy";
/// Within it, the model that its adapters are of.
pub const BASE: &str = "base";
/// TensorBoard's view of the metrics, by stage.
pub const EVENTS: &str = "events";
/// Of a stage, and of the run: a line a step; the same bytes from the same plan.
pub const METRICS: &str = "metrics.jsonl";
/// What depends on the clock.
pub const TIMINGS: &str = "timings.jsonl";
/// Completions to read, with their scores.
pub const COMPLETIONS: &str = "completions.jsonl";
/// The plugin's call that is under way.
pub const PLUGIN_CALL: &str = "plugin-call.txt";
/// `front.json` and `front.svg`; beside other fronts with the id of their rewards.
pub const FRONT: &str = "front";
/// `report.html`, likewise.
pub const REPORT: &str = "report";

// A stage.
/// What a stage's folder was made by, and whether it is whole.
pub const STATUS: &str = "stage.json";
/// The Hugging Face folder of the model that a stage made.
pub const MODEL: &str = "model";
/// That of the model, or of what it was after so many epochs.
pub fn model(epoch: Option<f64>) -> String {
    epoch.map_or_else(|| MODEL.to_owned(), |epoch| format!("{MODEL}-after-{epoch}"))
}
/// Where an adapter that gains steer lies in a model's folder, by its objective.
pub fn part(objective: usize) -> String {
    format!("parts/{objective}")
}
/// Where a checkpoint's training stands.
pub const STATE: &str = "state.json";
/// A checkpoint's optimiser.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Of `rewards`: how raw scores are scaled.
pub const SCALES: &str = "scales.json";
/// Of stages that sample: demonstrations, as data.
pub const SAMPLES: &str = "samples.jsonl";
/// Of `ric_data`: means and deviations of scores.
pub const STATISTICS: &str = "statistics.json";
/// Of `reward_model`: its accuracy and calibration.
pub const HELD_OUT: &str = "heldout.json";
/// Of `evaluate`: all answers with their scores.
pub const ANSWERS: &str = "answers.jsonl";
/// Of `evaluate`: some of them, to read.
pub const SHOWN: &str = "samples.json";
/// Of `evaluate`: its points and metrics.
pub const METHOD: &str = "method.json";
/// Tokens and seconds of a stage that only samples; like timings.jsonl, not repeatable.
pub const SPEED: &str = "speed.json";
/// Of `compare`: win rates.
pub const MATCHES: &str = "matches.json";

// A policy.
/// In a policy's folder: how it is steered.
pub const STEERING: &str = "steering.json";
/// A checkpoint's folder is this and its step.
pub const CHECKPOINT: &str = "checkpoint-";
