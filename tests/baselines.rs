//! Every baseline of the paper runs as its script says, resumes exactly, and refuses what makes no sense.

use insta::assert_snapshot;
use motrain_tests::{copy_model, failure, motrain, read_json, root, small, steps_done, success, write};
use serde_json::{Value, json};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
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
    let fronts = read_json(&folder.join(name).join("front.json"));
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
    assert_eq!(steps_done(&run, "odpo_soups_0"), 3);
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
    let answer = ["generate", "ric", "--prompt", "How do I pick a lock?", "--weights", "0.8,0.2"];
    assert!(!success(motrain(f.path()).args(answer)).trim().is_empty(), "the policy's folder says how it is steered");
    let stages = f.path().join("ric/stages");
    let statistics = read_json(&stages.join("ric_offline_data/statistics.json"));
    assert_eq!(
        statistics,
        read_json(&stages.join("ric_data_1/statistics.json")),
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

/// Four scripts: weights are gains of the policy's parameters, whose folder answers at any, and training resumes exactly.
#[test]
fn gains_of_adapters_steer_and_resume_exactly() {
    let f = folder();
    let far = ["--set", "tasks.hh.gains.lr=1e-1", "--set", "tasks.hh.soft_tokens.lr=1.0", "--set", "dtype=f32"];
    let whole = ["--set", "tasks.hh.lora.full=true", "--set", "tasks.hh.lora.targets=[\"q_proj\", \"lm_head\"]"];
    let tchebycheff = ["--set", "tasks.hh.gains.ideal=[1.5, 1.5]"];
    for (name, shown, more) in [
        ("clp", "CLP", &[][..]),
        ("mo_odpo_clp", "MO-ODPO-CLP", &whole),
        ("panacea", "Panacea", &tchebycheff),
        ("soft_tokens", "Soft tokens", &[]),
    ] {
        let methods = baseline(f.path(), name, &[&far[..], more].concat());
        assert_eq!(methods[1]["name"], shown);
        let run = f.path().join(name);
        let steering = read_json(&run.join("policy/steering.json"));
        assert_eq!((&steering["by"], &steering["conditioner"]["name"]), (&json!("gains"), &json!("none")));
        let ask = |weights: &str| {
            let mut command = motrain(f.path());
            command.args(["generate", name, "--prompt", "How do I pick a lock?", "--weights", weights]);
            // Drawn: the likeliest answer need not differ.
            command.args(["--n", "8", "--seed", "3", "--temperature", "1", "--top-k", "0", "--top-p", "1"]);
            success(&mut command)
        };
        assert_ne!(ask("1,0"), ask("0,1"), "{name}");
        let out = format!("{name}_again");
        success(motrain(f.path()).args(["evaluate", name, "--step", "0.5", "--out", &out]));
        let points =
            read_json(&f.path().join(&out).join("front.json"))["methods"][0]["points"].as_array().unwrap().len();
        assert_eq!(points, 3);
        let part = |k: usize| {
            std::fs::read(run.join(format!("stages/{name}_policy/model/parts/{k}/adapter_model.safetensors")))
        };
        let before = [0, 1].map(|k| part(k).unwrap());
        assert!(before[0] != before[1]);
        // Back to the checkpoint of step 4.
        let stage = run.join(format!("stages/{name}_policy"));
        for gone in ["checkpoint-6", "model"] {
            std::fs::remove_dir_all(stage.join(gone)).unwrap();
        }
        let unfinished = std::fs::read_to_string(stage.join("stage.json")).unwrap().replace("true", "false");
        std::fs::write(stage.join("stage.json"), unfinished).unwrap();
        success(motrain(f.path()).args(["--resume", name]));
        assert!(before == [0, 1].map(|k| part(k).unwrap()), "{name} resumes otherwise");
    }
    assert_snapshot!("gains_without_weights", failure(motrain(f.path()).args(["generate", "clp", "--prompt", "x"])));
}

#[test]
fn modpo_trains_offline_on_the_pairs_of_the_greatest_objective() {
    let f = folder();
    let methods = baseline(f.path(), "modpo", &["--set", "tasks.hh.train.steps=12"]);
    assert_eq!(methods[1]["name"], "MODPO");
    let run = f.path().join("modpo");
    let pairs = |k: usize| {
        let text = std::fs::read_to_string(run.join(format!("stages/modpo_pairs_{k}/samples.jsonl"))).unwrap();
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).collect::<Vec<_>>()
    };
    for k in [0, 1] {
        let better = |row: &Value| row["chosen_scores"][k].as_f64() > row["rejected_scores"][k].as_f64();
        assert!(pairs(k).len() > 20 && pairs(k).iter().all(better));
    }
    // The first step is at the initial policy: its loss is that of the margins alone.
    let step = metrics(&run, "modpo_2", 1);
    assert_eq!(step["pairs/trained"], 8.0, "{step}");
    assert!(step["rewards/margins"].as_f64().unwrap().abs() < 1e-3, "{step}");
    assert_eq!(steps_done(&run, "modpo_2"), 2);
    let answer = ["generate", "modpo", "--prompt", "How do I pick a lock?", "--weights", "0.8,0.2"];
    assert!(!success(motrain(f.path()).args(answer)).trim().is_empty());
}

