//! Script functions as components.

use motrain_tests::{failure, motrain, small, start, steps_done, success, wait_for, write};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// All six kinds.
const ALL: &str = r#"
import "lib/steer" as steer;
import "mine" as mine;

let beta = 0.1;
let task = cfg.tasks.hh;
let brevity = reward_fn("Brevity", |prompt, answer| if answer.len() > prompt.len() { -1.5 * answer.len() } else { -answer.len() });
task.sampler = sampler_fn("corners", |k, index, uniform| {
    let w = [];
    for i in 0..k { w.push(if i == index % k { 1.0 } else { 0.0 }); }
    w
});
task.conditioner = conditioner_fn("spoken", |objectives, weights, text| `Mostly ${objectives[0]}: ${weights[0]}. ${text}`);
task.label = label_fn("sum", |w, a, b| {
    let gap = w[0] * (a[0] - b[0]) + w[1] * (a[1] - b[1]);
    if gap == 0.0 { () } else if gap > 0.0 { 1.0 } else { 0.0 }
});
task.loss = mine::hinge(beta);
let brief = judge_fn("brief", |prompt, first, second| {
    if first.len() == second.len() { 0 } else if first.len() < second.len() { 1 } else { 2 }
});
let scored = rewards("rewards", #{
    sources: [brevity, reward("Harmlessness", "reward_model", #{ model: path("assets/hh/harmless") })],
    policy: path(task.policy), prompts: steer::prompt_data(task, "train"), samples: task.fit_samples, generate: task.generate,
});
let policy = online_preference("mo_odpo", #{
    policy: path(task.policy), prompts: steer::prompt_data(task, "train"), rewards: scored,
    sampler: task.sampler, conditioner: task.conditioner, label: task.label, loss: task.loss,
    judges: [brief, judge("gold", #{ score: "hh_harmless" })],
    generate: task.generate, train: task.train, optimizer: task.optimizer,
});
steer::front("steered", "mine", task, policy, scored);
"#;

const MODULE: &str = r#"
fn hinge(beta) {
    loss_fn("hinge", |pair| {
        let m = beta * pair.gap * (2.0 * pair.label - 1.0);
        if m < 1.0 { 1.0 - m } else { 0.0 }
    })
}
"#;

fn run(folder: &Path) -> std::process::Command {
    write(folder, "all.rhai", ALL);
    write(folder, "mine.rhai", MODULE);
    small(folder, "all.rhai", "out")
}

#[test]
fn all_six_kinds_train_and_a_resumed_run_has_them_again() {
    let f = folder();
    let out = f.path().join("out");
    let mut child = start(&mut run(f.path()));
    wait_for(|| steps_done(&out, "mo_odpo") >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    // The resumed run has script and modules from its plan, not from files.
    write(f.path(), "all.rhai", "this is no script any more");
    std::fs::remove_file(f.path().join("mine.rhai")).unwrap();
    let table = success(motrain(f.path()).args(["--resume", "out"]));
    assert!(table.contains("Brevity"), "{table}");
    let completions = std::fs::read_to_string(out.join("completions.jsonl")).unwrap();
    assert!(completions.contains("Mostly Brevity: 1"), "{completions}");
    let whole = folder();
    success(&mut run(whole.path()));
    for file in ["metrics.jsonl", "policy/model.safetensors"] {
        let (a, b) =
            (std::fs::read(out.join(file)).unwrap(), std::fs::read(whole.path().join("out").join(file)).unwrap());
        assert!(a == b, "{file} differs after a resume");
    }
}

/// The error of a script with one function.
fn error_of(function: &str) -> String {
    let f = folder();
    let script =
        format!("import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\n{function}\nsteer::mo_odpo(task);\n");
    write(f.path(), "bad.rhai", &script);
    failure(&mut small(f.path(), "bad.rhai", "out"))
}

#[test]
fn a_function_that_fails_is_named_with_its_line() {
    insta::assert_snapshot!("loss_type", error_of("task.loss = loss_fn(\"mine\", |pair| \"text\");"));
    insta::assert_snapshot!("loss_property", error_of("task.loss = loss_fn(\"mine\", |pair| pair.gapp);"));
    insta::assert_snapshot!("sampler_sum", error_of("task.sampler = sampler_fn(\"mine\", |k, i, u| [0.5, 0.6]);"));
    insta::assert_snapshot!("label_range", error_of("task.label = label_fn(\"mine\", |w, a, b| 2.0);"));
    insta::assert_snapshot!("taken", error_of("task.loss = loss_fn(\"dpo\", |pair| 0.0);"));
}

#[test]
fn a_function_cannot_run_for_ever() {
    let said = error_of("task.label = label_fn(\"mine\", |w, a, b| { let i = 0; loop { i += 1; } });");
    assert!(said.contains("label \"mine\": bad.rhai") && said.contains("Too many operations"), "{said}");
}

#[test]
fn list_shows_functions_of_a_script() {
    let f = folder();
    write(f.path(), "all.rhai", ALL);
    write(f.path(), "mine.rhai", MODULE);
    let said = success(motrain(f.path()).args(["list", "loss", "--script", "all.rhai"]));
    assert!(said.contains("hinge          a function of the script"), "{said}");
}

/// A reward function with a third parameter knows which answers were cut.
#[test]
fn a_reward_function_is_told_whether_an_answer_is_finished() {
    let f = folder();
    let script = r#"
        import "lib/steer" as steer;
        let task = cfg.tasks.hh;
        let whole = reward_fn("Whole", |prompt, answer, finished| if finished { 1.0 } else { 0.0 }, #{ watch: true });
        let scored = rewards("rewards", #{ sources: steer::sources(task) + [whole], policy: path(task.policy),
            prompts: steer::prompt_data(task, "train"), samples: task.fit_samples, generate: task.generate });
        steer::prompted("mo_odpo", task, path(task.policy), scored);
    "#;
    write(f.path(), "whole.rhai", script);
    success(&mut small(f.path(), "whole.rhai", "out"));
    let text = std::fs::read_to_string(f.path().join("out/completions.jsonl")).unwrap();
    let told: Vec<(bool, f64)> = text
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .map(|l| (l["finished"].as_bool().unwrap(), l["raw"]["Whole"].as_f64().unwrap()))
        .collect();
    assert!(told.iter().any(|(finished, _)| !finished), "no answer was cut: {told:?}");
    assert!(told.iter().all(|(finished, score)| *score == f64::from(u8::from(*finished))), "{told:?}");
}

/// What `check` says of a script that fails.
fn refused(script: &str, modules: &[(&str, &str)]) -> String {
    let f = folder();
    write(f.path(), "bad.rhai", script);
    modules.iter().for_each(|(name, text)| drop(write(f.path(), name, text)));
    failure(motrain(f.path()).args(["check", "bad.rhai"]))
}

/// A `rewards` stage over given sources.
fn scored(before: &str, sources: &str) -> String {
    format!(
        "{before}\nrewards(\"r\", #{{ sources: {sources}, policy: path(\"assets/hh/policy\"), samples: 12, \
         prompts: #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }}, generate: #{{ max_new_tokens: 24 }} }});\n"
    )
}

/// The upper ends of the scales that a script's rewards were fitted to.
fn highs(script: &str, names: &[&str]) -> Vec<f64> {
    let f = folder();
    write(f.path(), "s.rhai", script);
    success(motrain(f.path()).args(["--script", "s.rhai", "--out", "out"]));
    let mut found = std::fs::read_dir(f.path().join("out/stages")).unwrap();
    let stage = found.next().unwrap().unwrap().path();
    let inside = std::fs::read_dir(&stage).unwrap().flatten().map(|e| e.path());
    let all = inside.flat_map(|p| [p.join("scales.json"), p]);
    let path = all.into_iter().find(|p| p.ends_with("scales.json") && p.is_file()).unwrap();
    let scales: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    names.iter().map(|n| scales["scales"][n]["high"].as_f64().unwrap()).collect()
}

#[test]
fn a_function_keeps_what_it_captured() {
    let script = scored(
        "let all = []; let ten = #{ inner: [10.0] };\n\
         for k in [1.0, 2.0, 5.0] { all.push(reward_fn(`R${k}`, |p, a| a.len() * k)); }\n\
         all.push(reward_fn(\"Ten\", |p, a| a.len() * ten.inner[0]));\n\
         ten.inner[0] = 99.0;",
        "all",
    );
    let found = highs(&script, &["R1.0", "R2.0", "R5.0", "Ten"]);
    for (high, factor) in found.iter().zip([1.0, 2.0, 5.0, 10.0]) {
        assert!((high / found[0] - factor).abs() < 1e-9, "{found:?}");
    }
}

#[test]
fn a_function_sees_constants_functions_and_imports() {
    let script = scored(
        "const THREE = 3.0;\nimport \"lib/steer\" as steer;\nfn twice(x) { 2.0 * x }\nfn six(p, a) { twice(global::THREE) * a.len() }\n\
         let plain = reward_fn(\"Plain\", |p, a| a.len());\nlet own = reward_fn(\"Six\", six);",
        "[plain, own]",
    );
    let found = highs(&script, &["Plain", "Six"]);
    assert!((found[1] / found[0] - 6.0).abs() < 1e-9, "{found:?}");
}

#[test]
fn check_finds_functions_that_cannot_work() {
    insta::assert_snapshot!("arity_reward", refused(&scored("", "[reward_fn(\"R\", |a| a.len())]"), &[]));
    let six = "fn six(a, b, c, d) { 6.0 }";
    insta::assert_snapshot!("arity_named", refused(&scored(six, "[reward_fn(\"R\", six)]"), &[]));
    insta::assert_snapshot!("trial", refused(&scored("", "[reward_fn(\"R\", |p, a| a.lenn())]"), &[]));
    insta::assert_snapshot!("trial_type", refused(&scored("", "[reward_fn(\"R\", |p, a| \"good\")]"), &[]));
}

#[test]
fn a_script_that_does_not_end_well_is_an_error() {
    insta::assert_snapshot!(
        "circle",
        refused("import \"a\" as a;", &[("a.rhai", "import \"b\" as b;"), ("b.rhai", "import \"a\" as a;")])
    );
    insta::assert_snapshot!("itself", refused("import \"bad\" as me;", &[]));
    insta::assert_snapshot!("recursion", refused("fn f(x) { f(x + 1) }\nf(0);", &[]));
    insta::assert_snapshot!("cfg_is_constant", refused("cfg.seed = 5;", &[]));
    insta::assert_snapshot!("constants", refused("const X = #{ a: 1 };\nX.a = 2;", &[]));
    insta::assert_snapshot!("flood", refused("let x = \"x\"; x.pad(100000, 'x'); loop { print(x); }", &[]));
    insta::assert_snapshot!("replace", refused("let x = \"x\"; x.pad(100000, 'x'); x.replace(\"x\", x);", &[]));
    let nested = "let x = []; for i in 0..90000 { x = [x]; } print(x.len());";
    let said = refused(nested, &[]);
    assert!(said.contains("bad.rhai"), "{said}");
    let filling =
        refused("let all = #{}; let i = 0; loop { let x = \"\"; x.pad(900000, 'x'); all[`k${i}`] = x; i += 1; }", &[]);
    assert!(filling.contains("bad.rhai:1"), "{filling}");
}
