//! `motrain plugin check`: each component is tried in a process of its own, so that one that crashes, exits or hangs is a outcome and not
//! the end of the check.

use crate::locate;
use crate::out::say;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use motrain_host::check::{Heard, Outcome, check};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Look into plugins
#[derive(clap::Args)]
pub struct Plugin {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Subcommand)]
enum PluginCommand {
    /// Try every component of a plugin with ordinary and hostile input, in a process of its own
    Check {
        library: PathBuf,
        /// Only this component
        #[arg(long)]
        component: Option<String>,
        /// Its options, as JSON
        #[arg(long, default_value = "{}")]
        options: String,
        /// Seconds that one trial may take
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// The process that `check` tries a component in, or lists them
    #[command(hide = true)]
    Trial {
        library: PathBuf,
        /// What happened, as JSON lines
        #[arg(long)]
        report: PathBuf,
        #[arg(long)]
        component: Option<String>,
        #[arg(long, default_value = "{}")]
        options: String,
    },
}

impl Plugin {
    pub fn run(self) -> Result<()> {
        match self.command {
            PluginCommand::Check { library, component, options, seconds } => {
                let seconds = Duration::try_from_secs_f64(seconds).with_context(|| format!("--seconds {seconds}"))?;
                check_all(&locate::find(&library)?, component.as_deref(), &options, seconds)
            }
            PluginCommand::Trial { library, report, component, options } => {
                trial(&library, &report, component.as_deref(), &options)
            }
        }
    }

    pub fn is_trial(&self) -> bool {
        matches!(self.command, PluginCommand::Trial { .. })
    }
}

/// Prints a outcome per component; an error if one does not pass.
fn check_all(library: &Path, only: Option<&str>, options: &str, limit: Duration) -> Result<()> {
    serde_json::from_str::<Value>(options).with_context(|| format!("--options {options} is no JSON"))?;
    let listed = Trial::run(library, None, options, limit)?;
    if let Some(how) = &listed.died {
        bail!("{}: {how} while it was loaded", library.display());
    }
    let components = listed.heard.into_iter().filter_map(|heard| match heard {
        Heard::Component { owner, name, summary } => Some((owner, name, summary)),
        _ => None,
    });
    let components: Vec<_> = components.collect();
    let chosen: Vec<_> = components.iter().filter(|(_, name, _)| only.is_none_or(|only| only == name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = components.iter().map(|(_, name, _)| name.as_str()).collect();
        let (path, only) = (library.display(), only.unwrap_or_default());
        bail!("{path}: has no component \"{only}\"; it has {}", names.join(", "));
    }
    let mut bad = 0;
    for (owner, name, summary) in &chosen {
        let trial = Trial::run(library, Some(name), options, limit)?;
        let outcome = trial.outcome(owner, summary);
        say!("{outcome}");
        bad += usize::from(!outcome.passed());
    }
    if bad > 0 {
        bail!("{bad} of {} components did not pass", chosen.len());
    }
    Ok(())
}

/// A trial that is over.
struct Trial {
    heard: Vec<Heard>,
    printed: String,
    /// How it ended before its end.
    died: Option<String>,
}

impl Trial {
    fn run(library: &Path, component: Option<&str>, options: &str, limit: Duration) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for temporary files; set TMPDIR")?;
        let (report, printed) = (folder.path().join("report.jsonl"), folder.path().join("printed"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["plugin", "trial"]).arg(library).arg("--report").arg(&report).args(["--options", options]);
        if let Some(name) = component {
            command.args(["--component", name]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(File::create(&printed)?).spawn()?;
        let status = wait(&mut child, &report, limit)?;
        let heard = read_report(&report);
        let died = match (heard.last(), status) {
            (Some(Heard::Refused(why)), _) => bail!("{why}"),
            (Some(Heard::Done), Some(status)) if status.success() => None,
            (_, Some(status)) => Some(ending(status)),
            (_, None) => Some(format!("did not come back within {} s", limit.as_secs_f64())),
        };
        let printed = String::from_utf8_lossy(&std::fs::read(&printed)?).into_owned();
        Ok(Self { heard, printed, died })
    }

    fn outcome(self, owner: &str, summary: &str) -> Outcome {
        let mut outcome = Outcome { owner: owner.into(), summary: summary.into(), tried: Vec::new() };
        let mut under_way = None;
        for heard in self.heard {
            match heard {
                Heard::Trying(what) => under_way = Some(what),
                Heard::Tried(what, result) => {
                    under_way = None;
                    outcome.tried.push((what, result));
                }
                _ => {}
            }
        }
        if let Some(how) = self.died {
            let what = under_way.unwrap_or_else(|| "before or after its trials".into());
            outcome.tried.push((what, Err(how)));
        }
        if !self.printed.is_empty() {
            let shown: String = self.printed.trim_end().chars().take(60).collect();
            outcome.tried.push(("standard output".into(), Ok(format!("printed {shown:?}; it goes to standard error"))));
        }
        outcome
    }
}

/// How the process ended; `None` if a trial took longer than it may and had to be ended.
fn wait(child: &mut std::process::Child, report: &Path, limit: Duration) -> Result<Option<ExitStatus>> {
    let length = || report.metadata().map_or(0, |m| m.len());
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if length() != seen {
            (seen, moved) = (length(), Instant::now());
        }
        if moved.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A line that was cut by the process's end is no loss: the one before it says what was under way.
fn read_report(report: &Path) -> Vec<Heard> {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGSEGV), _) => "crashed (SIGSEGV, an invalid memory access)".into(),
        (Some(libc::SIGABRT), _) => "aborted (SIGABRT, as abort and uncaught exceptions raise)".into(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, code) => format!("ended the process (exit code {})", code.unwrap_or_default()),
    }
}

/// The other process. It writes no core file, and cannot take more memory than the machine has.
fn trial(library: &Path, report: &PathBuf, component: Option<&str>, options: &str) -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        let machine = rustix::system::sysinfo();
        let memory = u64::from(machine.mem_unit) * machine.totalram as u64;
        let _ = setrlimit(Resource::Data, Rlimit { current: Some(memory), maximum: Some(memory) });
    }
    let mut file = File::create(report)?;
    let mut failed = None;
    check(library, component, &serde_json::from_str(options)?, &mut |heard| {
        let line = serde_json::to_string(&heard).map_err(std::io::Error::from);
        failed = line.and_then(|line| file.write_all(format!("{line}\n").as_bytes())).err().or(failed.take());
    });
    failed.map_or(Ok(()), |e| Err(e).context("the report cannot be written"))
}
