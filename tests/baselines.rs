//! Every baseline of the paper runs as its script says, resumes exactly, and refuses what makes no sense.

use motrain_tests::{copy_model, failure, motrain, root, small, success, write};
use serde_json::Value;
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The metrics of a stage's step.
fn metrics(run: &Path, stage: &str, step: usize) -> Value {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.find(|m| m["stage"] == stage && m["step"] == step).unwrap()
}

/// Runs a baseline small; methods by name in the order of front.json.
fn baseline(folder: &Path, name: &str, more: &[&str]) -> Vec<Value> {
    let mut command = small(folder, &format!("baselines/{name}.rhai"), name);
    let ric = "tasks.hh.ric={ prompts = 24, completions = 1, offline_steps = 3, rounds = 1, online_steps = 2 }";
    success(command.args(["--set", ric]).args(more));
    let fronts = json(&folder.join(name).join("front.json"));
    fronts["methods"].as_array().unwrap().clone()
}

#[test]
fn scripts_are_short_and_make_plans_for_both_tasks() {
    let f = folder();
    let scripts: Vec<_> = std::fs::read_dir(root().join("scripts/baselines")).unwrap().flatten().collect();
    assert!(scripts.len() >= 7);
    for script in scripts {
        let text = std::fs::read_to_string(script.path()).unwrap();
        assert!(text.lines().count() <= 60, "{}", script.path().display());
        let name = format!("baselines/{}", script.file_name().to_string_lossy());
        for task in ["task=hh", "task=tldr"] {
            let said = success(motrain(f.path()).args(["check", &name, "--set", task]));
            assert!(said.contains("all well"), "{name}: {said}");
        }
    }
}

#[test]
fn soups_mix_specialists_at_the_weights() {
    let f = folder();
    let methods = baseline(f.path(), "odpo_soups", &[]);
    assert_eq!(methods[1]["name"], "ODPO Soups");
    assert_eq!(methods[1]["points"].as_array().unwrap().len(), 11);
    // A specialist trains half as long as one prompted policy.
    let run = f.path().join("odpo_soups");
    assert!(metrics(&run, "odpo_soups_0", 3)["rewards/margins"].is_number());
    let methods = baseline(f.path(), "rewarded_soups", &["--set", "tasks.hh.reinforce.baseline=rloo"]);
    assert_eq!(methods[1]["name"], "Rewarded Soups");
    let step = metrics(&f.path().join("rewarded_soups"), "rewarded_soups_1", 1);
    assert!(step["advantages/mean"].as_f64().unwrap().abs() < 1e-6, "leave-one-out advantages sum to 0: {step}");
    assert!(step["objective/kl"].as_f64().unwrap().abs() < 1e-3, "the first step is the initial policy: {step}");
}

#[test]
fn p_morl_learns_a_value_head_and_resumes_exactly() {
    let f = folder();
    let methods = baseline(f.path(), "p_morl", &[]);
    assert_eq!(methods[1]["name"], "P-MORL");
    let run = f.path().join("p_morl");
    let step = metrics(&run, "p_morl_policy", 6);
    assert!(step["value/explained_variance"].is_number() && step["objective/rlhf_reward"].is_number());
    let weights = || std::fs::read(run.join("stages/p_morl_policy/model/model.safetensors")).unwrap();
    let before = weights();
    // Back to the checkpoint of step 4: its value head must come back too.
    let stage = run.join("stages/p_morl_policy");
    for gone in ["checkpoint-6", "model"] {
        std::fs::remove_dir_all(stage.join(gone)).unwrap();
    }
    let unfinished = std::fs::read_to_string(stage.join("stage.json")).unwrap().replace("true", "false");
    std::fs::write(stage.join("stage.json"), unfinished).unwrap();
    success(motrain(f.path()).args(["--resume", "p_morl"]));
    assert!(before == weights(), "resumed P-MORL differs");
    let methods = baseline(f.path(), "p_morl_binary", &[]);
    assert_eq!(methods[1]["name"], "P-MORL (binary)");
}