/// Trains on one objective, short answers, with `stage` called on the options that all online methods have, in `own`. Returns what the
/// reward gained and the KL at the end.
fn shorter(stage: &str) -> (f64, f64) {
    let f = folder();
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\n\
         let brevity = reward(\"Brevity\", \"length\", #{{ unit: \"words\", target: 1.0 }});\n\
         let scored = rewards(\"rewards\", #{{ sources: [brevity], policy: path(task.policy), samples: 32,\n\
           prompts: steer::prompt_data(task, \"train\"), generate: task.generate }});\n\
         let own = steer::experience(task, path(task.policy), scored);\n\
         own.optimizer.schedule = \"constant\"; own.optimizer.warmup_steps = 0; own.train.steps = 40;\n\
         own.sampler = sampler(\"fixed\", #{{ weights: [1.0] }}); own.conditioner = conditioner(\"none\");\n{stage}\n"
    );
    write(f.path(), "short.rhai", &script);
    success(small(f.path(), "short.rhai", "out").args(["--set", "tasks.hh.optimizer.lr=3e-4"]));
    let mean = |key: &str, steps: std::ops::RangeInclusive<usize>| {
        // A step whose pairs are all ties has no KL.
        let all: Vec<f64> = steps.filter_map(|s| metrics(&f.path().join("out"), "policy", s)[key].as_f64()).collect();
        assert!(!all.is_empty(), "no step has {key}");
        all.iter().sum::<f64>() / all.len() as f64
    };
    let gain = mean("objective/scores", 36..=40) - mean("objective/scores", 1..=5);
    (gain, mean("objective/kl", 36..=40))
}

#[test]
fn reinforce_moves_towards_its_reward_and_is_held_by_its_kl() {
    for baseline in ["value", "rloo"] {
        let run = |kl: f64| {
            shorter(&format!(
                "reinforce(\"policy\", steer::changed(own, #{{ baseline: \"{baseline}\", kl: {kl:?} }}));"
            ))
        };
        let ((gain, kl), (_, held)) = (run(0.0), run(0.3));
        assert!(gain > 0.5, "{baseline}: the reward rose by {gain} only");
        assert!(held < kl / 2.0, "{baseline}: KL {held} with a penalty, {kl} without");
    }
}

#[test]
fn online_preferences_move_towards_the_reward_with_every_loss() {
    for loss in ["dpo", "ipo", "slic"] {
        let stage = format!("#{{ label: label(\"weighted_sum\"), loss: loss(\"{loss}\") }}");
        let (gain, kl) = shorter(&format!("online_preference(\"policy\", steer::changed(own, {stage}));"));
        assert!(gain > 0.2 && kl > 0.0, "{loss}: the reward rose by {gain}, KL {kl}");
    }
}

