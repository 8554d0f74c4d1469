//! Second opinions of a task: what a run reports of their disagreement, and how it ends where that grows too large.

use motrain_tests::{failure, motrain, small_run, text, write};
use serde_json::Value;

/// The gold score as a second opinion on the task's first reward.
const OPINION: &str = "tasks.hh.opinions=[{ name = \"Gold\", of = \"Helpfulness\", source = \"gold\", options = { score = \"hh_helpful\" } }]";

#[test]
fn a_run_reports_disagreement_and_stops_above_the_limit() {
    let f = tempfile::tempdir().unwrap();
    let stop = ["--set", OPINION, "--set", "tasks.hh.drift.stop=0.01", "--set", "tasks.hh.train.steps=14"];
    let output = small_run(f.path(), "out").args(stop).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |file: &str| std::fs::read_to_string(f.path().join("out").join(file)).unwrap();
    assert_eq!(read("metrics.jsonl").lines().count(), 10, "the mean of ten steps is above so low a limit at once");
    let stopped = said.lines().find_map(|l| l.split_once("stage \"mo_odpo\" stopped")).map(|(_, what)| what);
    let (before, mean, after) = number_of(stopped.unwrap_or_else(|| panic!("{said}")), "disagree by ");
    assert!((0.01..2.0).contains(&mean));
    insta::assert_snapshot!(format!("{before}[mean]{after}"));
    let front: Value = serde_json::from_str(&read("front.json")).unwrap();
    for method in front["methods"].as_array().unwrap() {
        let points = method["points"].as_array().unwrap();
        assert!(
            points.iter().all(|p| p["watched"]["drift/Helpfulness/disagreement"].as_f64().unwrap() > 0.0),
            "{front}"
        );
    }
    let page = read("report.html");
    assert!(page.contains("drift/Helpfulness/agreement"), "there is no curve");
}

/// What stands before a number, the number, and what stands behind it.
fn number_of<'a>(message: &'a str, before: &str) -> (&'a str, f64, &'a str) {
    let at = message.find(before).unwrap() + before.len();
    let (head, tail) = message.split_at(at);
    let end = tail.find(' ').unwrap();
    (head, tail[..end].parse().unwrap(), &tail[end..])
}

#[test]
fn guards_and_opinions_that_make_no_sense_are_refused() {
    let f = tempfile::tempdir().unwrap();
    let mut shown = String::new();
    let sets = [
        "drift.stop=0.2",
        "drift.penalty=-1",
        "drift.stpo=0.2",
        "opinions=[{ name = \"Gold\", of = \"Helpfulnes\", source = \"gold\", options = { score = \"hh_helpful\" } }]",
        "opinions=[{ name = \"Gold\", of = \"gold helpful\", source = \"gold\", options = { score = \"hh_helpful\" } }]",
        "opinions=[{ name = \"Helpfulness\", of = \"Helpfulness\", source = \"gold\", options = { score = \"hh_helpful\" } }]",
        "opinions=[{ name = \"Gold\", source = \"gold\", options = { score = \"hh_helpful\" } }]",
        "opinions=[{ name = \"Gold\", off = \"Helpfulness\", of = \"Helpfulness\", source = \"gold\", options = {} }]",
    ];
    for set in sets {
        let mut check = motrain(f.path());
        check.args(["check", "experiments/hh.rhai"]);
        check.args(["--set", &format!("tasks.hh.{set}")]);
        shown += &format!("{set}\n{}\n\n", failure(&mut check));
    }
    let stages = [
        "rewards(\"r\", #{ sources: [reward(\"A\", \"length\"), reward(\"B\", \"length\", #{}, #{ of: \"A\", watch: true })], policy: start, prompts: data })",
        "rewards(\"r\", #{ sources: [reward(\"B\", \"length\", #{}, #{ of: \"A\" })], policy: start, prompts: data })",
        "steer::prompted(\"p\", steer::changed(task, #{ normalise: \"gdpo\" }), start, steer::scaled(task))",
        "reinforce(\"p\", steer::changed(steer::experience(task, start, steer::scaled(task)), #{ normalise: \"gdpo\", baseline: \"grpo\" }))",
        "reinforce(\"p\", steer::changed(steer::experience(task, start, steer::scaled(task)), #{ drift: #{ penalty: 0.5 } }))",
        "task.opinions = [#{ name: \"Gold\", of: \"Helpfulness\", source: \"gold\", options: #{ score: \"hh_helpful\" } }]; task.drift.penalty = 0.5; \
         online_preference(\"p\", steer::changed(steer::experience(task, start, steer::scaled(task)), #{ label: label(\"weighted_vote\"), loss: loss(\"dpo\"), \
         judges: [judge(\"gold\", #{ score: \"hh_helpful\" }), judge(\"gold\", #{ score: \"hh_harmless\" })] }))",
    ];
    for stage in stages {
        let script = format!(
            "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet start = path(task.policy);\n\
             let data = #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }};\n{stage};\n"
        );
        write(f.path(), "bad.rhai", &script);
        shown += &format!("{stage}\n{}\n\n", failure(motrain(f.path()).args(["check", "bad.rhai"])));
    }
    let shown = shown.lines().filter(|l| !l.contains("called here") && (!l.starts_with("  ") || l.contains("because")));
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"));
}
