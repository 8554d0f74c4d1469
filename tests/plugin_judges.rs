//! Judges from shared libraries and from functions of a script: what they are asked, what their verdicts do, and what is refused.

use motrain_core::judge::{Duel, Judge, Verdict};
use motrain_core::{Prompt, Registry};
use motrain_tests::{failure, fixture, library, motrain, small, success, text, write};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A judge of tests/fixtures/judge.c in this process.
fn loaded(folder: &Path, name: &str, flags: &[&str]) -> Box<dyn Judge> {
    let path = fixture(folder, "judge.c", name, &[&["-Wall", "-Wextra", "-Werror"], flags].concat());
    let mut registry = Registry::builtin();
    motrain_host::load(&mut registry, &motrain_host::Request { path, ..Default::default() }, 0).unwrap();
    registry.judges.build("test.longer", &Value::Null).unwrap()
}

/// More duels than one call takes: each has its own prompt, answers and verdict.
#[test]
fn a_judge_in_c_is_told_prompt_and_answers_in_order() {
    let f = folder();
    let judge = loaded(f.path(), "echo.so", &["-DECHO"]);
    let texts: Vec<[String; 3]> =
        (0..70).map(|i| [format!("prompt {i}"), "x".repeat(5), "y".repeat(4 + i % 3)]).collect();
    let prompts: Vec<Prompt> = texts.iter().map(|[prompt, ..]| Prompt::user(prompt.clone())).collect();
    let duel = |i: usize| {
        let [prompt, first, second] = &texts[i];
        Duel { prompt: &prompts[i], first: if i.is_multiple_of(5) { prompt } else { first }, second }
    };
    let found = judge.judge(&(0..70).map(duel).collect::<Vec<_>>()).unwrap();
    let expected = |i: usize| match (i % 5, i % 3) {
        (0, _) | (_, 0) => Verdict::First,
        (_, 1) => Verdict::Tie,
        _ => Verdict::Second,
    };
    assert_eq!(found, (0..70).map(|i| Some(expected(i))).collect::<Vec<_>>());
    assert_eq!(judge.judge(&[]).unwrap(), []);
}

