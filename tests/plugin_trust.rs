//! Whose word loads a library: the user's, never that of a run folder.

use motrain_core::rng::sha256_hex;
use motrain_tests::{
    copy_model, failure, fixture, library, motrain, reused, root, small_run, start, steps_done, success, text, told,
    wait_for, write,
};
use serde_json::json;
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A run folder from elsewhere: a policy, and a plan that names a library in it, which says so when it is loaded.
fn foreign_run(folder: &Path) {
    let run = folder.join("shared");
    copy_model(&root().join("assets/hh/policy_small"), &run.join("policy"));
    let steering = json!({ "objectives": ["A", "B"], "conditioner": { "name": "weight_prefix", "options": {} } });
    write(folder, "shared/policy/steering.json", &steering.to_string());
    let bytes = std::fs::read(fixture(&run, "deadly.c", "data.bin", &["-DAT=1", "-DLOAD_SAYS"])).unwrap();
    let source = "plugin(\"shared/data.bin\", \"deadly.reward\");\nrewards(\"r\", #{ sources: [reward(\"L\", \"length\")], policy: path(\"assets/hh/policy\"), prompts: #{ paths: [path(\"assets/hh/prompts.jsonl\")] } });\n";
    let plan = |plugins: serde_json::Value, script: serde_json::Value| json!({ "name": "x", "seed": 0, "device": "cpu", "dtype": "auto", "plugins": plugins, "script": script, "stages": [] });
    let plugin = json!([{ "path": "shared/data.bin", "sha256": sha256_hex(&bytes), "components": [] }]);
    write(folder, "shared/plan.json", &plan(plugin, json!(null)).to_string());
    // The same by way of a script, whose configuration allows every folder.
    let config = json!({ "seed": 0, "device": "cpu", "dtype": "auto", "plugins": { "roots": ["/"] } });
    let script = json!({ "path": "s.rhai", "source": source, "modules": {}, "config": config });
    write(folder, "scripted/plan.json", &plan(json!([]), script).to_string());
}

#[test]
fn a_run_folder_of_somebody_else_loads_nothing() {
    let f = folder();
    foreign_run(f.path());
    let hidden = |text: String| {
        assert!(!text.contains("INITIALISER RAN"), "{text}");
        let from = text.find("(SHA-256 ").unwrap_or_else(|| panic!("{text}"));
        text.replace(&text[from + 9..from + 73], "[hash]")
    };
    let generate = ["generate", "shared", "--prompt", "hi", "--weights", "0.5,0.5", "--max-new-tokens", "2"];
    let mut said = vec![hidden(failure(motrain(f.path()).args(generate)))];
    said.push(hidden(failure(motrain(f.path()).args(["--resume", "shared"]))));
    said.push(hidden(failure(motrain(f.path()).args(["--resume", "scripted"]))));
    insta::assert_snapshot!(said.join("\n"));
    // The user's own folder, or the library's name, allows it.
    for allow in [["--set", "plugins.roots=[\"shared\"]"], ["--plugin", "shared/data.bin"]] {
        let output = motrain(f.path()).args(generate).args(allow).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("INITIALISER RAN"), "{said}");
    }
}

#[test]
fn what_the_user_ran_is_loaded_again_and_what_moved_is_found_by_its_hash() {
    let f = folder();
    let plugin = f.path().join("h.so");
    std::fs::copy(library("hostile"), &plugin).unwrap();
    let watch = "tasks.hh.watch=[{ name = \"H\", source = \"hostile.reward\", options = {} }]";
    success(small_run(f.path(), "out").args(["--set", watch, "--plugin", "h.so"]));
    success(motrain(f.path()).args(["--resume", "out"]));
    // Another user, or another machine.
    let resumed = || {
        let mut command = motrain(f.path());
        command.args(["--resume", "out"]).env("MOTRAIN_CACHE", f.path().join("other"));
        command
    };
    let said = failure(&mut resumed());
    assert!(said.contains("nothing of yours allows it") && said.contains("--plugin "), "{said}");
    std::fs::create_dir(f.path().join("moved")).unwrap();
    std::fs::rename(&plugin, f.path().join("moved/other-name.so")).unwrap();
    success(resumed().args(["--plugin", "moved"]));
    let front = ["evaluate", "out", "--out", "again", "--limit", "2", "--step", "0.5"];
    success(motrain(f.path()).args(front).args(["--plugin", "moved/other-name.so"]));
}

