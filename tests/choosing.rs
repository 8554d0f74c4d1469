//! Scripts that options are chosen by, on prompts that nothing else has.

use motrain_tests::{failure, motrain, success};
use serde_json::Value;

const CHANGES: &str = "ablation.changes=[{ name = \"rate\", task = { optimizer = { lr = 0.5 } } }, \
    { name = \"taught\", task = { teach = { on = true } } }, \
    { name = \"grid\", task = { sampler = { name = \"grid\" }, loss = { options = { label_smoothing = 0.1 } } } }]";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_task_is_tuned_on_its_own_prompts() {
    let f = tempfile::tempdir().unwrap();
    for task in ["hh", "tldr"] {
        let plan = json(&success(motrain(f.path()).args([
            "--script",
            "tune.rhai",
            "--print-plan",
            "--set",
            &format!("task={task}"),
        ])));
        let evaluations: Vec<_> =
            plan["stages"].as_array().unwrap().iter().filter(|s| s["kind"] == "evaluate").collect();
        assert!(evaluations.len() > 20);
        for evaluation in evaluations {
            let paths = &evaluation["prompts"]["paths"];
            assert!(paths[0].as_str().unwrap().ends_with(&format!("{task}/validation.jsonl")), "{paths}");
        }
    }
}

/// Of each change only what it names differs from MO-ODPO.
#[test]
fn an_ablation_changes_what_it_names() {
    let f = tempfile::tempdir().unwrap();
    let plan = json(&success(motrain(f.path()).args(["--script", "ablation.rhai", "--print-plan", "--set", CHANGES])));
    let stages = plan["stages"].as_array().unwrap();
    let stage = |id: &str| stages.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("{id}: {plan}")).clone();
    let (plain, mut rate) = (stage("mo_odpo_policy"), stage("change_0_policy"));
    assert_eq!(rate["optimizer"]["lr"], 0.5);
    rate["optimizer"]["lr"] = plain["optimizer"]["lr"].clone();
    rate["id"] = plain["id"].clone();
    assert_eq!(rate, plain);
    assert_eq!(stage("change_1_policy")["policy"]["stage"], "change_1_teach");
    let other = stage("change_2_policy");
    assert_eq!(other["sampler"]["name"], "grid");
    assert_eq!([&other["loss"]["options"]["beta"], &other["loss"]["options"]["label_smoothing"]], [0.1, 0.1]);
}

/// A change that changes nothing would be reported as one that adds nothing.
#[test]
fn a_change_of_what_is_not_there_is_refused() {
    let f = tempfile::tempdir().unwrap();
    let refused = |change: &str| {
        let change = format!("ablation.changes=[{change}]");
        failure(motrain(f.path()).args(["check", "ablation.rhai", "--set", &change]))
    };
    let said = refused("{ name = \"rate\", task = { optimiser = { lr = 0.5 } } }");
    assert!(said.contains("ablation.changes[0].task.optimiser: the task has no such key"), "{said}");
    let said = refused("{ name = \"rate\", tsak = {} }");
    assert!(said.contains("ablation.changes[0] has no key \"tsak\""), "{said}");
}