/// A scaled reward, a policy trained by two judges, and a comparison of it with the one that it began as, by the same judges.
fn judged(folder: &Path, judge: &str) -> Command {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\nlet asked = {judge};\n\
         let policy = online_preference(\"trained\", steer::changed(steer::experience(task, path(task.policy), scored), #{{\n\
           label: label(\"weighted_vote\"), loss: loss(task.loss), judges: [asked, asked] }}));\n\
         let a = steer::front(\"a\", \"A\", task, policy, scored);\n\
         let b = steer::front(\"b\", \"B\", task, path(task.policy), scored);\n\
         compare(\"wins\", #{{ method: a, against: [b], dimensions: [\n\
           #{{ name: \"Long\", weights: [0.8, 0.2], judge: asked }},\n\
           #{{ name: \"Longer\", weights: [0.2, 0.8], judge: asked }},\n] }});\n"
    );
    write(folder, "judged.rhai", &script);
    let mut command = small(folder, "judged.rhai", "out");
    command.args(["--set", "tasks.hh.evaluation_prompts=30", "--set", "tasks.hh.train.steps=4"]);
    command
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What the judges of `judged` said: of each training step, and of the comparison.
fn verdicts(folder: &Path) -> (Vec<Value>, Value) {
    let steps = lines(&folder.join("out/metrics.jsonl")).into_iter().filter(|m| m["stage"] == "trained").collect();
    let matches = std::fs::read_to_string(folder.join("out/stages/wins/matches.json")).unwrap();
    (steps, serde_json::from_str::<Value>(&matches).unwrap()[0].clone())
}

/// Lengths of a method's answers at a weight, in bytes.
fn lengths(folder: &Path, stage: &str, weight: f64) -> Vec<usize> {
    let rows = lines(&folder.join(format!("out/stages/{stage}/answers.jsonl"))).into_iter();
    rows.filter(|r| (r["weights"][0].as_f64().unwrap() - weight).abs() < 1e-6)
        .map(|r| r["completion"].as_str().unwrap().len())
        .collect()
}

/// Checks a comparison against the answers: the longer one wins, and sums that `skips` divides are left out.
fn counted(folder: &Path, found: &Value, skips: usize) {
    let skipped = |(a, b): (&usize, &usize)| (a + b).is_multiple_of(skips);
    let mut left = [false; 30];
    for (d, weight) in [0.8, 0.2].into_iter().enumerate() {
        let (a, b) = (lengths(folder, "a", weight), lengths(folder, "b", weight));
        assert_eq!((a.len(), b.len()), (30, 30));
        left.iter_mut().zip(a.iter().zip(&b)).for_each(|(left, pair)| *left |= skipped(pair));
        let count = |which: fn(&usize, &usize) -> bool| {
            a.iter().zip(&b).filter(|&pair| !skipped(pair) && which(pair.0, pair.1)).count()
        };
        let along = &found["dimensions"][d];
        let expected = json!([count(|x, y| x > y), count(|x, y| x < y), count(|x, y| x == y)]);
        assert_eq!(json!([along["wins"], along["losses"], along["ties"]]), expected, "{found}");
        assert_eq!(along["inconsistent"], 0.0, "{found}");
    }
    let unjudged = left.iter().filter(|left| **left).count();
    assert!(unjudged > 0 && unjudged < 30, "{unjudged}: this shows nothing");
    assert_eq!((&found["unjudged"], &found["prompts"]), (&json!(unjudged), &json!(30 - unjudged)), "{found}");
}

#[test]
fn a_judge_in_c_trains_and_compares_and_what_it_leaves_out_counts_nowhere() {
    let f = folder();
    let path = fixture(f.path(), "judge.c", "judge.so", &["-Wall", "-Wextra", "-Werror", "-DSKIPS=4"]);
    insta::assert_snapshot!("check", success(motrain(f.path()).args(["plugin", "check"]).arg(&path)));
    insta::assert_snapshot!("list", success(motrain(f.path()).args(["list", "judge", "--plugin"]).arg(&path)));
    success(&mut judged(f.path(), "plugin(\"judge.so\", \"test.longer\")"));
    let (steps, found) = verdicts(f.path());
    assert_eq!(steps.len(), 4);
    for step in &steps {
        assert_eq!(step["judges/Helpfulness/consistent"], 1.0, "{step}");
    }
    let unscored: f64 = steps.iter().filter_map(|s| s["pairs/unscored"].as_f64()).sum();
    assert!(unscored > 0.0 && unscored < 32.0, "{unscored} of 32 pairs left out");
    counted(f.path(), &found, 4);
    let plan = std::fs::read_to_string(f.path().join("out/plan.json")).unwrap();
    assert!(plan.contains("\"judge test.longer\"") && plan.contains("sha256"), "{plan}");
}

#[test]
fn a_function_of_a_script_trains_and_compares_as_a_plugin_does() {
    let f = folder();
    let function = "judge_fn(\"longer\", |prompt, first, second| {\n\
                    if prompt.bytes == 0 { throw \"no prompt\"; }\n\
                    if (first.bytes + second.bytes) % 4 == 0 { () }\n\
                    else if first.bytes == second.bytes { 0 } else if first.bytes > second.bytes { 1 } else { 2 } })";
    success(&mut judged(f.path(), function));
    counted(f.path(), &verdicts(f.path()).1, 4);
    let said = success(motrain(f.path()).args(["list", "judge", "--script", "judged.rhai"]));
    assert!(said.contains("longer         a function of the script"), "{said}");
    // The same verdicts give the same policy, whoever says them.
    let c = folder();
    fixture(c.path(), "judge.c", "judge.so", &["-DSKIPS=4"]);
    success(&mut judged(c.path(), "plugin(\"judge.so\", \"test.longer\")"));
    let policy = |f: &Path| std::fs::read(f.join("out/stages/trained/model/model.safetensors")).unwrap();
    assert!(policy(f.path()) == policy(c.path()), "the policies differ");
}

#[test]
fn functions_that_are_no_judges_are_refused_before_any_work() {
    let functions = [
        "judge_fn(\"mine\", |first, second| 1)",
        "judge_fn(\"mine\", |prompt, first, second| 3)",
        "judge_fn(\"mine\", |prompt, first, second| 1.0)",
        "judge_fn(\"mine\", |prompt, first, second| \"first\")",
        "judge_fn(\"mine\", |prompt, first, second| first.len(3))",
        "judge_fn(\"gold\", |prompt, first, second| 1)",
    ];
    let refused = |function: &&str| {
        let f = folder();
        judged(f.path(), function);
        format!("{function}\n{}", failure(motrain(f.path()).args(["check", "judged.rhai"])))
    };
    insta::assert_snapshot!(functions.iter().map(refused).collect::<Vec<_>>().join("\n\n"));
}

/// What `motrain plugin check` says that is not ok, or the error.
fn checked(folder: &Path, path: &str, more: &[&str]) -> String {
    let output = motrain(folder).args(["plugin", "check", path]).args(more).output().unwrap();
    let (printed, stderr) = (text(&output.stdout), text(&output.stderr));
    let failed = printed.lines().filter(|l| l.starts_with("  FAILED")).take(2);
    let error = stderr.lines().filter(|l| l.starts_with("error: ") && !l.contains("motrain was"));
    format!("{:?}\n{}", output.status.code(), failed.chain(error).collect::<Vec<_>>().join("\n"))
}

#[test]
fn judges_with_bugs_are_told_apart_by_check() {
    let mut all = Vec::new();
    for bug in [
        "OUT_OF_RANGE",
        "UNWRITTEN",
        "TOO_FEW",
        "TOO_MANY",
        "BEYOND",
        "SAYS_WHY",
        "HANGS",
        "CRASHES",
        "NO_FUNCTION",
        "SHORT_FUNCTIONS",
    ] {
        let f = folder();
        fixture(f.path(), "judge.c", "j.so", &[&format!("-D{bug}")]);
        // Long enough for a busy machine to start the process.
        let seconds = if bug == "HANGS" { "8" } else { "60" };
        all.push(format!("{bug}: {}", checked(f.path(), "j.so", &["--seconds", seconds])));
    }
    let f = folder();
    let hostile = library("hostile").display().to_string();
    for bug in ["panic", "error", "too few", "too many"] {
        let options = json!({ "bug": bug }).to_string();
        let said = checked(f.path(), &hostile, &["--component", "hostile.judge", "--options", &options]);
        all.push(format!("{bug}: {said}"));
    }
    insta::assert_snapshot!(all.join("\n"));
}

/// How many pairs of a step have two answers depends on the policy.
fn without_counts(said: &str) -> String {
    let masked = |said: String, n: usize| {
        said.replace(&format!("duel 1 of {n}"), "duel 1 of N").replace(&format!("the {n} numbers"), "the N numbers")
    };
    (1..=8).fold(said.to_owned(), masked)
}

#[test]
fn judges_with_bugs_stop_a_run_by_name() {
    let mut all = Vec::new();
    for bug in ["OUT_OF_RANGE", "UNWRITTEN", "BEYOND", "SAYS_WHY", "CRASHES"] {
        let f = folder();
        let own = f.path().canonicalize().unwrap().display().to_string();
        fixture(f.path(), "judge.c", "j.so", &[&format!("-D{bug}")]);
        let output = judged(f.path(), "plugin(\"j.so\", \"test.longer\")").output().unwrap();
        assert!(!output.status.success(), "{bug}");
        let stderr = without_counts(&text(&output.stderr).replace(&own, "[tmp]"));
        let said: Vec<&str> = stderr.lines().filter(|l| !l.trim_start().starts_with("INFO")).collect();
        all.push(format!("{bug}\n{}", said.join("\n")));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_slow_judge_is_reported() {
    let f = folder();
    fixture(f.path(), "judge.c", "j.so", &["-DSLOW"]);
    let mut run = judged(f.path(), "plugin(\"j.so\", \"test.longer\")");
    for set in ["plugins.call_seconds=0.5", "tasks.hh.train.steps=1", "tasks.hh.evaluation_prompts=2"] {
        run.args(["--set", set]);
    }
    let output = run.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("judge \"test.longer\" of ") && said.contains(" s in judge (plugins.call_seconds"), "{said}");
}
