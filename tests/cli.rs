//! What a user sees of scripts, configuration and lists.

use motrain_tests::{failure, motrain, root, small_run, success, write};
use std::collections::BTreeSet;
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Standard error of a script that must not make a plan.
fn script_error(script: &str) -> String {
    let folder = folder();
    write(folder.path(), "bad.rhai", script);
    failure(motrain(folder.path()).args(["check", "bad.rhai"]))
}

#[test]
fn list_shows_every_component_with_its_options() {
    insta::assert_snapshot!(success(motrain(folder().path()).arg("list")));
}

#[test]
fn the_shipped_experiments_make_plans() {
    let folder = folder();
    let said = success(motrain(folder.path()).args(["check", "experiments/hh.rhai"]));
    assert_eq!(said, "hh: 5 stages, all well\n");
    let said = failure(motrain(folder.path()).args(["check", "experiments/plugins.rhai"]));
    assert!(said.contains("\"motrain.toxicity\" does not exist; load its plugin with --plugin"), "{said}");
    let said = success(motrain(folder.path()).args(["check", "experiments/tldr.rhai"]));
    assert_eq!(said, "tldr: 5 stages, all well\n");
}

#[test]
fn dry_run_and_print_plan_run_nothing() {
    let folder = folder();
    insta::assert_snapshot!(success(small_run(folder.path(), "out").arg("--dry-run")));
    let plan: serde_json::Value =
        serde_json::from_str(&success(small_run(folder.path(), "out").arg("--print-plan"))).unwrap();
    assert_eq!(plan["stages"][1]["train"]["steps"], 6);
    assert!(!folder.path().join("out").exists());
}

/// What `cargo xtask campaign` kills and resumes leaves none out.
#[test]
fn the_campaign_has_every_kind_of_stage() {
    let folder = folder();
    success(motrain(folder.path()).args(["make-data", "hh", "data"]));
    let script = root().join("xtask/campaign/every_stage.rhai");
    let plan = success(motrain(folder.path()).arg("--script").arg(script).args(["--print-plan", "--out", "out"]));
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let tried: BTreeSet<&str> =
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["kind"].as_str().unwrap()).collect();
    let listed = success(motrain(folder.path()).args(["list", "stage"]));
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let kinds: BTreeSet<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(kinds.contains("ceiling"), "{listed}");
    assert_eq!(tried, kinds);
}

#[test]
fn script_errors_point_at_line_and_column() {
    insta::assert_snapshot!("option", script_error("let x = 1;\nlet l = loss(\"dpo\", #{ betta: 0.1 });\n"));
    insta::assert_snapshot!("component", script_error("sampler(\"dirichlt\");\n"));
    insta::assert_snapshot!("bad_value", script_error("sampler(\"dirichlet\", #{ alpha: 0 });\n"));
    insta::assert_snapshot!("weights", script_error("sampler(\"fixed\", #{ weights: [0.5, 0.6] });\n"));
    insta::assert_snapshot!("syntax", script_error("let x = ;\n"));
    insta::assert_snapshot!("variable", script_error("let x = 1;\nlet y = xx + 1;\n"));
    insta::assert_snapshot!("config_key", script_error("let y = cfg.tasks.hhh;\n"));
    insta::assert_snapshot!("stage_option", script_error("evaluate(\"e\", #{ naem: \"x\" });\n"));
    insta::assert_snapshot!("no_stages", script_error("let x = 1;\n"));
}

#[test]
fn an_integer_serves_where_a_float_is_meant() {
    let message = script_error("let l = loss(\"dpo\", #{ beta: 1 });\n");
    assert!(message.contains("makes no stages"), "{message}");
}

#[test]
fn training_does_not_draw_from_a_cut_distribution() {
    let folder = folder();
    for (set, told) in [
        ("top_p=0.9", "top_k = 0, top_p = 0.9"),
        ("top_k=40", "top_k = 40, top_p = 1"),
        ("temperature=0.0", "temperature = 0"),
    ] {
        let set = format!("tasks.hh.generate.{set}");
        let message = failure(motrain(folder.path()).args(["check", "experiments/hh.rhai", "--set", &set]));
        assert!(message.contains("option \"generate\"") && message.contains(told), "{message}");
    }
}

#[test]
fn imports_stay_inside_the_script_folders() {
    let outer = folder();
    write(outer.path(), "secret.rhai", "fn f() { 1 }");
    write(outer.path(), "inner/bad.rhai", "import \"../secret\" as s;\ns::f();\n");
    let message = failure(motrain(&outer.path().join("inner")).args(["check", "bad.rhai"]));
    assert!(message.contains("bad.rhai:1:8: Module not found: ../secret"), "{message}");
}

#[test]
fn a_script_cannot_run_for_ever() {
    let message = script_error("let i = 0;\nloop { i += 1; }\n");
    assert!(message.contains("Too many operations"), "{message}");
}

