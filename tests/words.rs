//! Methods that are steered by words: DPA, SteerLM, CPO. Their scripts run, their rows say what they should, and their policies answer.

use insta::assert_snapshot;
use motrain_tests::{failure, motrain, root, small, success, write};
use serde_json::Value;
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a baseline small. Its policy must answer and be evaluated wherever its folder lies; returns the name of its conditioner.
fn baseline(folder: &Path, name: &str, own: &str) -> String {
    let own = format!("tasks.hh.{name}={own}");
    success(small(folder, &format!("baselines/{name}.rhai"), name).args(["--set", &own]));
    std::fs::rename(folder.join(name).join("policy"), folder.join("moved")).unwrap();
    let ask = |weights: &str| {
        let prompt = ["--prompt", "How do I pick a lock?", "--weights", weights];
        success(motrain(folder).args(["generate", "moved"]).args(prompt))
    };
    assert!(!ask("0.8,0.2").trim().is_empty());
    let again = ["evaluate", name, "--policy", "moved", "--out", "again"];
    success(motrain(folder).args(again));
    let points = |run: &str| {
        json(&folder.join(run).join("front.json"))["methods"].as_array().unwrap().last().unwrap()["points"].clone()
    };
    assert_eq!(points("again"), points(name), "the folder says how the policy was steered");
    json(&folder.join("moved/steering.json"))["conditioner"]["name"].as_str().unwrap().to_owned()
}

/// Where a script's stages lie.
fn stage(folder: &Path, run: &str, id: &str) -> std::path::PathBuf {
    folder.join(run).join("stages").join(id)
}

#[test]
fn dpa_says_directions_in_the_system_prompt() {
    let f = folder();
    let by = baseline(f.path(), "dpa", "{ prompts = 24, rounds = 2, completions = 3, weights = 2, steps = 2 }");
    assert_eq!(by, "direction");
    for round in 1..=2 {
        let rows = rows(&stage(f.path(), "dpa", &format!("dpa_best_{round}")).join("samples.jsonl"));
        assert_eq!(rows.len(), 48);
        for row in rows {
            let w = row["weights"][0].as_f64().unwrap();
            let norm = w.hypot(1.0 - w);
            let hundredths = [w, 1.0 - w].map(|x| (100.0 * x / norm).round());
            let said = format!("weighted rating = Helpfulness*{} + Harmlessness*{}", hundredths[0], hundredths[1]);
            let system = &row["prompt"][0];
            assert_eq!(system["role"], "system");
            assert!(system["content"].as_str().unwrap().ends_with(&said), "{system}");
        }
    }
}

/// With one answer to a prompt, what a policy answers to the plain prompt is the same for all weights, and to the conditioned one it is not.
#[test]
fn best_of_n_draws_from_the_prompt_that_it_is_told_to() {
    let f = folder();
    let script = |conditioned: bool| {
        format!(
            "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\n\
             task.rewards[0].name = \"Detail\";\ntask.rewards[1].name = \"Brevity\";\nlet scored = steer::scaled(task);\n\
             best_of_n(\"best\", #{{ policy: path(task.policy), rewards: scored, sampler: sampler(\"grid\", #{{ step: 1.0 }}),\n\
             prompts: steer::changed(steer::prompt_data(task, \"train\"), #{{ limit: 20 }}), conditioner: conditioner(\"weight_prefix\"),\n\
             completions: 2, weights: 2, conditioned: {conditioned}, generate: #{{ max_new_tokens: 24, temperature: 0.0 }} }});\n"
        )
    };
    let mut differ = vec![];
    for conditioned in [false, true] {
        let run = format!("run_{conditioned}");
        write(f.path(), "best.rhai", &script(conditioned));
        success(&mut small(f.path(), "best.rhai", &run));
        let rows = rows(&stage(f.path(), &run, "best").join("samples.jsonl"));
        assert_eq!(rows.len(), 40);
        differ.push(rows.chunks(2).filter(|two| two[0]["completion"] != two[1]["completion"]).count());
        let shown = rows[5]["prompt"][0]["content"].as_str().unwrap();
        let asked = if conditioned { shown } else { shown.split_once("[End System Instruction]\n").unwrap().1 };
        let policy = root().join("assets/hh/policy").display().to_string();
        let greedy = ["--temperature", "0", "--max-new-tokens", "24", "--top-p", "1"];
        let answer = success(motrain(f.path()).args(["generate", &policy, "--prompt", asked]).args(greedy));
        assert_eq!(answer.trim_end(), rows[5]["completion"].as_str().unwrap(), "{asked}");
    }
    assert_eq!(differ[0], 0);
    assert!(differ[1] > 10, "{differ:?}");
}

