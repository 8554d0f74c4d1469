//! What a run folder promises: nothing finished is lost, nobody else's work is touched, and one process at a time works in it.

use motrain_tests::{
    failure, motrain, read, result, reused, root, signal, small_run, start, steps_done, text, told, wait_for, write,
};
use std::path::Path;
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// `small_run` with another strength of the loss: other options from the second stage on.
fn with_beta(folder: &Path, beta: &str) -> Command {
    let mut command = small_run(folder, "out");
    command.args(["--set", &format!("tasks.hh.loss.options.beta={beta}")]);
    command
}

#[test]
fn earlier_options_find_again_what_they_made() {
    let f = folder();
    let run = f.path().join("out");
    told(&mut with_beta(f.path(), "0.1"));
    let first = result(&run);
    told(&mut with_beta(f.path(), "0.2"));
    assert_ne!(result(&run), first);
    let said = told(&mut with_beta(f.path(), "0.1"));
    assert_eq!(said.matches("finished before, reused").count(), 4, "{said}");
    assert_eq!(result(&run), first);
    let events = std::fs::read_dir(run.join("events/mo_odpo")).unwrap().next().unwrap().unwrap().file_name();
    let own = std::fs::read_link(run.join("stages/mo_odpo")).unwrap();
    let hash = own.to_str().unwrap().strip_prefix("mo_odpo.").unwrap();
    assert!(events.to_str().unwrap().contains(hash), "TensorBoard shows {events:?} for {hash}");
}

#[test]
fn a_damaged_stage_json_hands_no_checkpoint_to_other_options() {
    let f = folder();
    let run = f.path().join("out");
    told(&mut with_beta(f.path(), "0.2"));
    let right = result(&run);
    std::fs::remove_dir_all(&run).unwrap();
    told(&mut with_beta(f.path(), "0.1"));
    let first = result(&run);
    for torn in ["", "{\"hash\": \"a", "null"] {
        std::fs::write(run.join("stages/mo_odpo/stage.json"), torn).unwrap();
        told(&mut with_beta(f.path(), "0.2"));
        assert_eq!(result(&run), right, "{torn}");
        told(&mut with_beta(f.path(), "0.1"));
        assert_eq!(result(&run), first, "{torn}");
    }
}

#[test]
fn damaged_plans_and_manifests_are_made_anew() {
    let f = folder();
    let run = f.path().join("out");
    told(&mut small_run(f.path(), "out"));
    for (plan, manifest) in [("", "{"), ("{", "")] {
        std::fs::write(run.join("plan.json"), plan).unwrap();
        std::fs::write(run.join("manifest.json"), manifest).unwrap();
        let said = told(&mut small_run(f.path(), "out"));
        assert_eq!(said.matches("finished before, reused").count(), 4, "{said}");
    }
}

#[test]
fn a_second_process_is_refused_and_told_of_the_first() {
    let f = folder();
    let run = f.path().join("out");
    let mut first = start(small_run(f.path(), "out").args(["--set", "tasks.hh.train.steps=400"]));
    wait_for(|| steps_done(&run, "mo_odpo") >= 1);
    for mut second in [small_run(f.path(), "out"), motrain(f.path())] {
        if second.get_args().count() == 0 {
            second.args(["--resume", "out"]);
        }
        let message = failure(&mut second);
        let pid = first.id();
        assert!(
            message.contains(&format!("out: process {pid} on ")) && message.contains("works in this run folder"),
            "{message}"
        );
    }
    signal(&first, "KILL");
    first.wait().unwrap();
    told(&mut small_run(f.path(), "out"));
}

#[test]
fn out_touches_nothing_that_is_no_run() {
    let f = folder();
    let mine = write(f.path(), "mine/policy/weights.txt", "my only copy");
    let message = failure(&mut small_run(f.path(), "mine"));
    assert!(message.contains("mine: is not empty and no run folder"), "{message}");
    assert_eq!(std::fs::read_dir(f.path().join("mine")).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "my only copy");
}

