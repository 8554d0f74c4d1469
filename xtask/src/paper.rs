//! `cargo xtask reproduce-paper`: trains what the paper's figures need, a run folder a seed, and draws them.

use crate::commands::release_binary;
use crate::libtorch;
use crate::models;
use crate::run::{checked, root};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Finished stages are reused, so an interrupted reproduction goes on where it was.
pub fn reproduce(scale: &str, seeds: u64, jobs: Option<usize>, only: &[String], out: Option<PathBuf>) -> Result<()> {
    libtorch::setup(false)?;
    let binary = release_binary()?;
    if scale == "smollm2" {
        models::fetch("smollm2", release_binary)?;
    }
    let out = out.unwrap_or_else(|| root().join("runs").join(format!("paper-{scale}")));
    let experiment = experiment(scale, only);
    let motrain = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir(root()).args(arguments).args(&experiment);
        command
    };
    // All that is missing is listed before anything is trained.
    checked(&mut motrain(&["check", "paper.rhai"]))
        .with_context(|| format!("what --scale {scale} needs is not there; see {}", configs(scale).join(" and ")))?;
    let seed_run = |seed: u64| {
        let mut command = motrain(&["--script", "paper.rhai"]);
        command.arg("--set").arg(format!("seed={seed}")).arg("--out").arg(run(&out, seed));
        command
    };
    match jobs.unwrap_or_else(|| usual_jobs(scale, seeds)) {
        1 => (0..seeds).try_for_each(|seed| {
            println!("seed {seed} ({} of {seeds})", seed + 1);
            checked(&mut seed_run(seed))
        })?,
        jobs => {
            // Ctrl-C reaches the children, which save and stop; this process waits for them.
            ctrlc::set_handler(|| {})?;
            at_once((0..seeds).map(|seed| (format!("seed {seed}"), seed_run(seed))).collect(), jobs)?;
        }
    }
    checked(Command::new(&binary).arg("paper").arg(&out))
}

/// A second thread makes models as small as the embedded ones 1.4 times as fast, a second process twice.
fn usual_jobs(scale: &str, seeds: u64) -> usize {
    if scale == "tiny" { seeds.clamp(1, 2 * cores() as u64) as usize } else { 1 }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs named commands, `jobs` at a time on an equal share of the cores; their lines come out under their names. All end before the
/// first failure is returned: what runs beside a failed one is not lost.
fn at_once(commands: Vec<(String, Command)>, jobs: usize) -> Result<()> {
    let threads = (cores() / jobs).max(1).to_string();
    let waiting = Mutex::new(commands.into_iter());
    let next = || waiting.lock().ok().and_then(|mut w| w.next());
    let work = || -> Result<()> {
        while let Some((name, mut command)) = next() {
            command.env("OMP_NUM_THREADS", &threads).env("MOTRAIN_LOG", "warn,motrain_engine::run=info");
            command.stderr(Stdio::piped()).stdout(Stdio::null());
            let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
            for line in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).lines()).map_while(Result::ok) {
                eprintln!("{name}: {line}");
            }
            let status = child.wait()?;
            if !status.success() {
                bail!("{name} ended with {status}; finished stages are kept, the same command goes on from them");
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })
}

fn run(out: &Path, seed: u64) -> PathBuf {
    out.join(format!("seed-{seed}"))
}

fn configs(scale: &str) -> Vec<String> {
    match scale {
        "tiny" => vec!["configs/paper-tiny.toml".into()],
        "smollm2" => vec!["configs/smollm2.toml".into(), "configs/paper-smollm2.toml".into()],
        _ => vec!["configs/paper.toml".into()],
    }
}

/// The layers of configuration as arguments.
fn experiment(scale: &str, only: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> = configs(scale).into_iter().flat_map(|c| ["--config".into(), c]).collect();
    if !only.is_empty() {
        arguments.extend(["--set".into(), format!("paper.only={only:?}")]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_told_and_the_rest_still_runs() {
        let done = std::env::temp_dir().join(format!("motrain-at-once-{}", std::process::id()));
        let shell = |script: String| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script);
            command
        };
        let commands = vec![
            ("seed 0".to_owned(), shell("echo broken >&2; exit 3".into())),
            ("seed 1".to_owned(), shell("true".into())),
            ("seed 2".to_owned(), shell(format!("echo $OMP_NUM_THREADS > {}", done.display()))),
        ];
        let error = at_once(commands, 2).unwrap_err().to_string();
        let threads: usize = std::fs::read_to_string(&done).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&done).unwrap();
        assert!(error.starts_with("seed 0 ended with exit status: 3"), "{error}");
        assert_eq!(threads, (cores() / 2).max(1));
    }
}
