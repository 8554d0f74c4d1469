//! The paper's figures, tables and claims from finished runs of scripts/paper.rhai, one run folder a seed. Stages are found by their
//! ids: `<task>_<figure>_<method>`.

mod claims;
mod cost;
mod page;

use crate::out::say;
use crate::report::plot;
use anyhow::{Context, Result, bail};
use claims::Claim;
use motrain_core::durable;
use motrain_core::metrics::report::{Fronts, Method};
use motrain_core::metrics::stats::{mean, mean_interval};
use motrain_engine::folder;
use motrain_engine::names;
use motrain_engine::plan::Plan;
use motrain_engine::stage::Makes;
use motrain_engine::stage::compare::{Compare, Match};
use motrain_engine::stage::front;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A finished run.
pub struct Seed {
    pub seed: u64,
    pub run: PathBuf,
    pub plan: Plan,
    /// Objectives and method of every evaluation, by stage.
    pub methods: BTreeMap<String, (Vec<String>, Method)>,
    /// Comparisons by stage.
    pub matches: BTreeMap<String, Vec<Match>>,
}

/// The fronts of one task in one figure.
#[derive(Serialize)]
pub struct Panel {
    pub figure: String,
    pub task: String,
    /// Means over seeds; intervals over prompts for one seed, over seeds for several.
    pub fronts: Fronts,
    /// Stages of the methods, in the same order.
    pub stages: Vec<String>,
    #[serde(skip)]
    pub svg: String,
}

/// Writes paper.json, a picture a panel, and paper.html into `folder`, which holds a run folder for each seed.
pub fn run(folder: &Path) -> Result<()> {
    let seeds = seeds(folder)?;
    let panels = panels(&seeds)?;
    let claims = claims::all(&seeds);
    let costs = cost::all(&seeds[0])?;
    for panel in &panels {
        durable::write(&folder.join(format!("{}-{}.svg", panel.figure, panel.task)), &panel.svg)?;
    }
    let wins: BTreeMap<u64, &BTreeMap<String, Vec<Match>>> = seeds.iter().map(|s| (s.seed, &s.matches)).collect();
    let per_seed: BTreeMap<u64, BTreeMap<&String, &Method>> =
        seeds.iter().map(|s| (s.seed, s.methods.iter().map(|(id, (_, m))| (id, m)).collect())).collect();
    let all = json!({ "figures": panels, "claims": claims, "table1": costs, "win_rates": wins, "seeds": per_seed });
    durable::write(&folder.join("paper.json"), serde_json::to_string_pretty(&all)?)?;
    durable::write(&folder.join("paper.html"), page::page(&seeds, &panels, &claims, &costs)?)?;
    say!("{}", table(&claims));
    say!("report: {}", folder.join("paper.html").display());
    Ok(())
}

/// The seeds' runs in `folder`, of which all must have all evaluations of the first.
fn seeds(folder: &Path) -> Result<Vec<Seed>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut runs: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.join(names::PLAN).is_file()).collect();
    runs.sort();
    let mut seeds: Vec<Seed> = runs.iter().map(|run| read(run)).collect::<Result<_>>()?;
    seeds.sort_by_key(|s| s.seed);
    if seeds.is_empty() {
        bail!("{} holds no run; make one with `cargo xtask reproduce-paper`", folder.display());
    }
    Ok(seeds)
}

fn read(run: &Path) -> Result<Seed> {
    let text = std::fs::read_to_string(run.join(names::PLAN))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{}/plan.json is damaged", run.display()))?;
    let unfinished = || format!("{} is not finished; run it again, finished stages are kept", run.display());
    let (mut methods, mut matches) = (BTreeMap::new(), BTreeMap::new());
    for stage in &plan.stages {
        let folder = folder::stage(run, &stage.id);
        if stage.work.makes().contains(&Makes::Front) {
            methods.insert(stage.id.clone(), front::load(&folder).with_context(unfinished)?);
        }
        if stage.work.downcast_ref::<Compare>().is_some() {
            let text = std::fs::read_to_string(folder.join(names::MATCHES)).with_context(unfinished)?;
            matches.insert(stage.id.clone(), serde_json::from_str(&text).with_context(unfinished)?);
        }
    }
    Ok(Seed { seed: plan.seed, run: run.to_owned(), plan, methods, matches })
}

/// Task and figure of a stage's id.
fn place(id: &str) -> Option<(&str, &str)> {
    let at = id.find("_fig")?;
    let figure = id[at + 1..].split('_').next()?;
    Some((&id[..at], figure))
}