#[test]
fn evaluate_writes_neither_into_its_run_nor_into_what_is_none() {
    let f = folder();
    told(&mut small_run(f.path(), "run"));
    let before = result(&f.path().join("run"));
    write(f.path(), "mine/policy/weights.txt", "my only copy");
    for (out, said) in
        [("run", "is the run that is evaluated"), ("./x/../run/", "is the run that is"), ("mine", "no run folder")]
    {
        std::fs::create_dir_all(f.path().join("x")).unwrap();
        let message = failure(motrain(f.path()).args(["evaluate", "run", "--step", "0.5", "--out", out]));
        assert!(message.contains(said), "{out}: {message}");
    }
    assert_eq!(result(&f.path().join("run")), before);
}

/// Whoever hands over a run folder gets no say over what lies elsewhere.
#[test]
fn links_and_ids_do_not_lead_out_of_a_run_folder() {
    let f = folder();
    told(&mut small_run(f.path(), "out"));
    let elsewhere = write(f.path(), "elsewhere/mo_odpo/file", "keep me").parent().unwrap().parent().unwrap().to_owned();
    let run = f.path().join("out");
    std::fs::remove_dir_all(run.join("events")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, run.join("events")).unwrap();
    let message = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(message.contains("out/events: is a link"), "{message}");
    std::fs::remove_file(run.join("events")).unwrap();
    let own = run.join("stages").join(std::fs::read_link(run.join("stages/mo_odpo")).unwrap());
    std::fs::remove_dir_all(&own).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("mo_odpo"), &own).unwrap();
    let message = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(message.contains("is a link"), "{message}");
    let plan = std::fs::read_to_string(run.join("plan.json")).unwrap();
    std::fs::write(run.join("plan.json"), plan.replace("\"mo_odpo\"", "\"../../elsewhere/mo_odpo\"")).unwrap();
    let message = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(message.contains("\"../../elsewhere/mo_odpo\" is no stage id"), "{message}");
    assert_eq!(std::fs::read_dir(elsewhere.join("mo_odpo")).unwrap().count(), 1);
}