#[test]
fn errors_in_modules_name_both_places() {
    let folder = folder();
    let message =
        failure(motrain(folder.path()).args(["check", "experiments/hh.rhai", "--set", "tasks.hh.loss.name=dppo"]));
    insta::assert_snapshot!(message);
}

#[test]
fn configuration_layers_and_their_errors() {
    let folder = folder();
    let config = write(folder.path(), "mine.toml", "seed = 5\n[tasks.hh.train]\nbatch_size = 3\n");
    let plan = |extra: &[&str], env: &str| -> serde_json::Value {
        let mut command = motrain(folder.path());
        command.args(["--script", "experiments/hh.rhai", "--print-plan", "--config"]).arg(&config).args(extra);
        if !env.is_empty() {
            command.env("MOTRAIN_SEED", env);
        }
        serde_json::from_str(&success(&mut command)).unwrap()
    };
    assert_eq!(plan(&[], "")["seed"], 5);
    assert_eq!(plan(&[], "6")["seed"], 6);
    assert_eq!(plan(&["--set", "seed=7"], "6")["seed"], 7);
    assert_eq!(plan(&[], "")["stages"][1]["train"]["batch_size"], 3);
    let message =
        failure(motrain(folder.path()).args(["check", "experiments/hh.rhai", "--set", "tasks.hh.trian.steps=1"]));
    insta::assert_snapshot!("unknown_key", message);
    let message = failure(motrain(folder.path()).args(["check", "experiments/hh.rhai", "--config", "nowhere.toml"]));
    insta::assert_snapshot!("missing_file", message);
}

#[test]
fn generate_answers_at_weights() {
    let folder = folder();
    success(&mut small_run(folder.path(), "out"));
    let answer = |weights: &str| {
        success(motrain(folder.path()).args([
            "generate",
            "out",
            "--prompt",
            "How do I pick a lock?",
            "--weights",
            weights,
        ]))
    };
    assert!(answer("0.8,0.2").trim().len() > 5);
    let bad = motrain(folder.path())
        .args(["generate", "out", "--prompt", "Hi", "--weights", "0.8,0.3"])
        .output()
        .map(|o| motrain_tests::text(&o.stderr))
        .unwrap();
    insta::assert_snapshot!(bad);
}