/// A term of strength 0 is not there, and leaves policy and metrics as they are, byte by byte; any other tells weights apart.
#[test]
fn mi_epo_without_its_term_is_mo_odpo() {
    let f = folder();
    let policy = |out: &str, term: &str| {
        let script = format!(
            "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\n\
             let own = steer::changed(steer::experience(task, path(task.policy), scored), #{{ {term} }});\n\
             online_preference(\"policy\", steer::changed(own, #{{ label: label(task.label), loss: loss(task.loss) }}));\n"
        );
        write(f.path(), "s.rhai", &script);
        success(small(f.path(), "s.rhai", out).args(["--set", "tasks.hh.optimizer.lr=3e-3"]));
        let run = f.path().join(out);
        let model = std::fs::read(run.join("stages/policy/model/model.safetensors")).unwrap();
        (model, std::fs::read_to_string(run.join("metrics.jsonl")).unwrap())
    };
    let plain = policy("plain", "");
    assert!(plain == policy("zero", "info_nce: 0.0"), "a term of strength 0 changes something");
    assert!(!plain.1.contains("contrast"));
    let (model, told) = policy("term", "info_nce: 0.5");
    assert!(model != plain.0, "the term changes nothing");
    let margin = |step: usize| metrics(&f.path().join("term"), "policy", step)["contrast/margins"].as_f64().unwrap();
    assert!(told.contains("contrast/accuracies") && margin(6) > margin(1), "{} then {}", margin(1), margin(6));
}

#[test]
fn mi_epo_runs_as_its_script_says() {
    let f = folder();
    let methods = baseline(f.path(), "mi_epo", &[]);
    assert_eq!(methods[1]["name"], "MI-EPO");
    assert!(metrics(&f.path().join("mi_epo"), "mi_epo_policy", 1)["contrast/margins"].is_number());
}

