//! `motrain --script`, `motrain --resume`: from a script, or from where a run stopped, to fronts.

use super::Profile;
use crate::config::ConfigArgs;
use crate::out::say;
use crate::{allowed, components, plans, report, signals};
use anyhow::{Context, Result, bail};
use motrain_core::registry::Registry;
use motrain_engine::folder::{self, RunFolder};
use motrain_engine::names;
use motrain_engine::plan::Plan;
use motrain_engine::run;
use motrain_host::keep_note;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Train {
    /// The experiment's script, looked up in the working directory, then in scripts/
    #[arg(long, required_unless_present = "resume")]
    script: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// The run folder [default: runs/ and the script's name]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with an interrupted run
    #[arg(long, conflicts_with_all = ["script", "out"])]
    resume: Option<PathBuf>,
    /// Check everything and say what would run, without running it
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON and stop
    #[arg(long)]
    print_plan: bool,
    #[command(flatten)]
    pub(super) profile: Profile,
}

impl Train {
    pub fn run(&self) -> Result<()> {
        let (plan, registry, out) = match (&self.resume, &self.script) {
            (Some(folder), _) => {
                let plan = plans::saved(folder)?.read_in(&plans::here()?);
                if folder::is_of_an_earlier_motrain(folder) {
                    bail!(
                        "{} was made by an earlier motrain, whose stages this one cannot go on with; go on with that one, or do the \
                         run anew with --script and --out (what is there is kept)",
                        folder.display()
                    );
                }
                let registry = components::from_plan(&plan, &self.config)?;
                plan.check(&registry)
                    .with_context(|| format!("the plan of {} does not hold together", folder.display()))?;
                (plan, registry, folder.clone())
            }
            (None, Some(script)) => {
                let (plan, registry) = plans::make(script, &self.config)?;
                let out = self.out.clone().unwrap_or_else(|| Path::new("runs").join(&plan.name));
                (plan, registry, out)
            }
            (None, None) => bail!("give --script or --resume"),
        };
        if self.print_plan {
            say!("{}", serde_json::to_string_pretty(&plan)?);
            return Ok(());
        }
        if self.resume.is_none() {
            plans::check_inputs(&plan)?;
            plans::check_models(&plan)?;
        }
        if self.dry_run {
            for stage in &plan.stages {
                let needs = stage.needs().join(", ");
                say!("{:<20} {}", stage.id, if needs.is_empty() { String::new() } else { format!("after {needs}") });
            }
            say!("would run in {}", out.display());
            return Ok(());
        }
        allowed::remember(&plan.plugins);
        run_and_report(&plan, &registry, &RunFolder::open(&out)?)?;
        say!("run:    {}", out.display());
        Ok(())
    }

    pub fn computes(&self) -> bool {
        !self.dry_run && !self.print_plan
    }
}

/// Runs a plan, and writes and prints what came of it.
pub fn run_and_report(plan: &Plan, registry: &Registry, folder: &RunFolder) -> Result<()> {
    signals::listen()?;
    let _note = plugin_note(plan, folder.root());
    for front in run::run(plan, registry, folder)? {
        report::write(folder, plan, &front)?;
        if let Some(rewards) = &front.of {
            say!("\n{rewards}:");
        }
        say!("{}", report::table(&front.fronts));
        say!("report: {}", folder.root().join(front.file(names::REPORT, "html")).display());
    }
    Ok(())
}

/// While the run uses plugins, a note in its folder names the call that is under way: a process that is killed cannot say it any more.
fn plugin_note(plan: &Plan, run: &Path) -> Option<impl Drop> {
    let file = run.join(names::PLUGIN_CALL);
    let (note, left) = (!plan.plugins.is_empty()).then(|| keep_note(&file))?;
    if let Some(calls) = left {
        tracing::warn!(
            "the last run here ended within {calls}; if nobody stopped it, mend that plugin (`motrain plugin check` tries it alone). It goes \
             on from its last checkpoint"
        );
    }
    Some(note)
}
