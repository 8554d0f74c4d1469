//! Standard output: results and nothing else, whoever reads them.

use motrain_tests::{motrain, small_run, start, text};
use std::fs::File;
use std::process::Stdio;

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let f = tempfile::tempdir().unwrap();
    let mut list = motrain(f.path());
    let mut run = list.arg("list").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(run.stdout.take());
    let output = run.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_log_that_nobody_reads_ends_no_work() {
    let f = tempfile::tempdir().unwrap();
    let mut run = start(&mut small_run(f.path(), "out"));
    drop(run.stderr.take());
    assert!(run.wait().unwrap().success());
    assert!(f.path().join("out/front.json").is_file());
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let f = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = motrain(f.path()).arg("list").stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr));
}