/// A run over relative paths in the folder `work`; `out` is its run folder.
fn relative_run(folder: &Path) -> Command {
    let work = folder.join("work");
    motrain_tests::copy_model(&root().join("assets/hh/policy_small"), &work.join("model"));
    let prompts = std::fs::read_to_string(root().join("assets/hh/prompts.jsonl")).unwrap();
    write(&work, "data/p.jsonl", &prompts.lines().take(20).map(|l| format!("{l}\n")).collect::<String>());
    let script = r#"let scored = rewards("r", #{ sources: [reward("Long", "length"), reward("Wide", "length", #{ unit: "characters" })],
        policy: "model", prompts: #{ paths: ["data/p.jsonl"] }, samples: 16, generate: #{ max_new_tokens: 8 } });
    let policy = online_preference("m", #{ policy: "model", prompts: #{ paths: ["data/p.jsonl"] }, rewards: scored,
        sampler: sampler("dirichlet", #{ alpha: 1.0 }), conditioner: conditioner("weight_prefix"), label: label("weighted_sum"),
        loss: loss("dpo", #{ beta: 0.1 }), generate: #{ max_new_tokens: 8 }, train: #{ steps: 2, batch_size: 4, micro_batch_size: 4 } });
    evaluate("e", #{ name: "x", policy: policy, rewards: scored, conditioner: conditioner("weight_prefix"), step: 0.5,
        prompts: #{ paths: ["data/p.jsonl"], limit: 2 }, generate: #{ max_new_tokens: 8 } });"#;
    write(&work, "s.rhai", script);
    let mut command = motrain(&work);
    command.args(["--script", "s.rhai", "--out", "out"]);
    command
}

/// Removes what a stage made, so that it has to be made anew.
fn forget(run: &Path, stage: &str) {
    let own = std::fs::read_link(run.join("stages").join(stage)).unwrap();
    std::fs::remove_dir_all(run.join("stages").join(own)).unwrap();
}

#[test]
fn a_run_goes_on_from_anywhere_and_after_a_move() {
    let f = folder();
    told(&mut relative_run(f.path()));
    let first = result(&f.path().join("work/out"));
    forget(&f.path().join("work/out"), "m");
    let said = told(motrain(f.path()).args(["--resume", "work/out"]));
    assert_eq!((reused(&said), result(&f.path().join("work/out"))), (2, first.clone()), "{said}");
    // The run folder elsewhere, and then the whole project.
    std::fs::rename(f.path().join("work/out"), f.path().join("moved")).unwrap();
    forget(&f.path().join("moved"), "m");
    let said = told(motrain(&f.path().join("moved")).args(["--resume", "."]));
    assert_eq!((reused(&said), result(&f.path().join("moved"))), (2, first.clone()), "{said}");
    std::fs::rename(f.path().join("work"), f.path().join("project")).unwrap();
    forget(&f.path().join("moved"), "m");
    let said = told(motrain(&f.path().join("project")).args(["--resume", "../moved"]));
    assert_eq!((reused(&said), result(&f.path().join("moved"))), (2, first.clone()), "{said}");
    let said = told(motrain(&f.path().join("project")).args(["--script", "s.rhai", "--out", "../moved"]));
    assert_eq!(reused(&said), 3, "{said}");
    // Inputs that are gone are missed only where something is left to do.
    std::fs::remove_dir_all(f.path().join("project")).unwrap();
    let said = told(motrain(f.path()).args(["--resume", "moved"]));
    assert_eq!(reused(&said), 3, "{said}");
    told(
        motrain(f.path())
            .args(["evaluate", "moved", "--step", "0.5", "--limit", "2", "--prompts"])
            .arg(root().join("assets/hh/prompts.jsonl"))
            .args(["--out", "more"]),
    );
    forget(&f.path().join("moved"), "e");
    let message = failure(motrain(f.path()).args(["--resume", "moved"]));
    assert!(
        message.contains("data/p.jsonl: is not there any more, and stage \"e\" needs it; bring it back"),
        "{message}"
    );
}

#[test]
fn contents_count_and_places_do_not() {
    let f = folder();
    told(&mut relative_run(f.path()));
    let work = f.path().join("work");
    let run = || told(motrain(&work).args(["--script", "s.rhai", "--out", "out"]));
    std::fs::rename(work.join("data/p.jsonl"), work.join("data/q.jsonl")).unwrap();
    let script = std::fs::read_to_string(work.join("s.rhai")).unwrap();
    write(&work, "s.rhai", &script.replace("p.jsonl", "q.jsonl"));
    assert_eq!(reused(&run()), 3);
    // As long as it was.
    let prompts = std::fs::read_to_string(work.join("data/q.jsonl")).unwrap();
    let (text, end) = prompts.rsplit_once("\"}").unwrap();
    write(&work, "data/q.jsonl", &format!("{}#\"}}{end}", &text[..text.len() - 1]));
    assert_eq!(reused(&run()), 0);
}

#[test]
fn each_task_of_a_run_has_a_front_of_its_own() {
    let f = folder();
    let script = "import \"lib/steer\" as steer;\nfor name in [\"hh\", \"tldr\"] { let task = cfg.tasks[name]; task.fit_samples = 16; task.evaluation_prompts = 3;\n\
        task.generate.max_new_tokens = 8; let scored = steer::scaled_as(name + \"_rewards\", task);\n\
        steer::front(name + \"_start\", \"initial\", task, path(task.policy), scored); }\n";
    write(f.path(), "two.rhai", script);
    told(&mut small_run(f.path(), "out"));
    let output = motrain(f.path()).args(["--script", "two.rhai", "--out", "out"]).output().unwrap();
    let (said, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{log}");
    let objectives = |file: &str| {
        let front: serde_json::Value = serde_json::from_slice(&read(f.path().join("out").join(file))).unwrap();
        (front["objectives"].to_string(), front["methods"].as_array().unwrap().len())
    };
    assert_eq!(objectives("front-hh_rewards.json"), ("[\"Helpfulness\",\"Harmlessness\"]".to_owned(), 1));
    assert_eq!(objectives("front-tldr_rewards.json"), ("[\"Quality\",\"Entailment\"]".to_owned(), 1));
    for name in ["hh_rewards", "tldr_rewards"] {
        assert!(
            f.path().join(format!("out/report-{name}.html")).is_file()
                && f.path().join(format!("out/front-{name}.svg")).is_file()
        );
        assert!(
            said.contains(&format!("{name}:\n")) && said.contains(&format!("report: out/report-{name}.html")),
            "{said}"
        );
    }
    assert!(!f.path().join("out/front.json").exists(), "the front of another plan is left");
}

#[test]
fn runs_lists_what_is_kept_and_removes_what_is_named() {
    let f = folder();
    let run = f.path().join("out");
    told(&mut with_beta(f.path(), "0.1"));
    told(&mut with_beta(f.path(), "0.2"));
    let runs = |args: &[&str]| motrain_tests::success(motrain(f.path()).arg("runs").args(args));
    let listed = runs(&["list", "out"]);
    let count = |listed: &str, what: &[&str]| listed.lines().filter(|l| what.iter().all(|w| l.contains(w))).count();
    assert_eq!(
        (count(&listed, &["mo_odpo"]), count(&listed, &["mo_odpo", "finished", "present", "checkpoints"])),
        (2, 1),
        "{listed}"
    );
    assert_eq!((count(&listed, &["unused"]), listed.lines().count()), (2, 6), "{listed}");
    let message = failure(motrain(f.path()).args(["runs", "prune", "out"]));
    assert!(message.contains("say what to remove: --unused, --checkpoints, --stage"), "{message}");
    let message = failure(motrain(f.path()).args(["runs", "prune", "out", "--stage", "odpo"]));
    assert!(message.contains("no stage here is called \"odpo\"; there are mo_odpo."), "{message}");
    let dry = runs(&["prune", "out", "--unused", "--dry-run"]);
    assert!(dry.contains("would remove out/stages/mo_odpo.") && dry.lines().count() == 3, "{dry}");
    assert_eq!(runs(&["list", "out"]), listed);
    assert_eq!(runs(&["prune", "out", "--unused"]), dry.replace("would remove", "removed"));
    runs(&["prune", "out", "--checkpoints"]);
    assert!(!run.join("stages/mo_odpo/checkpoint-6").exists() && run.join("stages/mo_odpo/model").is_dir());
    let listed = runs(&["list", "out"]);
    assert_eq!((count(&listed, &["present"]), count(&listed, &["checkpoints"])), (4, 0), "{listed}");
    assert_eq!(reused(&told(&mut with_beta(f.path(), "0.2"))), 4);
    runs(&["prune", "out", "--stage", "steered"]);
    assert!(!run.join("stages/steered").is_symlink());
    let said = told(&mut with_beta(f.path(), "0.2"));
    assert_eq!(reused(&said), 3, "{said}");
}

/// A run folder as motrain 0.1.0 left it: stages at `stages/<id>`, logs of the run only.
#[test]
fn a_run_of_an_earlier_motrain_is_kept_and_done_anew() {
    let f = folder();
    let run = f.path().join("out");
    told(&mut small_run(f.path(), "out"));
    let (first, metrics) = (result(&run), read(run.join("metrics.jsonl")));
    for id in ["rewards", "mo_odpo", "start", "steered"] {
        let (link, own) = (run.join("stages").join(id), std::fs::read_link(run.join("stages").join(id)).unwrap());
        std::fs::remove_file(&link).unwrap();
        std::fs::rename(run.join("stages").join(own), &link).unwrap();
        let _ = std::fs::remove_file(link.join("metrics.jsonl"));
        let status = std::fs::read_to_string(link.join("stage.json")).unwrap();
        let mut status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["hash"] = serde_json::json!("0123456789abcdef0123");
        std::fs::write(link.join("stage.json"), status.to_string()).unwrap();
    }
    let manifest = std::fs::read_to_string(run.join("manifest.json")).unwrap().replace("\"layout\": 2,", "");
    std::fs::write(run.join("manifest.json"), manifest).unwrap();
    let message = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(
        message.contains("out was made by an earlier motrain, whose stages this one cannot go on with"),
        "{message}"
    );
    assert!(run.join("stages/mo_odpo/model").is_dir());
    let said = told(&mut small_run(f.path(), "out"));
    assert!(
        reused(&said) == 0 && said.contains("out/stages/mo_odpo is kept as out/stages/mo_odpo.0123456789abcdef"),
        "{said}"
    );
    assert_eq!(result(&run), first);
    assert_eq!(read(run.join("stages/mo_odpo.0123456789abcdef/metrics.jsonl")), metrics);
}
