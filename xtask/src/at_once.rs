//! Runs of motrain side by side.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs named commands, `jobs` at a time on an equal share of the cores; their lines come out under their names. All end before the
/// first failure is returned: what runs beside a failed one is not lost.
pub fn at_once(commands: Vec<(String, Command)>, jobs: usize) -> Result<()> {
    // Ctrl-C reaches the children, which save and stop; this process waits for them.
    ctrlc::set_handler(|| {})?;
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
