//! paper.html: everything on one page, to be read beside the paper.

use super::claims::Claim;
use super::cost::Cost;
use super::{Panel, Seed, place};
use crate::report::template;
use anyhow::Result;
use minijinja::context;
use minijinja::value::Serde;
use motrain_engine::folder;
use motrain_engine::names;
use motrain_engine::stage::Makes;
use motrain_engine::stage::compare::Match;
use motrain_engine::stage::front::Answer;

/// Prompts of Table 2, and the weights at which they are answered.
const SHOWN: usize = 3;
const SHOWN_WEIGHTS: [[f64; 2]; 2] = [[0.8, 0.2], [0.2, 0.8]];

pub fn page(seeds: &[Seed], panels: &[Panel], claims: &[Claim], costs: &[Cost]) -> Result<String> {
    let claim = |c: &Claim| {
        let (standing, among_all) = (c.standing.to_string(), c.among_all.to_string());
        let measured = c.measured();
        context! { claim => c.claim.as_str(), standing, among_all, figure => c.figure.as_str(), measured }
    };
    let panel = |p: &Panel| {
        let (figure, task, svg) = (p.figure.as_str(), p.task.as_str(), p.svg.as_str());
        context! { figure, task, svg, fronts => Serde(&p.fronts) }
    };
    let shown = context! {
        title => "MO-ODPO, remade",
        seeds => seeds.iter().map(|s| s.seed).collect::<Vec<_>>(),
        claims => claims.iter().map(claim).collect::<Vec<_>>(),
        panels => panels.iter().map(panel).collect::<Vec<_>>(),
        matches => Serde(matches(seeds)),
        costs => Serde(costs),
        answers => Serde(answers(&seeds[0])?),
    };
    template::render("paper.html.j2", shown)
}

/// Task, seed and comparison.
fn matches(seeds: &[Seed]) -> Vec<(&str, u64, &Match)> {
    let mut out = Vec::new();
    for seed in seeds {
        for (id, all) in &seed.matches {
            out.extend(all.iter().map(|m| (id.trim_end_matches("_fig4"), seed.seed, m)));
        }
    }
    out
}

/// Table 2: answers of each method to the same prompts.
fn answers(seed: &Seed) -> Result<Vec<[String; 5]>> {
    let mut rows = Vec::new();
    for stage in seed.plan.stages.iter().filter(|s| s.work.makes().contains(&Makes::Front)) {
        let Some((task, "fig2")) = place(&stage.id) else { continue };
        let text = std::fs::read_to_string(folder::stage(&seed.run, &stage.id).join(names::ANSWERS))?;
        let all: Vec<Answer> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let at = |w: &[f64; 2]| {
            let near = |a: &&Answer| a.weights.values().iter().zip(w).all(|(x, y)| (x - y).abs() < 1e-6);
            let mut of_prompts: Vec<&Answer> = all.iter().filter(near).collect();
            of_prompts.dedup_by(|a, b| a.prompt == b.prompt);
            of_prompts.into_iter().take(SHOWN).collect::<Vec<_>>()
        };
        let [first, second] = SHOWN_WEIGHTS.each_ref().map(at);
        for (n, (a, b)) in first.iter().zip(&second).enumerate() {
            let method = &seed.methods[&stage.id].1.name;
            let cells = [task, a.prompt.last_user(), method, &a.completion, &b.completion].map(str::to_owned);
            rows.push(((task.to_owned(), n), cells));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}