#[test]
fn a_setting_of_the_wrong_type_is_no_missing_restriction() {
    let f = folder();
    let said: Vec<String> = [
        "plugins.roots=\"lib\"",
        "plugins.roots=[5]",
        "plugins.load=\"h.so\"",
        "plugins.load=[5]",
        "plugins.load=[{ path = \"h.so\", sha256 = 5 }]",
        "plugins.call_seconds=\"long\"",
        "plugins.call_seconds=-1.0",
        "plugins.call_seconds=1e300",
    ]
    .iter()
    .map(|set| failure(motrain(f.path()).args(["list", "--set", set])))
    .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn the_time_limit_of_a_call_is_kept_after_a_resume() {
    let f = folder();
    let slow = "tasks.hh.watch=[{ name = \"H\", source = \"hostile.reward\", options = { bug = \"slow\" } }]";
    let mut run = small_run(f.path(), "out");
    run.args(["--set", slow, "--set", "plugins.call_seconds=0.25", "--plugin"]).arg(library("hostile"));
    let mut child = start(&mut run);
    wait_for(|| steps_done(&f.path().join("out"), "mo_odpo") >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = motrain(f.path()).args(["--resume", "out"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("in score (plugins.call_seconds = 0.25)"), "{said}");
}

#[test]
fn the_bytes_that_are_pinned_are_the_bytes_that_are_loaded() {
    let f = folder();
    let good = fixture(f.path(), "deadly.c", "p.so", &["-DAT=1"]);
    let evil = fixture(f.path(), "deadly.c", "evil.so", &["-DAT=1", "-DLOAD_SAYS"]);
    // Large enough that it is still being read when the other one takes its place.
    std::fs::File::options().append(true).open(&good).unwrap().set_len(200 << 20).unwrap();
    let pin = sha256_hex(&std::fs::read(&good).unwrap());
    let mut list = motrain(f.path());
    list.args(["list", "reward", "--set", &format!("plugins.load=[{{ path = \"p.so\", sha256 = \"{pin}\" }}]")]);
    let child = start(&mut list);
    let (open, target) = (format!("/proc/{}/fd", child.id()), good.canonicalize().unwrap());
    wait_for(|| {
        let links = std::fs::read_dir(&open).into_iter().flatten().flatten();
        links.filter_map(|l| std::fs::read_link(l.path()).ok()).any(|to| to == target)
    });
    std::fs::rename(&evil, &good).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success() && !said.contains("INITIALISER RAN"), "{said}");
}

#[test]
fn a_library_beside_a_plugin_is_as_much_its_code() {
    let f = folder();
    let (dep, plugin) = (f.path().join("libdep.so"), f.path().join("slow.so"));
    let build_dep = |body: &str| {
        let source = write(f.path(), "dep.c", &format!("int dep(void) {{ return {body}; }}\n"));
        success(std::process::Command::new("cc").args(["-shared", "-fPIC"]).arg(source).arg("-o").arg(&dep));
    };
    build_dep("1");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-I"])
        .arg(root().join("plugins/abi/include"))
        .arg(root().join("tests/fixtures/slow.c"));
    cc.args(["-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", "-L"]).arg(f.path()).args(["-ldep", "-o"]).arg(&plugin);
    success(&mut cc);
    let script = "rewards(\"r\", #{ sources: [reward(\"P\", plugin(\"slow.so\", \"slow.length\"))], policy: path(\"assets/hh/policy\"), \
                  prompts: #{ paths: [path(\"assets/hh/prompts.jsonl\")] }, samples: 16, generate: #{ max_new_tokens: 8 } });\n";
    write(f.path(), "s.rhai", script);
    let run = |args: &[&str]| {
        let mut command = motrain(f.path());
        command.args(args).env("SLOW_REWARD", "no");
        command
    };
    let start = ["--script", "s.rhai", "--out", "out"];
    success(&mut run(&start));
    assert_eq!(reused(&told(&mut run(&start))), 1);
    build_dep("2");
    let said = failure(&mut run(&["--resume", "out"]));
    assert!(said.contains("no longer those of the run (libdep.so)"), "{said}");
    assert_eq!(reused(&told(&mut run(&start))), 0, "the stage was reused");
    build_dep("1");
    assert_eq!(reused(&told(&mut run(&start))), 1);
}
