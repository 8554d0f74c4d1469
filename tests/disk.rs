//! Disks that are full, cannot be written, or stop in the middle: what was saved stays, and a run goes on from it.

use motrain_tests::{failure, motrain, result, reused, root, small_run, text, told};
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A limit on the size of files stands in for a full disk, each time at another place.
#[test]
fn a_disk_full_at_any_place_costs_nothing_that_was_saved() {
    let f = folder();
    told(&mut small_run(f.path(), "straight"));
    let binary = motrain(f.path()).get_program().to_owned();
    let arguments: Vec<String> =
        small_run(f.path(), "out").get_args().map(|a| format!("'{}'", a.to_string_lossy())).collect();
    for blocks in [1, 3, 8, 30, 1000] {
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; '{}' {}", binary.to_string_lossy(), arguments.join(" "));
        let mut command = Command::new("bash");
        command.args(["-c", &line]).current_dir(f.path()).env("MOTRAIN_HOME", root()).env("OMP_NUM_THREADS", "1");
        let message = failure(&mut command);
        assert!(message.contains("File too large"), "{blocks}: {message}");
    }
    told(&mut small_run(f.path(), "out"));
    assert_eq!(result(&f.path().join("out")), result(&f.path().join("straight")));
}

/// Needs root, for a file system of its own: its image is copied while the run has just ended, as a power cut would leave the disk.
#[test]
fn a_power_cut_after_the_end_loses_nothing() {
    let f = folder();
    let shell = |line: &str| Command::new("bash").args(["-ec", line]).current_dir(f.path()).output().unwrap();
    let mounted = shell("truncate -s 100M disk; mkfs.ext4 -qF disk; mkdir live cut; mount -o loop disk live");
    if !mounted.status.success() {
        eprintln!("left out: no file system can be mounted here: {}", text(&mounted.stderr));
        return;
    }
    let ran = small_run(f.path(), "live/run").output().unwrap();
    let cut = shell(
        "cp --sparse=always disk image; cp -r live/run straight; umount live; mount -o loop image cut; cp -r cut/run run; umount cut",
    );
    assert!(ran.status.success() && cut.status.success(), "{}{}", text(&ran.stderr), text(&cut.stderr));
    let said = told(motrain(f.path()).args(["--resume", "run"]));
    assert_eq!(said.matches("finished before, reused").count(), 4, "{said}");
    assert_eq!(result(&f.path().join("run")), result(&f.path().join("straight")));
}

#[test]
fn a_read_only_run_is_evaluated_elsewhere_and_left_as_it_is() {
    let f = folder();
    told(&mut small_run(f.path(), "run"));
    let shell = |line: &str| Command::new("bash").args(["-ec", line]).current_dir(f.path()).output().unwrap();
    // Root writes wherever a file system lets it.
    let closed = shell(
        "if [ $(id -u) = 0 ]; then mount --bind run run; mount -o remount,ro,bind run; else chmod -R a-w run; fi",
    );
    if !closed.status.success() {
        eprintln!("left out: root may not mount here: {}", text(&closed.stderr));
        return;
    }
    let resumed = motrain(f.path()).args(["--resume", "run"]).output().unwrap();
    let evaluated =
        motrain(f.path()).args(["evaluate", "run", "--step", "0.5", "--limit", "2", "--out", "more"]).output().unwrap();
    shell("if [ $(id -u) = 0 ]; then umount run; else chmod -R u+w run; fi");
    let message = text(&resumed.stderr);
    assert!(
        message.contains("run: nothing can be written here") && message.contains("motrain evaluate run --out"),
        "{message}"
    );
    let said = text(&evaluated.stderr);
    assert!(evaluated.status.success() && reused(&said) == 1, "{said}");
    assert!(f.path().join("more/front.json").is_file());
}