#[test]
fn steerlm_learns_attributes_and_writes_them() {
    let f = folder();
    let own = "{ prompts = 40, completions = 1, steps = 2, rounds = 1, model_train = { epochs = 1.0, batch_size = 8, micro_batch_size = 8 } }";
    assert_eq!(baseline(f.path(), "steerlm", own), "attributes");
    let names = ["Helpfulness", "Harmlessness"];
    for row in rows(&stage(f.path(), "steerlm", "steerlm_ratings").join("samples.jsonl")) {
        assert!(names.iter().all(|name| row[name].as_u64().is_some_and(|rating| rating <= 4)), "{row}");
        assert!(!row["prompt"].to_string().contains("<extra_id_2>"), "ratings are of answers to plain prompts: {row}");
    }
    let report = json(&stage(f.path(), "steerlm", "steerlm_attributes").join("heldout.json"));
    assert!(names.iter().all(|name| report["attributes"][name]["mse"].is_number()), "{report}");
    for id in ["steerlm_data", "steerlm_data_1"] {
        for row in rows(&stage(f.path(), "steerlm", id).join("samples.jsonl")) {
            let values = [0, 1].map(|k| (4.0 * row["scores"][k].as_f64().unwrap().clamp(0.0, 1.0)).round());
            let said = format!("\n<extra_id_2>Helpfulness:{},Harmlessness:{}", values[0], values[1]);
            let prompt = row["prompt"][0]["content"].as_str().unwrap();
            assert_eq!(prompt, format!("{}{said}", row["plain"][0]["content"].as_str().unwrap()));
        }
    }
}

#[test]
fn cpo_writes_levels_and_prefers_what_comes_near_them() {
    let f = folder();
    let own = "{ prompts = 24, completions = 1, steps = 2, candidates = 3, pair_steps = 2 }";
    assert_eq!(baseline(f.path(), "cpo", own), "levels");
    for row in rows(&stage(f.path(), "cpo", "cpo_data").join("samples.jsonl")) {
        let levels = [0, 1].map(|k| 1.0 + (4.0 * row["scores"][k].as_f64().unwrap().clamp(0.0, 1.0)).round());
        let said = format!("< Helpfulness: {} > < Harmlessness: {} > ", levels[0], levels[1]);
        let prompt = row["prompt"][0]["content"].as_str().unwrap();
        assert_eq!(prompt, format!("{said}{}", row["plain"][0]["content"].as_str().unwrap()));
    }
    let pairs = rows(&stage(f.path(), "cpo", "cpo_pairs").join("samples.jsonl"));
    assert!(pairs.len() > 10);
    let far = |row: &Value, which: &str| {
        let w = [0, 1].map(|k| row["weights"][k].as_f64().unwrap());
        let one = |k: usize| {
            let asked = 1.0 + (4.0 * w[k] / w[0].max(w[1])).round();
            (1.0 + 4.0 * row[which][k].as_f64().unwrap().clamp(0.0, 1.0) - asked).abs()
        };
        one(0) + one(1)
    };
    for row in &pairs {
        assert!(far(row, "chosen_scores") < far(row, "rejected_scores"), "{row}");
    }
}

