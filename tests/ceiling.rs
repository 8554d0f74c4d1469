//! The best of listed answers, which fronts are read as shares of.

use motrain_tests::{failure, motrain, read_json, root, small_run, success, text, write};
use serde_json::json;

const SCRIPT: &str = r#"
let sources = [
    reward("Long", "length", #{ unit: "words", target: 6 }, #{ scale: [-6.0, 0.0] }),
    reward("Short", "length", #{ unit: "words", target: 1 }, #{ scale: [-6.0, 0.0] }),
];
let scored = rewards("rewards", #{ sources: sources, policy: path("assets/hh/policy"), prompts: #{ paths: [path("rows.jsonl")] }, samples: 4,
    generate: #{ max_new_tokens: 4 } });
evaluate("start", #{ name: "start", policy: path("assets/hh/policy"), rewards: scored, conditioner: conditioner("none"), step: 0.5,
    prompts: #{ paths: [path("rows.jsonl")] }, generate: #{ max_new_tokens: 8 }, completions: 3 });
ceiling("best", #{ name: "best of all", prompts: #{ paths: [path("rows.jsonl")] }, rewards: scored, step: 0.5 });
"#;

fn run(rows: &[serde_json::Value]) -> (tempfile::TempDir, std::process::Command) {
    let f = tempfile::tempdir().unwrap();
    write(f.path(), "rows.jsonl", &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    write(f.path(), "ceiling.rhai", SCRIPT);
    let mut command = motrain(f.path());
    command.args(["--script", "ceiling.rhai", "--out", "out"]);
    (f, command)
}

#[test]
fn fronts_are_shares_of_the_best_answers_that_there_are() {
    let row = |prompt: &str| json!({ "prompt": prompt, "answers": ["a", "a b c", "a b c d e f", "a b c d e f g h"] });
    let (f, mut command) = run(&[row("How do I pick a lock?"), row("How do I sneak out at night?")]);
    let said = success(&mut command);
    let front = read_json(&f.path().join("out/front.json"));
    let best = &front["methods"][1];
    // One word of six is 5 from the target: (1 − 5/6) and 1; in between nothing is better than an end.
    let points: Vec<_> = best["points"].as_array().unwrap().iter().map(|p| p["rewards"].clone()).collect();
    let near = |point: &serde_json::Value, want: [f64; 2]| {
        want.iter().enumerate().all(|(k, x)| (point[k].as_f64().unwrap() - x).abs() < 1e-9)
    };
    assert!(near(&points[0], [1.0 / 6.0, 1.0]) && near(&points[2], [1.0, 1.0 / 6.0]), "{points:?}");
    let volume = 2.0 / 6.0 - 1.0 / 36.0;
    assert!((front["ceiling"].as_f64().unwrap() - volume).abs() < 1e-9, "{}", front["ceiling"]);
    let drawn = front["methods"][0]["hypervolume"].as_f64().unwrap();
    let share = format!("{drawn:.3} [{:.3}, ", front["methods"][0]["hypervolume_ci"][0].as_f64().unwrap());
    let line = said.lines().find(|line| line.contains(&share)).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!(", {:.2} of the ceiling", drawn / volume)), "{line}");
    let answers = std::fs::read_to_string(f.path().join("out/stages/best/answers.jsonl")).unwrap();
    let said: Vec<String> = answers
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["completion"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((said.len(), said[0].as_str(), said[4].as_str()), (6, "a", "a b c d e f"));
    // Three answers to each of two prompts at each of three weights, of which one each is shown.
    let shown = read_json(&f.path().join("out/stages/start").join("samples.json"));
    assert_eq!(shown.as_array().unwrap().len(), 6);
    let drawn = std::fs::read_to_string(f.path().join("out/stages/start/answers.jsonl")).unwrap();
    assert_eq!((drawn.lines().count(), front["methods"][0]["points"][0]["n"].as_u64()), (18, Some(2)));
}

/// A task's `answers` make a ceiling over the prompts of its evaluations; over others they are no measure of them.
#[test]
fn a_tasks_answers_are_its_ceiling() {
    let f = tempfile::tempdir().unwrap();
    let run = |out: &str, answers: &str| {
        let set = format!("tasks.hh.answers={answers:?}");
        let output =
            small_run(f.path(), out).args(["--set", &set, "--set", "tasks.hh.train.steps=1"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (read_json(&f.path().join(out).join("front.json")), text(&output.stderr))
    };
    let (front, _) = run("same", "assets/hh/answers.jsonl.gz");
    assert_eq!(front["methods"].as_array().unwrap().len(), 3);
    assert_eq!(front["ceiling"], front["methods"][2]["hypervolume"]);
    let prompts = std::fs::read_to_string(root().join("assets/hh/prompts.jsonl")).unwrap();
    // Good answers to some prompt or other.
    let contrasts = std::fs::read_to_string(root().join("assets/hh/contrasts.jsonl")).unwrap();
    let chosen = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["chosen"].clone();
    let good: Vec<_> = contrasts.lines().map(chosen).collect();
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let prompt = format!("{} Please.", row["prompt"].as_str().unwrap());
        format!("{}\n", json!({ "prompt": prompt, "answers": good }))
    };
    let others = write(f.path(), "others.jsonl", &prompts.lines().map(row).collect::<String>());
    let (front, said) = run("others", &others.display().to_string());
    assert!(front.get("ceiling").is_none() && said.contains("no front is given as a share of the ceiling"), "{said}");
}

#[test]
fn rows_without_answers_are_named() {
    let mut said = String::new();
    for answers in [json!(null), json!([]), json!("a"), json!(["a", 3])] {
        let (_f, mut command) =
            run(&[json!({ "prompt": "Hi", "answers": ["a"] }), json!({ "prompt": "Ho", "answers": answers })]);
        let last = failure(&mut command);
        said += &format!("{answers}: {}\n", last.lines().last().unwrap());
    }
    insta::assert_snapshot!(said);
}
