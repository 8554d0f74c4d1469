//! paper.html: everything on one page, to be read beside the paper.

use super::claims::Claim;
use super::cost::Cost;
use super::{Panel, Seed, place};
use crate::report::html::{STYLE, escape};
use anyhow::Result;
use motrain_engine::stage::Makes;
use motrain_engine::stage::compare::Match;
use motrain_engine::stage::evaluate::Answer;

/// Prompts of Table 2, and the weights at which they are answered.
const SHOWN: usize = 3;
const SHOWN_WEIGHTS: [[f64; 2]; 2] = [[0.8, 0.2], [0.2, 0.8]];

pub fn page(seeds: &[Seed], panels: &[Panel], claims: &[Claim], costs: &[Cost]) -> Result<String> {
    let names: Vec<String> = seeds.iter().map(|s| s.seed.to_string()).collect();
    let mut body = format!(
        "<h1>MO-ODPO (arXiv 2503.00295), remade</h1><p>Seeds: {}. Points are labelled by the weight of the first objective; bars are 95 % intervals, over \
         prompts for one seed and over seeds for several. Rewards are scaled so that 0 and 1 are the 1 % and 99 % quantiles of the initial policy's \
         samples. Learning rate, alpha and beta were chosen on MO-ODPO's runs; no other method has its own.</p>",
        names.join(", ")
    );
    body += &claims_table(claims);
    for panel in panels {
        body += &format!("<h2>{}: {}</h2>{}{}", title(&panel.figure), panel.task, panel.svg, volumes(panel));
    }
    body += &win_rates(seeds);
    body += &costs_table(costs);
    body += &answers(&seeds[0])?;
    Ok(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>MO-ODPO, remade – motrain</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n"
    ))
}

fn title(figure: &str) -> &'static str {
    match figure {
        "fig2" => "Figure 2, fronts",
        "fig3" => "Figure 3, fronts of the smaller policy",
        "fig5" => "Figure 5, Dirichlet alpha",
        "fig6" => "Figure 6, MO-ODPO by epochs (a run each)",
        "fig6ric" => "Figure 6, Rewards-in-Context by epochs (a run each)",
        _ => "Figure",
    }
}

fn row(cells: &[String]) -> String {
    format!("<tr>{}</tr>", cells.iter().map(|c| format!("<td>{c}</td>")).collect::<String>())
}

fn table(title: &str, header: &[&str], rows: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let header: String = header.iter().map(|h| format!("<th>{h}</th>")).collect();
    format!("<h2>{title}</h2><div class=wide><table><tr>{header}</tr>{}</table></div>", rows.concat())
}

fn claims_table(claims: &[Claim]) -> String {
    let rows: Vec<String> = claims
        .iter()
        .map(|c| row(&[escape(&c.claim), c.verdict.to_string(), c.figure.clone(), escape(&c.measured())]))
        .collect();
    let about = "The paper's claims (above 0 speaks for a claim; three seeds decide)";
    table(about, &["claim", "verdict", "figure", "measured"], &rows)
}

fn volumes(panel: &Panel) -> String {
    let one = |m: &motrain_core::metrics::report::Method| {
        let rho: Vec<String> = m.spearman.iter().map(|r| format!("{r:.2}")).collect();
        let [low, high] = m.hypervolume_ci;
        let volume = format!("{:.3} [{low:.3}, {high:.3}]", m.hypervolume);
        row(&[escape(&m.name), volume, format!("{:.3}", m.mip), format!("{:.3}", m.steering_regret), rho.join(" / ")])
    };
    let rows: String = panel.fronts.methods.iter().map(one).collect();
    format!(
        "<table><tr><th>method</th><th>hypervolume above 0</th><th>mean inner product</th><th>steering regret</th><th>Spearman ({})</th></tr>\
         {rows}</table>",
        escape(&panel.fronts.objectives.join(" / "))
    )
}

fn win_rates(seeds: &[Seed]) -> String {
    let line = |seed: &Seed, task: &str, m: &Match| {
        let along = |d: &motrain_engine::stage::compare::Along| {
            let (name, odd) = (escape(&d.name), d.inconsistent * 100.0);
            format!("{name} {}–{}–{} ({odd:.0} %)", d.wins, d.losses, d.ties)
        };
        let dimensions: Vec<String> = m.dimensions.iter().map(along).collect();
        row(&[
            format!("{task}, seed {}", seed.seed),
            escape(&m.against),
            format!("{} / {} / {}", m.wins, m.losses, m.none),
            format!("{:.3}", m.win_rate),
            format!("{:.3} [{:.3}, {:.3}]", m.win_rate_half, m.ci[0], m.ci[1]),
            dimensions.join("<br>"),
        ])
    };
    let rows: Vec<String> = seeds
        .iter()
        .flat_map(|s| s.matches.iter().map(move |(id, all)| (s, id, all)))
        .flat_map(|(s, id, all)| all.iter().map(move |m| line(s, id.trim_end_matches("_fig4"), m)))
        .collect();
    let header = [
        "task",
        "MO-ODPO against",
        "wins / losses / neither",
        "win rate of decided",
        "with ties as half",
        "wins–losses–ties by dimension (orders that disagree)",
    ];
    table("Figure 4, win rates (the paper does not say what a prompt that neither wins counts)", &header, &rows)
}

fn costs_table(costs: &[Cost]) -> String {
    let one = |c: &Cost| {
        row(&[
            c.task.clone(),
            escape(&c.method),
            c.policies.to_string(),
            format!("{:.2} M", c.parameters as f64 / 1e6),
            format!("{:.0} k", c.tokens_generated / 1e3),
            format!("{:.0} k", c.tokens_trained / 1e3),
            format!("{:.0}", c.seconds),
            format!("{:.0}", c.serving_tokens_per_second),
            format!("{:.1} MB", c.extra_memory as f64 / 1e6),
        ])
    };
    let header = [
        "task",
        "method",
        "policies trained",
        "parameters trained",
        "tokens generated",
        "tokens trained on",
        "seconds",
        "tokens/s, own weights per query (median of 5)",
        "extra memory",
    ];
    table("Table 1, what the methods cost (first seed)", &header, &costs.iter().map(one).collect::<Vec<_>>())
}

/// Table 2: answers of each method to the same prompts.
fn answers(seed: &Seed) -> Result<String> {
    let mut rows = Vec::new();
    for stage in seed.plan.stages.iter().filter(|s| s.work.makes().contains(&Makes::Front)) {
        let Some((task, "fig2")) = place(&stage.id) else { continue };
        let text = std::fs::read_to_string(motrain_engine::folder::stage(&seed.run, &stage.id).join("answers.jsonl"))?;
        let all: Vec<Answer> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let at = |w: &[f64; 2]| {
            let near = |a: &&Answer| a.weights.values().iter().zip(w).all(|(x, y)| (x - y).abs() < 1e-6);
            all.iter().filter(near).take(SHOWN).collect::<Vec<_>>()
        };
        let [first, second] = SHOWN_WEIGHTS.each_ref().map(at);
        for (n, (a, b)) in first.iter().zip(&second).enumerate() {
            let method = escape(&seed.methods[&stage.id].1.name);
            let cells =
                [task.into(), escape(a.prompt.last_user()), method, escape(&a.completion), escape(&b.completion)];
            rows.push(((task.to_owned(), n), row(&cells)));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows: Vec<String> = rows.into_iter().map(|(_, r)| r).collect();
    Ok(table("Table 2, answers", &["task", "prompt", "method", "at (0.8, 0.2)", "at (0.2, 0.8)"], &rows))
}