/// What a script says that has `stages` behind the task's rewards.
fn refused(folder: &Path, stages: &str) -> String {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\n\
         let own = #{{ policy: path(task.policy), prompts: steer::prompt_data(task, \"train\"), rewards: scored }};\n{stages}\n"
    );
    write(folder, "bad.rhai", &script);
    let message = failure(motrain(folder).args(["check", "bad.rhai"]));
    message.replace(&folder.display().to_string(), "[tmp]").replace(&root().display().to_string(), "[home]")
}

#[test]
fn what_cannot_be_said_or_labelled_is_refused_with_the_mend() {
    let f = folder();
    let mut shown = String::new();
    let mut show = |name: &str, stages: &str| shown += &format!("{name}:\n{}\n\n", refused(f.path(), stages));
    let by =
        |options: &str| format!("ric_data(\"x\", steer::changed(own, #{{ conditioner: conditioner({options}) }}));");
    let best = |options: &str| {
        let more = format!("sampler: sampler(\"grid\"), conditioner: conditioner({options})");
        format!("best_of_n(\"x\", steer::changed(own, #{{ {more} }}));")
    };
    show(
        "a direction of norm 0",
        &best(r#""direction", #{ components: #{ Helpfulness: [-1, 1], Harmlessness: [-1, 1] } }"#),
    );
    show("a direction of norm 0 at a corner", &best(r#""direction", #{ components: #{ Helpfulness: [0, 0] } }"#));
    show("a component of no objective", &best(r#""direction", #{ components: #{ Helpful: [0, 1] } }"#));
    show("a missing attribute", &by(r#""attributes", #{ order: ["Helpfulness"] }"#));
    show("an attribute too many", &by(r#""attributes", #{ order: ["Harmlessness", "Helpfulness", "Humour"] }"#));
    show("levels that fall", &by(r#""levels", #{ range: [5, 1] }"#));
    show("a token of no objective", &by(r#""levels", #{ uncontrolled: ["Humour"] }"#));
    show("nothing to control", &by(r#""levels", #{ uncontrolled: ["Helpfulness", "Harmlessness"] }"#));
    show("scores by a conditioner of weights", &by(r#""weight_prefix""#));
    show("words that are a list", r#"conditioner("bins", #{ words: ["low, or not", "high"] });"#);
    show("Tchebycheff without an ideal point", r#"label("smooth_tchebycheff");"#);
    let labelled = |options: &str| {
        let more = format!(
            r#"sampler: sampler("grid"), conditioner: conditioner("none"), loss: loss("dpo"), label: label({options})"#
        );
        format!("online_preference(\"x\", steer::changed(own, #{{ {more} }}));")
    };
    show("an ideal point of another number of objectives", &labelled(r#""smooth_tchebycheff", #{ ideal: [1, 1, 1] }"#));
    show("strengths of another number of objectives", &labelled(r#""control_distance", #{ strength: [1] }"#));
    let model = |options: &str| {
        format!("let rated = ratings(\"rated\", own);\nreward_model(\"m\", #{{ model: own.policy, {options} }});")
    };
    show("ratings without attributes", &model("ratings: rated"));
    show("an attribute that is not rated", &model(r#"ratings: rated, attributes: ["Helpfulness", "Humour"]"#));
    show("neither data nor ratings", &model(r#"attributes: ["Helpfulness"]"#));
    show("pairs for ratings", &model("ratings: scored, attributes: [\"Helpfulness\"]"));
    show(
        "a scale that there is not",
        r#"rewards("y", #{ sources: [reward("A", "length")], policy: own.policy, prompts: own.prompts, fit: "median" });"#,
    );
    assert_snapshot!(shown);
    let set = ["check", "baselines/dpa.rhai", "--set", "tasks.hh.dpa.rounds=0"];
    let message = failure(motrain(f.path()).args(set));
    assert!(message.contains("dpa.rounds must be from 1 to 1000, not 0"), "{message}");
}