/// One panel per figure and task, methods in the order of the plan.
fn panels(seeds: &[Seed]) -> Result<Vec<Panel>> {
    let mut groups: Vec<(String, String, Vec<String>)> = Vec::new();
    for stage in seeds[0].plan.stages.iter().filter(|s| s.work.makes().contains(&Makes::Front)) {
        let Some((task, figure)) = place(&stage.id) else { continue };
        match groups.iter_mut().find(|(f, t, _)| f == figure && t == task) {
            Some((.., ids)) => ids.push(stage.id.clone()),
            None => groups.push((figure.into(), task.into(), vec![stage.id.clone()])),
        }
    }
    groups.sort();
    groups.into_iter().map(|(figure, task, stages)| panel(seeds, figure, task, stages)).collect()
}

fn panel(seeds: &[Seed], figure: String, task: String, stages: Vec<String>) -> Result<Panel> {
    let objectives = seeds[0].methods[&stages[0]].0.clone();
    let mut methods = Vec::new();
    for id in &stages {
        let all: Vec<&Method> = seeds.iter().filter_map(|s| s.methods.get(id)).map(|(_, m)| m).collect();
        if all.len() < seeds.len() {
            bail!("{id} was not evaluated for every seed; were all made with the same configuration?");
        }
        methods.push(averaged(&all));
    }
    let reference_point = vec![0.0; objectives.len()];
    let fronts = Fronts { objectives, reference_point, methods, ceiling: ceiling(seeds, &stages[0]) };
    let svg = plot::front(&fronts)?;
    Ok(Panel { figure, task, fronts, stages, svg })
}

/// The hypervolume, mean over seeds, of the best of all answers on the scales of this stage.
fn ceiling(seeds: &[Seed], stage: &str) -> Option<f64> {
    let plan = &seeds[0].plan;
    let scales = plan.stage(stage)?.rewards();
    let best = plan.stages.iter().find(|s| s.work.makes().contains(&Makes::Ceiling) && s.rewards() == scales)?;
    let volumes: Vec<f64> = seeds.iter().filter_map(|s| Some(s.methods.get(&best.id)?.1.hypervolume)).collect();
    (volumes.len() == seeds.len()).then(|| mean(&volumes)).filter(|volume| *volume > 0.0)
}

/// Means over seeds, with 95 % intervals over seeds where there are several.
fn averaged(all: &[&Method]) -> Method {
    let mut out = all[0].clone();
    if all.len() == 1 {
        return out;
    }
    for (i, point) in out.points.iter_mut().enumerate() {
        for k in 0..point.rewards.len() {
            let values: Vec<f64> = all.iter().map(|m| m.points[i].rewards[k]).collect();
            point.rewards[k] = mean(&values);
            point.ci[k] = mean_interval(&values).unwrap_or(point.ci[k]);
        }
    }
    let over = |f: &dyn Fn(&Method) -> f64| all.iter().map(|m| f(m)).collect::<Vec<f64>>();
    let volumes = over(&|m| m.hypervolume);
    // Every field is said, so that none of the first seed passes for a mean.
    Method {
        hypervolume: mean(&volumes),
        hypervolume_ci: mean_interval(&volumes).unwrap_or(out.hypervolume_ci),
        hypervolume_plain: averages(all, |m| m.hypervolume_plain.into_iter().collect()).first().copied(),
        mip: mean(&over(&|m| m.mip)),
        steering_regret: mean(&over(&|m| m.steering_regret)),
        sparsity: mean(&over(&|m| m.sparsity)),
        unevenness: mean(&over(&|m| m.unevenness)),
        spearman: averages(all, |m| m.spearman.clone()),
        kendall: averages(all, |m| m.kendall.clone()),
        crd: averages(all, |m| m.crd.into_iter().collect()).first().copied(),
        agreement: (0..out.agreement.len())
            .map(|k| averages(all, |m| m.agreement.get(k).cloned().unwrap_or_default()))
            .collect(),
        name: out.name,
        points: out.points,
        spearman_watched: out.spearman_watched,
        non_dominated: out.non_dominated,
    }
}

/// Means over seeds of the numbers of a list; none where a seed, of a motrain before, lacks the list.
fn averages(all: &[&Method], list: impl Fn(&Method) -> Vec<f64>) -> Vec<f64> {
    let lists: Vec<Vec<f64>> = all.iter().map(|m| list(m)).collect();
    let shortest = lists.iter().map(Vec::len).min().unwrap_or(0);
    (0..shortest).map(|k| mean(&lists.iter().map(|l| l[k]).collect::<Vec<_>>())).collect()
}

/// The claims as text: each with its verdict, and that among all of them.
fn table(claims: &[Claim]) -> String {
    let line = |c: &Claim| {
        let verdicts = (c.standing.to_string(), c.among_all.to_string());
        format!("{:<10} {:<10} {:<5} {} ({})", verdicts.0, verdicts.1, c.figure, c.claim, c.measured())
    };
    claims.iter().map(line).collect::<Vec<_>>().join("\n")
}
