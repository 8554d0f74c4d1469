//! `motrain evaluate`: a run's plan up to its rewards, and one evaluation with other prompts, policy or grid.

use super::Profile;
use super::train::run_and_report;
use crate::config::ConfigArgs;
use crate::{components, locate, plans};
use anyhow::{Context, Result, bail};
use motrain_core::durable;
use motrain_engine::folder::{self, Manifest, RunFolder, Status};
use motrain_engine::names;
use motrain_engine::plan::{ModelRef, Plan, Stage, objectives};
use motrain_engine::stage::{Ref, Work, evaluate};
use motrain_engine::steer::prompted::Prompted;
use motrain_engine::steer::{self, By};
use std::path::{Path, PathBuf};

/// Evaluate a policy over a weight grid with a run's rewards
#[derive(clap::Args)]
pub struct Evaluate {
    /// The run folder whose rewards, scales and prompts are used
    run: PathBuf,
    /// The policy [default: the run's own]
    #[arg(long)]
    policy: Option<PathBuf>,
    /// Prompts instead of the run's
    #[arg(long)]
    prompts: Option<PathBuf>,
    #[arg(long)]
    limit: Option<usize>,
    /// Distance between neighbouring weights
    #[arg(long)]
    step: Option<f64>,
    /// The method's name in the table
    #[arg(long, default_value = "policy")]
    name: String,
    /// Where front.json and the report go
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    plugins: ConfigArgs,
    #[command(flatten)]
    pub(super) profile: Profile,
}

impl Evaluate {
    pub fn run(&self) -> Result<()> {
        let mut plan = plans::saved(&self.run)?.read_in(&plans::here()?);
        let evaluation = self.evaluation(&plan)?;
        plan.directory = Some(plans::here()?.to_string_lossy().into_owned());
        let evaluation = Stage::new("evaluate", evaluation);
        let needed = plan.behind(&evaluation.needs());
        plan.stages.retain(|s| s.id != evaluation.id && needed.contains(&s.id));
        plan.stages.push(evaluation);
        let registry = components::from_plan(&plan, &self.plugins)?;
        plan.check(&registry)?;
        if self.out.canonicalize().is_ok_and(|out| self.run.canonicalize().is_ok_and(|own| own == out)) {
            bail!("--out {} is the run that is evaluated; name another folder", self.out.display());
        }
        let target = RunFolder::open(&self.out)?;
        bring_finished(&self.run, &target, &plan)?;
        run_and_report(&plan, &registry, &target)
    }

    /// The run's last evaluation, with what the user wants otherwise.
    fn evaluation(&self, plan: &Plan) -> Result<evaluate::Evaluate> {
        let last = plan.stages.iter().rev().find_map(|s| s.work.downcast_ref::<evaluate::Evaluate>().cloned());
        let mut evaluation = last.with_context(|| format!("{} has no evaluation to start from", self.run.display()))?;
        if let Some(path) = &self.policy {
            let path = locate::policy(path);
            if let Some((objectives, conditioner)) = steer::said_by(&path)? {
                follows_the_rewards(&path, &objectives, plan, &evaluation.rewards)?;
                evaluation.conditioner = conditioner;
            }
            evaluation.by = By::new(Prompted(ModelRef::Path(path.to_string_lossy().into_owned())));
        }
        for reference in evaluation.refs() {
            if let Ref::Model(model) = reference {
                *model = self.own(model);
            }
        }
        evaluation.name.clone_from(&self.name);
        if let Some(step) = self.step {
            if evaluation.by.meant()?.0.own_weights().is_some() {
                bail!(
                    "--step {step} is for policies that answer at any weights; these were trained for weights of their own"
                );
            }
            (evaluation.step, evaluation.weights) = (step, None);
        }
        evaluation.prompts.limit = self.limit.or(evaluation.prompts.limit);
        if let Some(path) = &self.prompts {
            evaluation.prompts.paths = vec![path.to_string_lossy().into_owned()];
            evaluation.prompts.part = Default::default();
        }
        Ok(evaluation)
    }

    /// What a stage of the run made, as a path.
    fn own(&self, model: &ModelRef) -> ModelRef {
        match model {
            ModelRef::Stage { stage, epoch } => {
                let folder = folder::stage(&self.run, stage).join(names::model(*epoch));
                ModelRef::Path(folder.to_string_lossy().into_owned())
            }
            path => path.clone(),
        }
    }
}

/// A policy is judged by the objectives that it follows.
fn follows_the_rewards(policy: &Path, follows: &[String], plan: &Plan, rewards: &str) -> Result<()> {
    let judged = objectives(&plan.stages, rewards).filter(|judged| judged != follows);
    judged.map_or(Ok(()), |judged| {
        let (judged, follows, policy) = (judged.join(", "), follows.join(", "), policy.display());
        bail!(
            "{policy} follows {follows}, and the run's rewards are {judged}; evaluate it by a run of its own objectives"
        )
    })
}

/// Brings what a run has finished into another run folder, weights by hard links where possible.
fn bring_finished(from: &Path, to: &RunFolder, plan: &Plan) -> Result<()> {
    if folder::is_of_an_earlier_motrain(from) {
        return Ok(());
    }
    let manifest = Manifest::read(from);
    if !to.root().join(names::MANIFEST).exists() {
        // What its inputs were: they may be gone.
        std::fs::copy(from.join(names::MANIFEST), to.root().join(names::MANIFEST))?;
    }
    for stage in &plan.stages {
        let Some(hash) = manifest.stages.get(&stage.id) else { continue };
        folder::check_id(&stage.id)?;
        let (source, target) = (folder::stage(from, &stage.id), to.stage(&stage.id, hash));
        if Status::of(&source).is_some_and(|s| s.is_done(hash)) && !target.exists() {
            let partial = durable::beside(&target, "partial");
            durable::remove(&partial)?;
            durable::copy_folder(&source, &partial)?;
            durable::publish(&partial, &target)?;
        }
    }
    Ok(())
}
