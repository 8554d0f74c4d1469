//! Whichever objective comes first: the embedded policies have been taught nothing that favours an order.

use motrain_tests::{motrain, read_json, success};
use serde_json::Value;
use std::path::Path;

const QUALITY: &str = "{ name = \"Quality\", model = \"assets/tldr/quality\" }";
const ENTAILMENT: &str = "{ name = \"Entailment\", model = \"assets/tldr/entailment\" }";

/// The initial policy, and MO-ODPO after a short training, with the objectives in this order.
fn fronts(folder: &Path, out: &str, order: [&str; 2]) -> [Value; 2] {
    let mut command = motrain(folder);
    command.args(["--script", "experiments/tldr.rhai", "--out", out]);
    for set in [
        &format!("tasks.tldr.rewards=[{}]", order.join(", ")),
        "tasks.tldr.train={ steps = 100, batch_size = 16, micro_batch_size = 16 }",
        "tasks.tldr.optimizer={ lr = 4e-4, warmup_steps = 5 }",
        "tasks.tldr.fit_samples=512",
        "tasks.tldr.evaluation_prompts=60",
        "tasks.tldr.answers=\"\"",
    ] {
        command.args(["--set", set]);
    }
    success(&mut command);
    let front = read_json(&folder.join(out).join("front.json"));
    assert_eq!(front["methods"][1]["name"], "MO-ODPO", "{front}");
    [front["methods"][0].clone(), front["methods"][1].clone()]
}

/// At the corner where an objective has all the weight, its reward less that at the other corner.
fn gain(method: &Value, objective: usize) -> f64 {
    let points = method["points"].as_array().unwrap();
    let reward = |at: usize| points[at]["rewards"][objective].as_f64().unwrap();
    let (first, last) = (reward(0), reward(points.len() - 1));
    let sign = if points[0]["weights"][objective].as_f64() == Some(1.0) { 1.0 } else { -1.0 };
    sign * (first - last)
}

#[test]
fn a_policy_steers_as_well_whichever_objective_comes_first() {
    let f = tempfile::tempdir().unwrap();
    let one = fronts(f.path(), "one", [QUALITY, ENTAILMENT]);
    let other = fronts(f.path(), "other", [ENTAILMENT, QUALITY]);
    for (which, (a, b)) in one.iter().zip(&other).enumerate() {
        let volume = |m: &Value| m["hypervolume"].as_f64().unwrap();
        let gains = [gain(a, 0), gain(a, 1), gain(b, 1), gain(b, 0)];
        let said = format!("hypervolumes {} and {}, gains {gains:?}", volume(a), volume(b));
        let steers = if which == 0 { gains.iter().all(|g| g.abs() < 0.2) } else { gains.iter().all(|g| *g > 0.4) };
        assert!(steers && (volume(a) - volume(b)).abs() < 0.06, "{}: {said}", a["name"]);
    }
}
