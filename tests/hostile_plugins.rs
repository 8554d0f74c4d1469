//! Plugins that end the process, disturb it, or answer with what makes no sense: whoever did it is named, and nothing is lost.

use motrain_tests::{failure, fixture, motrain, small_run, steps_done, success, text, write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// What a run said, without its log, with the library's path shortened.
fn said(output: &Output, folder: &Path) -> String {
    let own = folder.canonicalize().unwrap().display().to_string();
    let stderr = text(&output.stderr).replace(&own, "[tmp]").replace(&folder.display().to_string(), "[tmp]");
    stderr.lines().filter(|l| !l.trim_start().starts_with("INFO")).collect::<Vec<_>>().join("\n")
}

/// A plan with nothing but a scale of this reward, fitted on 8 samples.
fn score_with(folder: &Path, library: &str, component: &str) -> Output {
    let script = format!(
        "rewards(\"r\", #{{ sources: [reward(\"P\", plugin(\"{library}\", \"{component}\"))], policy: path(\"assets/hh/policy\"),\n\
         prompts: #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }}, samples: 8, generate: #{{ max_new_tokens: 8 }} }});\n"
    );
    write(folder, "s.rhai", &script);
    motrain(folder).args(["--script", "s.rhai", "--out", "out"]).output().unwrap()
}

#[test]
fn a_reward_that_ends_the_process_is_named() {
    let mut all = Vec::new();
    for bug in [
        "SCORE_EXIT",
        "SCORE_RAW_EXIT",
        "SCORE_QUICK_EXIT",
        "SCORE_THREAD_EXIT",
        "SCORE_ABORT",
        "SCORE_CRASH",
        "SCORE_TRAP",
    ] {
        let f = folder();
        fixture(f.path(), "deadly.c", "d.so", &["-DAT=1", &format!("-D{bug}")]);
        let output = score_with(f.path(), "d.so", "deadly.reward");
        let status = output.status;
        all.push(format!("{bug}: {:?}, signal {:?}\n{}", status.code(), status.signal(), said(&output, f.path())));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn an_exception_of_cpp_names_its_component() {
    let f = folder();
    fixture(f.path(), "throws.cpp", "t.so", &[]);
    let output = score_with(f.path(), "t.so", "throws.reward");
    assert_eq!(output.status.signal(), Some(6));
    let said = said(&output, f.path());
    assert!(said.contains("motrain was ended by SIGABRT, as abort and uncaught exceptions raise, in score of reward \"throws.reward\" of [tmp]/t.so (call 1)"), "{said}");
}

#[test]
fn check_tries_a_library_in_a_process_of_its_own() {
    let mut all = Vec::new();
    for bug in [
        "SCORE_EXIT",
        "SCORE_RAW_EXIT",
        "SCORE_ABORT",
        "SCORE_CRASH",
        "SCORE_STACK",
        "SCORE_KILL",
        "SCORE_BEYOND",
        "SCORE_BEFORE",
        "SCORE_PRINT",
        "CREATE_HANG",
        "ESCAPES",
        "LOAD_EXIT",
        "LOAD_ABORT",
        "ENTRY_CRASH",
    ] {
        let f = folder();
        fixture(f.path(), "deadly.c", "d.so", &["-DAT=2", &format!("-D{bug}")]);
        // Long enough for a busy machine to start the process.
        let seconds = if bug == "CREATE_HANG" { "8" } else { "60" };
        let output = motrain(f.path()).args(["plugin", "check", "d.so", "--seconds", seconds]).output().unwrap();
        let stderr = text(&output.stderr);
        let error = stderr.lines().find(|l| l.starts_with("error: ") && !l.contains("motrain was")).unwrap_or_default();
        all.push(format!("{bug}: {:?}\n{}{error}", output.status.code(), text(&output.stdout)));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn results_that_make_no_sense_are_errors() {
    let loss = ["LOSS_NAN", "LOSS_INFINITE", "LOSS_HUGE", "LOSS_BEYOND", "BETA_NAN"].map(|bug| (bug, "wild.loss"));
    let turns = ["TURN_LATE", "TURN_NULL", "TURN_ROLE", "TURN_LONG", "TURN_MANY"].map(|bug| (bug, "wild.conditioner"));
    let f = folder();
    let mut all = Vec::new();
    for (bug, component) in loss.into_iter().chain(turns) {
        fixture(f.path(), "wild.c", &format!("{bug}.so"), &[&format!("-D{bug}")]);
        let output = motrain(f.path())
            .args(["plugin", "check", &format!("{bug}.so"), "--component", component])
            .output()
            .unwrap();
        let stdout = text(&output.stdout);
        let failed: Vec<&str> = stdout.lines().filter(|l| l.starts_with("  FAILED")).take(1).collect();
        all.push(format!("{bug}: {:?}\n{}", output.status.code(), failed.join("\n")));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_a_library_prints_is_no_result() {
    let f = folder();
    fixture(f.path(), "deadly.c", "d.so", &["-DAT=1", "-DLOAD_PRINT", "-DSCORE_PRINT"]);
    let output = score_with(f.path(), "d.so", "deadly.reward");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "run:    out\n");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("helper library 3.1 ready\n") && stderr.contains("scoring\n"), "{stderr}");
}

#[test]
fn what_a_library_changes_in_the_process_is_set_back() {
    let f = folder();
    fixture(f.path(), "deadly.c", "d.so", &["-DAT=1", "-DLOAD_CHANGES"]);
    let output = score_with(f.path(), "d.so", "deadly.reward");
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(said(&output, f.path()));
    let scales = f.path().join("out/stages/r/stage.json");
    assert!(!std::fs::metadata(scales).unwrap().permissions().readonly());
}

#[test]
fn a_fork_and_closed_streams_do_no_harm() {
    for bug in ["SCORE_FORK", "SCORE_CLOSE"] {
        let f = folder();
        fixture(f.path(), "deadly.c", "d.so", &["-DAT=1", &format!("-D{bug}")]);
        let output = score_with(f.path(), "d.so", "deadly.reward");
        assert!(output.status.success(), "{bug}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "run:    out\n", "{bug}");
        let copy = said(&output, f.path());
        assert_eq!(copy.contains("forked; the copy ends here, in score of reward"), bug == "SCORE_FORK", "{copy}");
    }
}

#[test]
fn a_run_that_was_killed_within_a_call_says_so_and_goes_on() {
    let f = folder();
    fixture(f.path(), "deadly.c", "d.so", &["-DAT=15", "-DSCORE_KILL"]);
    let mut run = small_run(f.path(), "out");
    let watch = "tasks.hh.watch=[{ name = \"D\", source = \"deadly.reward\", options = {} }]";
    let output = run.args(["--set", watch, "--plugin", "d.so"]).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", text(&output.stderr));
    let out = f.path().join("out");
    assert!(steps_done(&out, "mo_odpo") >= 2);
    let note = std::fs::read_to_string(out.join("plugin-call.txt")).unwrap();
    let library = f.path().canonicalize().unwrap().join("d.so");
    assert_eq!(note.trim(), format!("score of reward \"deadly.reward\" of {}", library.display()));
    // Each process counts its calls anew, and fewer are left for it.
    let mut last = output;
    for _ in 0..3 {
        last = motrain(f.path()).args(["--resume", "out"]).output().unwrap();
        let said = text(&last.stderr);
        assert!(said.contains("the last run here ended within score of reward \"deadly.reward\" of "), "{said}");
        if last.status.success() {
            break;
        }
    }
    assert!(last.status.success(), "{}", text(&last.stderr));
    assert!(!out.join("plugin-call.txt").exists());
}

#[test]
fn a_library_that_cannot_be_bound_or_has_no_entry_is_refused() {
    let f = folder();
    let mut all = Vec::new();
    for bug in
        ["MISSING", "ENTRY_DATA", "ENTRY_HIDDEN", "ENTRY_ELSEWHERE", "ENTRY_WEAK", "MANY", "LONG_NAME", "NAME_ESCAPES"]
    {
        fixture(f.path(), "deadly.c", "d.so", &["-DAT=1", &format!("-D{bug}")]);
        all.push(format!("{bug}\n{}", failure(motrain(f.path()).args(["list", "--plugin", "d.so"]))));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn files_of_other_kinds_are_told_apart() {
    let f = folder();
    let good = std::fs::read(fixture(f.path(), "deadly.c", "good.so", &["-DAT=1"])).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(f.path().join(name), bytes).unwrap();
    put("empty.so", b"");
    put("half.so", &good[..good.len() / 2]);
    let mut other = good.clone();
    other[18..20].copy_from_slice(&183u16.to_le_bytes());
    put("aarch64.so", &other);
    put("archive.so", &[&b"!<arch>\n"[..], &[b' '; 60]].concat());
    std::fs::copy(std::env::current_exe().unwrap(), f.path().join("program.so")).unwrap();
    let said: Vec<String> = ["empty.so", "half.so", "aarch64.so", "archive.so", "program.so"]
        .iter()
        .map(|name| failure(motrain(f.path()).args(["list", "--plugin", name])))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
    let gone = fixture(f.path(), "deadly.c", "libgone.so", &["-DAT=1"]);
    let link = ["-DAT=1", "-DMISSING", "-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all", "-L.", "-lgone"];
    let beside = format!("-L{}", f.path().display());
    fixture(f.path(), "deadly.c", "needs.so", &[&link[..], &[&beside]].concat());
    std::fs::remove_file(gone).unwrap();
    insta::assert_snapshot!("needs", failure(motrain(f.path()).args(["list", "--plugin", "needs.so"])));
}

#[test]
fn a_library_finds_what_lies_beside_it() {
    let f = folder();
    let at = |name: &str| f.path().join(name);
    for folder in ["app/plugins", "app/lib"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    write(f.path(), "beside.c", "int beside(void) { return 20; }\n");
    write(f.path(), "above.c", "int above(void) { return 22; }\n");
    let shared = |source: &str, to: &str| {
        let mut cc = std::process::Command::new("cc");
        success(cc.args(["-shared", "-fPIC"]).arg(at(source)).arg("-o").arg(at(to)));
    };
    shared("beside.c", "app/plugins/libbeside.so");
    shared("above.c", "app/lib/libabove.so");
    let own = std::fs::read_to_string(motrain_tests::root().join("tests/fixtures/deadly.c")).unwrap();
    let calls = "int beside(void), above(void);\n__attribute__((constructor)) static void neighbours(void) { if (beside() + above() != 42) __builtin_trap(); }\n";
    write(f.path(), "own.c", &format!("{own}{calls}"));
    let folders = [format!("-L{}", at("app/plugins").display()), format!("-L{}", at("app/lib").display())];
    let flags = ["-DAT=1", &folders[0], &folders[1], "-Wl,-rpath,$ORIGIN:$ORIGIN/../lib", "-Wl,--no-as-needed"];
    let include = motrain_tests::root().join("plugins/abi/include");
    let to = at("app/plugins/own.so");
    // The libraries come after what needs them.
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-I"]).arg(include).args(flags).arg(at("own.c")).args(["-lbeside", "-labove", "-o"]);
    success(cc.arg(to));
    let said = success(motrain(f.path()).args(["list", "reward", "--plugin", "app/plugins/own.so"]));
    assert!(said.contains("deadly.reward"), "{said}");
}
