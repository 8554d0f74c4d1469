//! A run's policy/ answers at any weights, whichever way it is steered, and wherever its folder lies.

use insta::assert_snapshot;
use motrain_tests::{failure, motrain, small, success, write};
use serde_json::{Value, json};
use std::path::Path;

const PROMPT: &str = "How do I pick a lock?";

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs a baseline small, and moves its policy/ to `moved`.
fn policy_of(folder: &Path, baseline: &str, more: &[&str]) {
    success(small(folder, &format!("baselines/{baseline}.rhai"), "run").args(more));
    std::fs::rename(folder.join("run/policy"), folder.join("moved")).unwrap();
}

fn ask(folder: &Path, policy: &str, weights: Option<&str>) -> String {
    let mut command = motrain(folder);
    command.args(["generate", policy, "--prompt", PROMPT, "--seed", "3"]);
    command.args(["--max-new-tokens", "16", "--temperature", "1", "--top-k", "0", "--top-p", "1"]);
    success(weights.iter().fold(&mut command, |command, w| command.args(["--weights", w])))
}

/// What the policy is worth at its weights, evaluated anew.
fn front(folder: &Path, policy: &str) -> Value {
    let out = format!("of_{}", policy.replace('/', "_"));
    success(motrain(folder).args(["evaluate", "run", "--policy", policy, "--out", &out]));
    read(&folder.join(out).join("front.json"))["methods"][0]["points"].clone()
}

#[test]
fn a_soup_answers_where_only_its_folder_is() {
    let f = tempfile::tempdir().unwrap();
    // Far enough that a mix of both says something else.
    policy_of(f.path(), "odpo_soups", &["--set", "tasks.hh.optimizer.lr=3e-3"]);
    // At a corner the mix is that specialist, which reads no weights.
    let corner = ask(f.path(), "moved", Some("1,0"));
    assert_eq!(corner, ask(f.path(), "moved/parts/0", None));
    assert_ne!(corner, ask(f.path(), "moved", Some("0.5,0.5")));
    let own = read(&f.path().join("run/front.json"))["methods"][1]["points"].clone();
    assert_eq!(front(f.path(), "moved"), own);
    let steering = read(&f.path().join("moved/steering.json"));
    let parts = json!({ "base": "base", "parts": ["parts/0", "parts/1"], "adapters": "delta" });
    assert_eq!((&steering["version"], &steering["by"], &steering["of"]), (&json!(1), &json!("soup"), &parts));
    assert_snapshot!("soup_without_weights", failure(motrain(f.path()).args(["generate", "moved", "--prompt", "x"])));
    let few = ["generate", "moved", "--prompt", "x", "--weights", "1"];
    assert_snapshot!("soup_with_too_few_weights", failure(motrain(f.path()).args(few)));
}

#[test]
fn of_a_grid_the_nearest_policy_answers() {
    let f = tempfile::tempdir().unwrap();
    let far = ["--set", "tasks.hh.optimizer.lr=3e-3", "--set", "tasks.hh.train.steps=10"];
    policy_of(f.path(), "morlhf", &far);
    for (weights, policy) in [("1,0", 4), ("0.7,0.3", 3), ("0.45,0.55", 2)] {
        let own = ask(f.path(), &format!("moved/policies/{policy}"), None);
        assert_eq!(ask(f.path(), "moved", Some(weights)), own, "{weights}");
    }
    assert_ne!(ask(f.path(), "moved", Some("1,0")), ask(f.path(), "moved", Some("0,1")));
    let own = read(&f.path().join("run/front.json"))["methods"][1]["points"].clone();
    assert_eq!(front(f.path(), "moved"), own);
    let step = ["evaluate", "run", "--policy", "moved", "--step", "0.5", "--out", "out"];
    assert_snapshot!("grid_with_a_step", failure(motrain(f.path()).args(step)));
    assert_snapshot!("grid_without_weights", failure(motrain(f.path()).args(["generate", "moved", "--prompt", "x"])));
}

/// A folder from somebody else reads nothing outside itself, and what this motrain does not know it says.
#[test]
fn a_steering_that_cannot_be_followed_is_refused() {
    let f = tempfile::tempdir().unwrap();
    let said = |changes: Value| {
        let mut steering = json!({
            "version": 1, "by": "soup", "objectives": ["A", "B"], "conditioner": { "name": "none", "options": {} },
            "of": { "base": "base", "parts": ["parts/0", "parts/1"] },
        });
        for (key, value) in changes.as_object().unwrap() {
            steering[key] = value.clone();
        }
        write(f.path(), "policy/steering.json", &steering.to_string());
        failure(motrain(f.path()).args(["generate", "policy", "--prompt", "x", "--weights", "1,0"]))
    };
    let all = [
        ("a newer version", json!({ "version": 2 })),
        ("another steering", json!({ "by": "logits" })),
        ("an unknown key", json!({ "bye": "soup" })),
        ("no part", json!({ "of": { "base": "base", "parts": [] } })),
        ("an unknown option", json!({ "of": { "base": "base", "parts": ["a"], "adaptors": "delta" } })),
        ("a folder above", json!({ "of": { "base": "base", "parts": ["../../etc"] } })),
        ("a folder elsewhere", json!({ "of": { "base": "/etc", "parts": ["parts/0"] } })),
        ("a stage", json!({ "of": { "base": { "stage": "policy" }, "parts": ["parts/0"] } })),
        ("a model that is not there", json!({})),
    ];
    let told: Vec<String> = all.into_iter().map(|(what, changes)| format!("{what}: {}", said(changes))).collect();
    assert_snapshot!("steerings_that_cannot_be_followed", told.join("\n"));
}

/// Parts of a soup stand in the order of its objectives, so rewards in another order would judge it wrongly.
#[test]
fn a_policy_is_judged_by_the_objectives_that_it_follows() {
    let f = tempfile::tempdir().unwrap();
    policy_of(f.path(), "odpo_soups", &["--set", "tasks.hh.train.steps=1"]);
    let path = f.path().join("moved/steering.json");
    let mut steering = read(&path);
    steering["objectives"] = json!(["Harmlessness", "Helpfulness"]);
    write(f.path(), "moved/steering.json", &steering.to_string());
    assert_snapshot!(
        "judged_by_other_objectives",
        failure(motrain(f.path()).args(["evaluate", "run", "--policy", "moved", "--out", "out"]))
    );
}
