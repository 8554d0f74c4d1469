//! A run's policy/ answers at any weights, whichever way it is steered, and wherever its folder lies.

use insta::assert_snapshot;
use motrain_tests::{copy_model, failure, motrain, root, small, success, write};
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
    command.args(["generate", policy, "--prompt", PROMPT, "--seed", "3", "--n", "6"]);
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

/// Specialists answer together, each with its share of the next token, and alone at a corner.
#[test]
fn a_blend_answers_where_only_its_folder_is() {
    let f = tempfile::tempdir().unwrap();
    policy_of(f.path(), "mod", &["--set", "tasks.hh.optimizer.lr=3e-3"]);
    let corners = ["1,0", "0,1"].map(|w| ask(f.path(), "moved", Some(w)));
    assert_eq!(corners, [0, 1].map(|k| ask(f.path(), &format!("moved/parts/{k}"), None)));
    assert!(!corners.contains(&ask(f.path(), "moved", Some("0.5,0.5"))));
    let own = read(&f.path().join("run/front.json"))["methods"][1]["points"].clone();
    assert_eq!(front(f.path(), "moved"), own);
    let mut steering = read(&f.path().join("moved/steering.json"));
    let of = json!({ "base": "base", "parts": ["parts/0", "parts/1"], "divergence": "reverse_kl", "alpha": null,
                     "strength": 1.0, "top_p": 1.0 });
    assert_eq!((&steering["version"], &steering["by"], &steering["of"]), (&json!(1), &json!("blend"), &of));
    assert_snapshot!("blend_without_weights", failure(motrain(f.path()).args(["generate", "moved", "--prompt", "x"])));
    let mut half = |changes: Value| {
        changes.as_object().unwrap().iter().for_each(|(key, value)| steering["of"][key] = value.clone());
        write(f.path(), "moved/steering.json", &steering.to_string());
        ask(f.path(), "moved", Some("0.5,0.5"))
    };
    assert_eq!(half(json!({ "strength": 0.0 })), ask(f.path(), "moved/base", None));
    // Somebody may still want only what the folder needs.
    std::fs::remove_dir_all(f.path().join("moved/base")).unwrap();
    half(json!({ "strength": 1.0, "base": null, "divergence": "forward_kl" }));
}

/// At strength 1 DeRa is the policy itself, which reads its weights in the prompt, and at 0 that which it began at.
#[test]
fn dera_goes_from_the_base_through_the_policy() {
    let f = tempfile::tempdir().unwrap();
    let strengths = ["--set", "tasks.hh.blend.strengths=[0.0, 1.0, 3.0]"];
    success(
        small(f.path(), "baselines/dera.rhai", "run").args(["--set", "tasks.hh.optimizer.lr=3e-3"]).args(strengths),
    );
    let front = read(&f.path().join("run/front.json"));
    let method = |name: &str| {
        let methods = front["methods"].as_array().unwrap();
        methods.iter().find(|m| m["name"] == name).unwrap_or_else(|| panic!("no {name}"))["points"].clone()
    };
    assert_eq!(method("DeRa 0.0"), method("initial policy"));
    assert_eq!(method("DeRa 1.0"), method("MO-ODPO"));
    assert!(method("DeRa 3.0") != method("MO-ODPO") && method("MO-ODPO") != method("initial policy"));
    // Its weights lie in the prompt, so that it answers without any too.
    let policy = "run/policy";
    assert_ne!(ask(f.path(), policy, None), ask(f.path(), "run/policy/parts/0", None));
    assert_ne!(ask(f.path(), policy, Some("1,0")), ask(f.path(), policy, None));
}

/// Adapters of one base answer together, and the base is in memory once.
#[test]
fn a_blend_of_adapters_holds_their_base_once() {
    let f = tempfile::tempdir().unwrap();
    let on = ["--set", "tasks.hh.lora.on=true", "--set", "tasks.hh.optimizer.lr=2e-2"];
    policy_of(f.path(), "mod", &on);
    assert!(f.path().join("moved/parts/1/adapter_model.safetensors").is_file());
    let [one, both, two] = ["1,0", "0.5,0.5", "0,1"].map(|w| ask(f.path(), "moved", Some(w)));
    assert!(one != both && both != two && two != one, "{one}{both}{two}");
    let own = read(&f.path().join("run/front.json"))["methods"][1]["points"].clone();
    assert_eq!(front(f.path(), "moved"), own);
}

#[test]
fn blends_that_make_no_sense_are_refused() {
    let f = tempfile::tempdir().unwrap();
    let all = [
        ("no base to go beyond", "parts: [start, start], strength: 2.0"),
        ("no base for jsd", "parts: [start, start], divergence: \"jsd\""),
        ("no alpha", "parts: [start, start], divergence: \"alpha\""),
        ("an alpha of nothing", "parts: [start, start], alpha: 0.5"),
        ("an alpha out of range", "parts: [start, start], divergence: \"alpha\", alpha: 1.0"),
        ("a negative strength", "base: start, parts: [start], strength: -1.0"),
        ("another divergence", "parts: [start, start], divergence: \"kl\""),
        ("three parts for two objectives", "parts: [start, start, start]"),
        ("other tokens", "parts: [start, path(\"assets/tldr/policy\")]"),
        ("other tokens of the base", "base: path(\"assets/tldr/policy\"), parts: [start], strength: 2.0"),
        ("another chat template", "parts: [start, \"other\"]"),
    ];
    copy_model(&root().join("assets/hh/policy"), &f.path().join("other"));
    write(f.path(), "other/chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    let told = all.map(|(what, options)| {
        let script = format!(
            "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\nlet start = path(task.policy);\n\
             steer::front(\"e\", \"x\", task, #{{ blend: #{{ {options} }} }}, scored);\n"
        );
        write(f.path(), "bad.rhai", &script);
        let message = failure(motrain(f.path()).args(["check", "bad.rhai"]));
        format!("{what}: {}", message.replace(&root().display().to_string(), "[home]"))
    });
    assert_snapshot!("blends_that_make_no_sense", told.join("\n"));
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
