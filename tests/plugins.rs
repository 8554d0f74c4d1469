//! Plugins through the binary: good ones train, bad ones get an error that names what, where and how to mend it.

use motrain_tests::{
    compile, failure, library, motrain, root, small, small_run, start, steps_done, success, text, wait_for, write,
};
use std::path::{Path, PathBuf};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A plugin of tests/fixtures/hostile.c with one bug.
fn hostile_c(folder: &Path, bug: &str) -> PathBuf {
    let define = format!("-D{bug}");
    compile(
        &root().join("tests/fixtures/hostile.c"),
        &root().join("plugins/abi/include"),
        &folder.join("bad.so"),
        &[&define],
    )
}

/// What `motrain list --plugin bad.so` says.
fn refused(bug: &str) -> String {
    let f = folder();
    let path = hostile_c(f.path(), bug);
    let said = failure(motrain(f.path()).args(["list", "--plugin"]).arg(&path));
    said.replace(&path.display().to_string(), "bad.so")
}

#[test]
fn a_library_that_does_not_keep_to_the_interface() {
    let bugs = [
        "NO_SYMBOL",
        "OTHER_VERSION",
        "WRONG_VERSION",
        "NULL_PLUGIN",
        "SHORT_PLUGIN",
        "SHORT_COMPONENT",
        "BAD_NAME",
        "BAD_SCHEMA",
        "UNKNOWN_KIND",
    ];
    let said: Vec<String> = bugs.iter().map(|bug| format!("{bug}\n{}", refused(bug))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_component_in_c_that_fails() {
    let f = folder();
    let said: Vec<String> = ["SHORT_FUNCTIONS", "UNKNOWN_STATUS", "SILENT_ERROR", "GARBLED_ERROR"]
        .iter()
        .map(|bug| {
            let path = hostile_c(f.path(), bug);
            write(f.path(), "c.rhai", "conditioner(\"hostile.c\");\n");
            format!("{bug}\n{}", failure(motrain(f.path()).args(["check", "c.rhai", "--plugin"]).arg(path)))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn text_that_is_not_utf8() {
    let f = folder();
    let path = hostile_c(f.path(), "NO_BUG");
    let mut run = small_run(f.path(), "out");
    let said = failure(run.args(["--set", "tasks.hh.conditioner={ name = \"hostile.c\" }", "--plugin"]).arg(path));
    assert!(said.contains("stage \"mo_odpo\": conditioner \"hostile.c\": the text of a turn is not UTF-8"), "{said}");
}

#[test]
fn files_that_are_no_plugin_or_not_the_right_one() {
    let f = folder();
    let list = |arguments: &[&str]| {
        let said = failure(motrain(f.path()).arg("list").args(arguments));
        said.replace(&f.path().canonicalize().unwrap().display().to_string(), "[tmp]")
    };
    write(f.path(), "text.so", "I am no library");
    insta::assert_snapshot!("no_library", list(&["--plugin", "text.so"]));
    insta::assert_snapshot!("no_file", list(&["--plugin", "nowhere.so"]));
    write(f.path(), "empty/readme.txt", "");
    insta::assert_snapshot!("empty_folder", list(&["--plugin", "empty"]));
    std::fs::copy(library("hostile"), f.path().join("h.so")).unwrap();
    let wrong = "0".repeat(64);
    let said = list(&["--set", &format!("plugins.load=[{{ path = \"h.so\", sha256 = \"{wrong}\" }}]")]);
    assert!(said.starts_with("error: h.so: the plugin has SHA-256 "), "{said}");
    assert!(said.ends_with(&format!("but {wrong} was asked for; rebuild or fetch the right one")), "{said}");
}

#[test]
fn a_script_loads_plugins_only_from_allowed_folders() {
    let (outside, f) = (folder(), folder());
    std::fs::copy(library("hostile"), outside.path().join("h.so")).unwrap();
    let path = outside.path().join("h.so");
    write(f.path(), "s.rhai", &format!("plugin(\"{}\", \"hostile.loss\");\n", path.display()));
    let said = failure(motrain(f.path()).args(["check", "s.rhai"]).args(["--set", "plugins.roots=[\"lib\"]"]));
    insta::assert_snapshot!("outside", said.replace(&path.display().to_string(), "[elsewhere]/h.so"));
    let allowed = format!("plugins.roots=[\"{}\"]", outside.path().display());
    let said = failure(motrain(f.path()).args(["check", "s.rhai", "--set", &allowed]));
    assert!(said.contains("makes no stages"), "{said}");
    write(f.path(), "s.rhai", &format!("plugin(\"{}\", \"hostile.los\");\n", path.display()));
    let said = failure(motrain(f.path()).args(["check", "s.rhai", "--set", &allowed]));
    assert!(
        said.contains("has no component \"hostile.los\"; it has hostile.reward, hostile.partial, hostile.sampler"),
        "{said}"
    );
}

/// A small run whose watched reward is `hostile.reward` with a bug.
fn with_bug(folder: &Path, bug: &str, at: usize) -> std::process::Command {
    let mut run = small_run(folder, "out");
    let watch = format!(
        "tasks.hh.watch=[{{ name = \"H\", source = \"hostile.reward\", options = {{ bug = \"{bug}\", at = {at}.0 }} }}]"
    );
    run.args(["--set", &watch, "--plugin"]).arg(library("hostile"));
    run
}

#[test]
fn a_component_that_panics_or_errs() {
    let bugs =
        ["panic in create", "error in create", "panic in score", "error without text", "NaN", "too few", "too many"];
    let said: Vec<String> = bugs
        .iter()
        .map(|bug| {
            let f = folder();
            // The completion at fault depends on the policy.
            let message = failure(&mut with_bug(f.path(), bug, 0));
            let lines: Vec<&str> = message
                .lines()
                .filter(|l| !l.trim_start().starts_with("prompt:") && !l.trim_start().starts_with("completion:"))
                .collect();
            format!("{bug}\n{}", lines.join("\n"))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_panic_in_destroy_is_reported_and_the_run_goes_on() {
    let f = folder();
    let output = with_bug(f.path(), "panic in destroy", 0).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(
            "reward \"hostile.reward\": could not be destroyed: the plugin panicked at tests/hostile/src/lib.rs:"
        ),
        "{said}"
    );
}

#[test]
fn a_slow_call_is_reported_and_its_time_is_in_the_report() {
    let f = folder();
    let output = with_bug(f.path(), "slow", 5)
        .args(["--set", "plugins.call_seconds=0.5", "--set", "tasks.hh.train.steps=4"])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("reward \"hostile.reward\" of ") && said.contains(" has been busy for "), "{said}");
    assert!(said.contains("a native call cannot be cancelled safely"), "{said}");
    let timings = std::fs::read_to_string(f.path().join("out/timings.jsonl")).unwrap();
    assert!(timings.contains("\"rewards/H/seconds\""), "{timings}");
    let report = std::fs::read_to_string(f.path().join("out/report.html")).unwrap();
    assert!(report.contains("Time by component") && report.contains("<td>H</td>"), "no component times in the report");
}

#[test]
fn bad_weights_labels_and_derivatives() {
    let f = folder();
    let with = |set: &str| failure(small_run(f.path(), "out").args(["--set", set, "--plugin"]).arg(library("hostile")));
    insta::assert_snapshot!("bad_weights", with("tasks.hh.sampler={ name = \"hostile.sampler\" }"));
    insta::assert_snapshot!("bad_label", with("tasks.hh.label={ name = \"hostile.label\" }"));
    let output = motrain(f.path()).args(["plugin", "check"]).arg(library("hostile")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("check_hostile", text(&output.stdout));
}

#[test]
fn a_crash_loses_nothing_and_the_run_resumes() {
    let f = folder();
    // The sixth step's call crashes.
    let mut run = start(&mut with_bug(f.path(), "crash", 5));
    let status = run.wait().unwrap();
    assert!(!status.success() && status.code().is_none(), "expected a signal, got {status}");
    let out = f.path().join("out");
    assert_eq!(steps_done(&out, "mo_odpo"), 5);
    assert!(out.join("stages/mo_odpo/checkpoint-4/state.json").is_file());
    // The resumed run makes a new instance, which counts from 0 again and does not reach the bug.
    success(motrain(f.path()).args(["--resume", "out"]));
}

#[test]
fn a_run_knows_its_plugins_and_refuses_changed_ones() {
    let f = folder();
    let plugin = f.path().join("h.so");
    std::fs::copy(library("hostile"), &plugin).unwrap();
    let mut command = small_run(f.path(), "out");
    command
        .args(["--set", "tasks.hh.watch=[{ name = \"H\", source = \"hostile.reward\", options = {} }]", "--plugin"])
        .arg(&plugin);
    let mut run = start(&mut command);
    wait_for(|| steps_done(&f.path().join("out"), "mo_odpo") >= 2);
    run.kill().unwrap();
    run.wait().unwrap();
    let plan = std::fs::read_to_string(f.path().join("out/plan.json")).unwrap();
    assert!(plan.contains("\"reward hostile.reward\"") && plan.contains("sha256"), "{plan}");
    let manifest = std::fs::read_to_string(f.path().join("out/manifest.json")).unwrap();
    assert!(manifest.contains("h.so"), "{manifest}");
    let bytes = std::fs::read(&plugin).unwrap();
    std::fs::write(&plugin, [&bytes[..], b"changed"].concat()).unwrap();
    let said = failure(motrain(f.path()).args(["--resume", "out"]));
    assert!(said.contains("this run used a plugin that is no longer the same"), "{said}");
    std::fs::write(&plugin, bytes).unwrap();
    success(motrain(f.path()).args(["--resume", "out"]));
}

#[test]
fn a_plugin_of_version_1_0_still_loads() {
    let f = folder();
    let fixtures = root().join("tests/fixtures/version-1.0");
    let path = compile(&fixtures.join("plugin.c"), &fixtures, &f.path().join("old.so"), &[]);
    insta::assert_snapshot!(success(motrain(f.path()).args(["plugin", "check"]).arg(path)));
}

/// A loss that asks for them is given the log-probs under other weights, and its derivatives by them are trained on.
#[test]
fn a_loss_in_c_reads_log_probs_under_other_weights() {
    let f = folder();
    let source = root().join("tests/fixtures/contrast.c");
    let path = compile(
        &source,
        &root().join("plugins/abi/include"),
        &f.path().join("contrast.so"),
        &["-Wall", "-Wextra", "-Werror"],
    );
    insta::assert_snapshot!(success(motrain(f.path()).args(["plugin", "check"]).arg(&path)));
    let run = |out: &str, sampler: &str| {
        let set = ["--set", "tasks.hh.loss={ name = \"test.contrast\", options = {} }", "--set", sampler, "--plugin"];
        success(small(f.path(), "baselines/mo_odpo.rhai", out).args(set).arg(&path));
        let told = std::fs::read_to_string(f.path().join(out).join("metrics.jsonl")).unwrap();
        let steps = told
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
            .filter(|m| m["stage"] == "mo_odpo");
        steps.filter_map(|m| m["contrast/margins"].as_f64()).collect::<Vec<f64>>()
    };
    let margins = run("sampled", "tasks.hh.optimizer.lr=3e-3");
    // Steps are of 8 prompts, so that one alone may be below the first.
    let last = &margins[3..];
    assert!(margins.len() == 6 && last.iter().sum::<f64>() / 3.0 > margins[0] + 0.1, "{margins:?}");
    // Where all prompts have the same weights there are no others.
    let fixed = run("fixed", "tasks.hh.sampler={ name = \"fixed\", options = { weights = [0.5, 0.5] } }");
    assert!(fixed.is_empty(), "{fixed:?}");
}

#[test]
fn first_party_plugins_pass_their_check_and_train() {
    let f = folder();
    let plugins = f.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    for name in ["conditioner_words", "loss_robust", "reward_readability", "reward_toxicity", "sampler_hypervolume"] {
        let from = library(name);
        std::fs::copy(&from, plugins.join(from.file_name().unwrap())).unwrap();
        success(motrain(f.path()).args(["plugin", "check"]).arg(from));
    }
    let c = root().join("plugins/reward-repetition/repetition.c");
    let c = compile(
        &c,
        &root().join("plugins/abi/include"),
        &plugins.join("librepetition.so"),
        &["-Wall", "-Wextra", "-Werror"],
    );
    success(motrain(f.path()).args(["plugin", "check"]).arg(c));
    let mut run = small(f.path(), "experiments/plugins.rhai", "out");
    run.args(["--set", "tasks.hh.feedback_every=2", "--plugin"]).arg(&plugins);
    success(&mut run);
    let metrics = std::fs::read_to_string(f.path().join("out/metrics.jsonl")).unwrap();
    for name in ["toxicity-free", "readability", "distinct bigrams"] {
        assert!(metrics.contains(&format!("watch/{name}/mean")), "{name}");
    }
    let completions = std::fs::read_to_string(f.path().join("out/completions.jsonl")).unwrap();
    assert!(completions.contains("The answer should be "), "{completions}");
    let timings = std::fs::read_to_string(f.path().join("out/timings.jsonl")).unwrap();
    assert!(timings.contains("feedback_seconds"), "{timings}");
}

#[test]
fn list_shows_loaded_components_and_their_options() {
    let f = folder();
    let said = success(motrain(f.path()).args(["list", "loss", "--plugin"]).arg(library("loss_robust")));
    insta::assert_snapshot!(said);
    write(f.path(), "s.rhai", "loss(\"motrain.cdpo\", #{ nose: 0.1 });\n");
    let said = failure(motrain(f.path()).args(["check", "s.rhai", "--plugin"]).arg(library("loss_robust")));
    insta::assert_snapshot!("plugin_option", said);
    write(f.path(), "s.rhai", "loss(\"motrain.cdpo\", #{ noise: 0.7 });\n");
    let said = failure(motrain(f.path()).args(["check", "s.rhai", "--plugin"]).arg(library("loss_robust")));
    insta::assert_snapshot!("plugin_value", said);
}

#[test]
fn the_template_builds_outside_the_workspace_and_trains() {
    let f = folder();
    let copy = f.path().join("my-reward");
    std::fs::create_dir_all(copy.join("src")).unwrap();
    let template = root().join("plugins/template");
    for file in ["Cargo.toml", "src/lib.rs", "about.rhai"] {
        std::fs::copy(template.join(file), copy.join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(copy.join("Cargo.toml")).unwrap();
    let sdk = root().join("plugins/sdk").display().to_string();
    std::fs::write(copy.join("Cargo.toml"), manifest.replace("../sdk", &sdk)).unwrap();
    // The workspace's pinned versions, already on this machine.
    std::fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();
    let mut build = std::process::Command::new("cargo");
    build
        .args(["build", "--quiet"])
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env_remove("LIBTORCH");
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let built = copy.join("target/debug").join(library("my_reward").file_name().unwrap());
    success(motrain(&copy).args(["plugin", "check"]).arg(&built));
    let mut run = small(&copy, "about.rhai", "out");
    run.arg("--plugin").arg(&built);
    let table = success(&mut run);
    assert!(table.contains("About"), "{table}");
}

#[test]
fn only_thread_safe_instances_are_called_by_several_threads_at_once() {
    use motrain_core::reward::Sample;
    use motrain_core::{Prompt, Registry};
    use motrain_host::{Request, load};
    let f = folder();
    let mut registry = Registry::builtin();
    let most = |name: &str, flags: &[&str], registry: &mut Registry| {
        let define = format!("-DNAME=\"{name}\"");
        let flags = [&[define.as_str()], flags].concat();
        let include = root().join("plugins/abi/include");
        let path =
            compile(&root().join("tests/fixtures/overlap.c"), &include, &f.path().join(format!("{name}.so")), &flags);
        load(registry, &Request { path, ..Request::default() }, 0).unwrap();
        let reward = registry.rewards.build(name, &serde_json::Value::Null).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| reward.score(&[]).unwrap());
            }
        });
        let (prompt, row) = (Prompt::user("p"), serde_json::Value::Null);
        reward.score(&[Sample { prompt: &prompt, completion: "c", finished: true, row: &row }]).unwrap()[0]
    };
    assert_eq!(most("alone", &[], &mut registry), 1.0);
    assert!(most("together", &["-DTHREAD_SAFE"], &mut registry) > 1.0);
}

#[test]
fn a_script_trains_with_a_plugin_that_it_loads_and_a_folder_of_the_configuration_does_too() {
    let f = folder();
    let lib = f.path().join("lib");
    std::fs::create_dir(&lib).unwrap();
    for name in ["loss_robust", "reward_readability"] {
        let from = library(name);
        std::fs::copy(&from, lib.join(from.file_name().unwrap())).unwrap();
    }
    let file = |name: &str| format!("lib/{}", library(name).file_name().unwrap().to_string_lossy());
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\n\
         let readable = reward(\"Readable\", plugin(\"{}\", \"motrain.readability\"), #{{ watch: true }});\n\
         let scored = rewards(\"rewards\", #{{ sources: steer::sources(task) + [readable], policy: path(task.policy),\n\
         prompts: steer::prompt_data(task, \"train\"), samples: task.fit_samples, generate: task.generate }});\n\
         online_preference(\"mo_odpo\", #{{ policy: path(task.policy), prompts: steer::prompt_data(task, \"train\"), rewards: scored,\n\
         sampler: task.sampler, conditioner: task.conditioner, label: task.label,\n\
         loss: plugin(\"{}\", \"motrain.cdpo\", #{{ noise: 0.2 }}), generate: task.generate, train: task.train }});\n",
        file("reward_readability"),
        file("loss_robust")
    );
    write(f.path(), "own.rhai", &script);
    success(&mut small(f.path(), "own.rhai", "out"));
    let metrics = std::fs::read_to_string(f.path().join("out/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"watch/Readable/mean\""), "{metrics}");
    let mut run = small_run(f.path(), "configured");
    run.args(["--set", "plugins.load=[\"lib\"]", "--set", "tasks.hh.loss={ name = \"motrain.rdpo\" }"]);
    success(&mut run);
}