#[test]
fn a_run_leaves_what_it_promises() {
    let folder = folder();
    let said = success(&mut small_run(folder.path(), "out"));
    assert!(said.contains("hypervolume") && said.contains("report: out/report.html"), "{said}");
    let run = folder.path().join("out");
    for file in [
        "plan.json",
        "manifest.json",
        "metrics.jsonl",
        "completions.jsonl",
        "front.json",
        "front.svg",
        "report.html",
        "policy/config.json",
        "policy/model.safetensors",
        "policy/tokenizer.json",
        "policy/steering.json",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(run.join(file)).unwrap()).unwrap()
    };
    let front = json("front.json");
    assert_eq!(front["objectives"], serde_json::json!(["Helpfulness", "Harmlessness"]));
    assert_eq!(front["methods"][1]["points"].as_array().unwrap().len(), 11);
    assert!(front["methods"][1]["points"][0]["watched"]["gold helpful"].is_number());
    let first: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().next().unwrap())
            .unwrap();
    for name in
        ["objective/kl", "rewards/margins", "rewards/Helpfulness/mean", "loss", "pairs/ties", "completions/eos_rate"]
    {
        assert!(first[name].is_number(), "{name} is missing");
    }
    // At the first step the policy is the reference.
    assert_eq!(first["objective/kl"], 0.0);
    assert!((first["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-9);
    let completions = std::fs::read_to_string(run.join("completions.jsonl")).unwrap();
    assert!(completions.contains("[Begin System Instruction]"));
    let events: Vec<_> = std::fs::read_dir(run.join("events/mo_odpo")).unwrap().collect();
    assert_eq!(events.len(), 1);
    // The policy has moved.
    let bytes = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
    assert_ne!(bytes(&run.join("policy")), bytes(&root().join("assets/hh/policy")));
    // Everything is reused when nothing changed.
    let again = small_run(folder.path(), "out").output().unwrap();
    let said = motrain_tests::text(&again.stderr);
    assert_eq!(said.matches("finished before, reused").count(), 4, "{said}");
    // A run that is taken up again knows from the finished evaluation how long the other will take.
    std::fs::remove_file(run.join("stages/steered/stage.json")).unwrap();
    let said = motrain_tests::text(&small_run(folder.path(), "out").output().unwrap().stderr);
    assert!(said.contains("steered: started (stage 4 of 4, about "), "{said}");
}

#[test]
fn a_finished_run_generates_and_is_evaluated_again() {
    let f = folder();
    success(&mut small_run(f.path(), "run"));
    let said = success(motrain(f.path()).args([
        "generate",
        "run",
        "--prompt",
        "How do I pick a lock?",
        "--weights",
        "0.8,0.2",
        "--n",
        "2",
    ]));
    assert_eq!(said.lines().count(), 2, "{said}");
    let config = |folder: &str| {
        let text = std::fs::read_to_string(f.path().join(folder).join("generation_config.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (used, trained) = (config("run/policy"), config("run/stages/mo_odpo/model"));
    assert_eq!((used["top_p"].as_f64(), used["max_new_tokens"].as_u64()), (Some(0.9), Some(16)), "as it was evaluated");
    assert_eq!((&trained["top_p"], &used["eos_token_id"]), (&serde_json::Value::Null, &trained["eos_token_id"]));
    // What the folder says is what `generate` does.
    let path = f.path().join("run/policy/generation_config.json");
    let one_token = std::fs::read_to_string(&path).unwrap().replace("\"max_new_tokens\": 16", "\"max_new_tokens\": 1");
    std::fs::write(&path, one_token).unwrap();
    let said = success(motrain(f.path()).args(["generate", "run", "--prompt", "How do I pick a lock?"]));
    assert!(said.split_whitespace().count() <= 1, "{said}");
    let said = success(
        motrain(f.path())
            .args(["evaluate", "run", "--step", "0.5", "--limit", "4", "--name", "again", "--out", "more"]),
    );
    let points = said.lines().filter(|l| l.starts_with("  0.") || l.starts_with("  1.")).count();
    assert!(said.contains("again   hypervolume") && points == 3, "{said}");
    assert!(f.path().join("more/report.html").is_file());
}

#[test]
fn bf16_computes_and_keeps_f32_masters() {
    let f = folder();
    success(small_run(f.path(), "run").args(["--set", "dtype=bf16", "--set", "tasks.hh.train.steps=2"]));
    let metrics = std::fs::read_to_string(f.path().join("run/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let loss = first["loss"].as_f64().unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-6, "at the reference the loss is ln 2, not {loss}");
    let config = std::fs::read_to_string(f.path().join("run/policy/config.json")).unwrap();
    assert!(config.contains("float32"), "{config}");
}

#[test]
fn a_policy_can_be_taught_from_the_best_of_its_samples() {
    let f = folder();
    let mut run = small_run(f.path(), "run");
    for set in
        ["on=true", "prompts=6", "completions=3", "train.steps=2", "train.batch_size=4", "train.micro_batch_size=2"]
    {
        run.args(["--set", &format!("tasks.hh.teach.{set}")]);
    }
    let table = success(&mut run);
    assert!(table.contains("taught to read weights"), "{table}");
    let kept = std::fs::read_to_string(f.path().join("run/stages/best_of_n/samples.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 12);
    assert!(kept.lines().all(|l| l.contains("[Begin System Instruction]") && l.contains("\"finished\":")), "{kept}");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let f = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = success(motrain(f.path()).args(["completions", shell]));
        assert!(script.contains("plugin") && script.contains("resume"), "{shell}: {script}");
    }
    success(motrain(f.path()).args(["man", "pages"]));
    for page in ["motrain.1", "motrain-generate.1", "motrain-runs-prune.1"] {
        let text = std::fs::read_to_string(f.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}: {text}");
    }
}

/// The file is JSON as Chrome's viewer reads it, and says of each part when it began and ended.
#[test]
fn a_profile_says_where_the_time_goes() {
    let folder = folder();
    success(small_run(folder.path(), "out").args(["--profile", "out.json"]));
    let text = std::fs::read_to_string(folder.path().join("out.json")).unwrap();
    let events: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut open = std::collections::BTreeMap::<&str, i64>::new();
    let mut begun = std::collections::BTreeMap::<&str, i64>::new();
    for event in &events {
        let name = event["name"].as_str().unwrap_or_default();
        match event["ph"].as_str().unwrap() {
            "B" => (*open.entry(name).or_default() += 1, *begun.entry(name).or_default() += 1).0,
            "E" => *open.entry(name).or_default() -= 1,
            _ => {}
        }
    }
    assert!(open.values().all(|left| *left == 0), "{open:?}");
    assert_eq!((begun["stage"], begun["step"], begun["update"]), (4, 6, 6), "{begun:?}");
    for part in
        ["rollout", "prefill", "token", "reward", "reference", "policy", "micro-batch", "backward", "checkpoint"]
    {
        assert!(begun.get(part).is_some_and(|count| *count > 0), "{part} is missing: {begun:?}");
    }
    let said =
        failure(motrain(folder.path()).args(["generate", "out", "--prompt", "hi", "--profile", "nowhere/p.json"]));
    assert!(said.contains("cannot write the profile nowhere/p.json"), "{said}");
}