#[test]
fn rewards_in_context_trains_on_scores_and_asks_for_targets() {
    let f = folder();
    let methods = baseline(f.path(), "ric", &[]);
    assert_eq!(methods[1]["name"], "Rewards-in-Context");
    let stages = f.path().join("ric/stages");
    let statistics = json(&stages.join("ric_offline_data/statistics.json"));
    assert_eq!(
        statistics,
        json(&stages.join("ric_data_1/statistics.json")),
        "online rounds keep the offline statistics"
    );
    let rows = std::fs::read_to_string(stages.join("ric_offline_data/samples.jsonl")).unwrap();
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let score = (row["scores"][0].as_f64().unwrap() - statistics["mean"][0].as_f64().unwrap())
        / statistics["std"][0].as_f64().unwrap();
    let told = format!(" <rm1_score> {:.1} <rm2_score> ", (score * 10.0).round() / 10.0 + 0.0);
    let prompt = row["prompt"][0]["content"].as_str().unwrap();
    assert!(prompt.contains(&told), "{prompt} does not say {told}");
    assert_eq!(prompt.split(" <rm1_score>").next(), row["plain"][0]["content"].as_str());
}

#[test]
fn morlhf_has_a_policy_per_weight() {
    let f = folder();
    let methods = baseline(f.path(), "morlhf", &["--set", "tasks.hh.train.steps=5"]);
    let points = methods[1]["points"].as_array().unwrap().clone();
    let weights: Vec<f64> = points.iter().map(|p| p["weights"][0].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.0, 0.25, 0.5, 0.75, 1.0]);
}

/// The message of a script whose stages fail, with `task` and `scored` at hand.
fn refused(folder: &Path, stages: &str) -> String {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\n\
         let start = path(task.policy);\nlet none = conditioner(\"none\");\n{stages}\n"
    );
    write(folder, "bad.rhai", &script);
    let message = failure(&mut small(folder, "bad.rhai", "out"));
    message.replace(&folder.display().to_string(), "[tmp]").replace(&root().display().to_string(), "[home]")
}

#[test]
fn what_makes_no_sense_is_refused() {
    let f = folder();
    let front = "#{ name: \"x\", rewards: scored, conditioner: none, prompts: steer::prompt_data(task, \"test\")";
    let soup = |parts: &str| format!("evaluate(\"e\", {front}, soup: #{{ base: start, parts: {parts} }} }});");
    copy_model(&root().join("assets/hh/policy"), &f.path().join("other"));
    let mut shown = String::new();
    let mut show = |name: &str, stages: &str| shown += &format!("{name}:\n{}\n\n", refused(f.path(), stages));
    show("a soup of another shape", &soup("[start, \"models/smollm2\"].map(|p| path(p))"));
    show("one part for two objectives", &soup("[start]"));
    show(
        "soup weights of the wrong length",
        "soup(\"s\", #{ of: #{ base: start, parts: [start] }, weights: [0.5, 0.5] });",
    );
    show("another initialisation", &soup("[start, path(\"assets/tldr/policy\")]"));
    show("factors of models", &soup("[start, start], adapters: \"factor\""));
    show(
        "a map without statistics",
        &format!(
            "let by = conditioner(\"rewards_in_context\", #{{ map: \"l2\" }}); evaluate(\"e\", {front}, policy: start }});"
        ),
    );
    show(
        "statistics of another stage",
        &format!(
            "none = conditioner(\"rewards_in_context\", #{{ statistics: scored }}); evaluate(\"e\", {front}, policy: start }});"
        ),
    );
    show("nothing to evaluate", &format!("evaluate(\"e\", {front} }});"));
    show("alpha", "sampler(\"dirichlet\", #{ alpha: -1.0 });");
    insta::assert_snapshot!(shown);
}