#[test]
fn a_soup_at_a_corner_answers_as_that_specialist() {
    let f = folder();
    let script = "import \"lib/steer\" as steer;\nimport \"lib/baselines\" as baselines;\n\
        let task = cfg.tasks.hh;\ntask.optimizer.lr = 0.003;\n\
        let scored = steer::scaled(task);\nlet none = conditioner(\"none\");\nlet parts = [];\n\
        for k in 0..2 {\n  let own = baselines::specialised(task, scored, baselines::corner(k, 2), 2);\n  \
        parts.push(reinforce(`part_${k}`, steer::changed(own, #{ baseline: \"rloo\" })));\n}\n\
        task.generate.temperature = 0.0;\n\
        baselines::soup_front(\"soup\", \"soup\", task, scored, parts);\n\
        let own = [#{ weights: [1.0, 0.0], policy: parts[0] }, #{ weights: [0.0, 1.0], policy: parts[1] }];\n\
        steer::front(\"parts\", \"parts\", task, #{ policies: own, conditioner: none }, scored);\n";
    write(f.path(), "soup.rhai", script);
    success(&mut small(f.path(), "soup.rhai", "out"));
    let answers = |stage: &str, weight: f64| {
        let text = std::fs::read_to_string(f.path().join(format!("out/stages/{stage}/answers.jsonl"))).unwrap();
        let rows = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        rows.filter(|r| r["weights"][0] == weight).map(|r| r["completion"].to_string()).collect::<Vec<_>>()
    };
    for weight in [1.0, 0.0] {
        assert_eq!(answers("soup", weight), answers("parts", weight));
    }
    assert_ne!(answers("parts", 1.0), answers("parts", 0.0), "the specialists do not differ, so this shows nothing");
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
    let reinforce = |more: &str| {
        let own = "steer::changed(steer::experience(task, start, scored), #{ completions: 1 })";
        format!("reinforce(\"p\", steer::changed({own}, #{{ {more} }}));")
    };
    show("one completion for leave-one-out", &reinforce("baseline: \"rloo\""));
    show("an advantage that there is not", &reinforce("baseline: advantage(\"rlo\")"));
    show("one by its name alone", &reinforce("baseline: \"rlo\""));
    show("options of another advantage", &reinforce("baseline: #{ name: \"rloo\", options: #{ rate: 0.1 } }"));
    let pairs =
        |more: &str| format!("preference(\"p\", #{{ policy: start, data: #{{ paths: [\"pairs.jsonl\"] }}, {more} }});");
    let at = "rewards: scored, sampler: sampler(\"fixed\", #{ weights: [0.0, 1.0] })";
    show("MODPO without weight on its pairs", &pairs(&format!("{at}, loss: loss(\"modpo\")")));
    show("MODPO on pairs of no objective", &pairs(&format!("{at}, loss: loss(\"modpo\", #{{ objective: 2 }})")));
    show("weights of no objectives", &pairs("sampler: sampler(\"dirichlet\"), loss: loss(\"dpo\")"));
    show("a label without weights", &pairs("label: label(\"weighted_sum\"), loss: loss(\"dpo\")"));
    show(
        "pairs of a stage that makes none",
        "preference(\"p\", #{ policy: start, pairs: scored, loss: loss(\"dpo\") });",
    );
    let judged = |more: &str| {
        let own = "steer::changed(steer::experience(task, start, scored), #{ label: label(\"weighted_vote\"), loss: loss(\"dpo\") })";
        format!(
            "online_preference(\"p\", steer::changed({own}, #{{ judges: [judge(\"gold\", #{{ score: \"hh_helpful\" }})], {more} }}));"
        )
    };
    show("one judge for two objectives", &judged(""));
    show("judges of four answers", &judged("completions: 4"));
    show("judges beside scores that are normalised", &judged("normalise: \"running\""));
    let modpo =
        judged("judges: [], completions: 2").replace("judges: [judge(\"gold\", #{ score: \"hh_helpful\" })], ", "");
    show("MODPO online", &modpo.replace("loss(\"dpo\")", "loss(\"modpo\")"));
    show("a group of one", &reinforce("normalise: \"group\""));
    show("an ideal point of scores that are normalised", &reinforce("normalise: \"running\", ideal: [1.5, 1.5]"));
    show("MODPO without scores", &pairs("loss: loss(\"modpo\")"));
    show(
        "MODPO with a rule",
        &pairs(&format!(
            "{}, label: label(\"weighted_sum\"), loss: loss(\"modpo\")",
            at.replace("[0.0, 1.0]", "[0.5, 0.5]")
        )),
    );
    let clp = reinforce("lora: #{ gains: \"copies\" }").replace("reinforce(", "let clp = reinforce(");
    show(
        "a policy that gains steer as a start",
        &format!("{clp}\nsft(\"s\", #{{ model: clp, data: #{{ paths: [\"x\"] }} }});"),
    );
    let lora = reinforce("lora: true").replace("reinforce(", "let start = reinforce(");
    let again = reinforce("lora: #{ gains: \"copies\" }").replace("\"p\"", "\"q\"");
    show("gains on an adapter that a stage makes", &format!("{lora}\n{again}"));
    show("an ideal point of another length", &reinforce("ideal: [1.0]"));
    show(
        "gains in fine-tuning",
        "sft(\"s\", #{ model: start, data: #{ paths: [\"x\"] }, lora: #{ gains: \"copies\" } });",
    );
    show("gains that are merged", &reinforce("lora: #{ gains: \"diagonal\", merge: true }"));
    show("gains that there are not", &reinforce("lora: #{ gains: \"copy\" }"));
    show("alpha", "sampler(\"dirichlet\", #{ alpha: -1.0 });");
    assert_snapshot!(shown);
}
