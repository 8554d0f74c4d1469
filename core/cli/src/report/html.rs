//! report.html: front, training curves, answers side by side, configuration, in one file without scripts.

use super::plot;
use anyhow::Result;
use motrain_core::metrics::report::Fronts;
use motrain_core::shown::printable;
use motrain_engine::folder;
use motrain_engine::plan::Plan;
use motrain_engine::run::Front;
use motrain_engine::train::log::{Metrics, read_metrics, read_timings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;font-size:14px}td,th{border:1px solid #ccc;padding:.35em .6em;text-align:left;vertical-align:top}\
th{background:#f3f3f3}pre{background:#f6f6f6;padding:1em;overflow:auto;font-size:12px}.curves svg{margin:.3em}\
td.n{text-align:right;font-variant-numeric:tabular-nums}td.text{min-width:220px;white-space:pre-wrap}svg{max-width:100%;height:auto}\
.wide{overflow-x:auto}";

/// Metrics worth a curve, whatever the stage.
const CURVES: [&str; 6] = [
    "objective/kl",
    "objective/scores",
    "loss",
    "rewards/accuracies",
    "completions/mean_length",
    "completions/eos_rate",
];

pub fn page(run: &Path, plan: &Plan, front: &Front, svg: &str) -> Result<String> {
    let title = match &front.of {
        None => escape(&plan.name),
        Some(rewards) => format!("{}: {}", escape(&plan.name), escape(rewards)),
    };
    let mut body = format!("<h1>{title}</h1><h2>Front</h2>{svg}{}", metrics_table(&front.fronts));
    let behind = plan.behind(&front.evaluations);
    for stage in plan.stages.iter().filter(|s| behind.contains(&s.id)) {
        body += &curves(run, &stage.id)?;
        body += &component_times(run, &stage.id)?;
    }
    if let Some(last) = front.evaluations.last() {
        body += &answers(run, last)?;
    }
    let plan_json = serde_json::to_string_pretty(plan)?;
    let manifest = std::fs::read_to_string(run.join("manifest.json")).unwrap_or_default();
    body += &format!("<h2>Plan</h2><pre>{}</pre><h2>Made by</h2><pre>{}</pre>", escape(&plan_json), escape(&manifest));
    Ok(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} – motrain</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n"
    ))
}

fn metrics_table(fronts: &Fronts) -> String {
    let mut rows = String::new();
    for m in &fronts.methods {
        let rho: Vec<String> = m.spearman.iter().map(|r| format!("{r:.2}")).collect();
        let gold: Vec<String> = m
            .spearman_watched
            .iter()
            .map(|(name, r)| {
                let r: Vec<String> = r.iter().map(|r| format!("{r:.2}")).collect();
                format!("{} {}", escape(name), r.join(" / "))
            })
            .collect();
        rows += &format!(
            "<tr><td>{}</td><td class=n>{:.3} [{:.3}, {:.3}]</td><td class=n>{:.3}</td><td class=n>{:.3}</td><td class=n>{}</td>\
             <td>{}</td><td class=n>{:.4}</td><td class=n>{:.2}</td><td class=n>{}</td></tr>",
            escape(&m.name),
            m.hypervolume,
            m.hypervolume_ci[0],
            m.hypervolume_ci[1],
            m.mip,
            m.steering_regret,
            rho.join(" / "),
            gold.join("<br>"),
            m.sparsity,
            m.unevenness,
            m.points.first().map_or(0, |p| p.n)
        );
    }
    let reference: Vec<String> = fronts.reference_point.iter().map(|r| format!("{r}")).collect();
    format!(
        "<p>Points are labelled by the weight of {}; bars are 95 % bootstrap intervals over prompts. Hypervolume is above ({}).</p>\
         <div class=wide><table><tr><th>method</th><th>hypervolume</th><th>mean inner product</th><th>steering regret</th>\
         <th>Spearman ({})</th><th>watched rewards</th><th>sparsity</th><th>unevenness (CV of gaps)</th><th>prompts</th></tr>{rows}</table></div>",
        escape(&fronts.objectives[0]),
        reference.join(", "),
        escape(&fronts.objectives.join(" / "))
    )
}

fn curves(run: &Path, stage: &str) -> Result<String> {
    let metrics = read_metrics(run, stage)?;
    let Some((_, last)) = metrics.last() else { return Ok(String::new()) };
    let per_reward = last.keys().filter(|k| k.ends_with("/mean")).map(String::as_str);
    let names: Vec<&str> = CURVES.into_iter().filter(|c| last.contains_key(*c)).chain(per_reward).collect();
    let mut out = format!("<h2>Training: {}</h2><div class=curves>", escape(stage));
    for name in names {
        let points: Vec<(f64, f64)> =
            metrics.iter().filter_map(|(step, m)| Some((*step as f64, *m.get(name)?))).collect();
        if points.len() > 1 {
            out += &plot::curve(name, &points)?;
        }
    }
    Ok(out + "</div>")
}

/// Seconds by component, and the scores that are missing.
fn component_times(run: &Path, stage: &str) -> Result<String> {
    let missing = total(&read_metrics(run, stage)?, "/unscored");
    let mut rows = String::new();
    for (name, seconds) in total(&read_timings(run, stage)?, "/seconds") {
        let missing = missing.get(&name).copied().unwrap_or(0.0);
        rows += &format!("<tr><td>{}</td><td class=n>{seconds:.1}</td><td class=n>{missing}</td></tr>", escape(&name));
    }
    if rows.is_empty() {
        return Ok(rows);
    }
    Ok(format!(
        "<h3>Time by component</h3><table><tr><th>component</th><th>seconds</th><th>scores missing</th></tr>{rows}</table>"
    ))
}

/// Sums over the steps of the metrics `rewards/<name><suffix>` and `components/<name><suffix>`, by name.
fn total(steps: &[(usize, Metrics)], suffix: &str) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    for (key, value) in steps.iter().flat_map(|(_, m)| m) {
        let name =
            key.strip_prefix("rewards/").or(key.strip_prefix("components/")).and_then(|k| k.strip_suffix(suffix));
        if let Some(name) = name {
            *out.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    out
}

/// Answers to the same prompts at every third weight, side by side.
fn answers(run: &Path, evaluation: &str) -> Result<String> {
    let path = folder::stage(run, evaluation).join("samples.json");
    let samples: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let mut prompts: Vec<&Value> = Vec::new();
    let mut weights: Vec<&Value> = Vec::new();
    for s in &samples {
        if !prompts.contains(&&s["prompt"]) {
            prompts.push(&s["prompt"]);
        }
        if !weights.contains(&&s["weights"]) {
            weights.push(&s["weights"]);
        }
    }
    let stride = weights.len().div_ceil(4).max(1);
    let mut shown: Vec<&Value> = weights.iter().step_by(stride).copied().collect();
    if let Some(last) = weights.last().filter(|w| !shown.contains(w)) {
        shown.push(last);
    }
    let header: String = shown.iter().map(|w| format!("<th>weights {}</th>", escape(&w.to_string()))).collect();
    let mut rows = String::new();
    for prompt in prompts {
        let turns: Vec<&str> = prompt.as_array().into_iter().flatten().filter_map(|m| m["content"].as_str()).collect();
        rows += &format!("<tr><td class=text>{}</td>", escape(&turns.join("\n\n")));
        for w in &shown {
            let answer = samples.iter().find(|s| s["prompt"] == *prompt && s["weights"] == **w);
            let text = answer.and_then(|s| s["completion"].as_str()).unwrap_or("");
            rows += &format!("<td class=text>{}</td>", escape(text));
        }
        rows += "</tr>";
    }
    Ok(format!("<h2>Answers</h2><div class=wide><table><tr><th>prompt</th>{header}</tr>{rows}</table></div>"))
}

pub fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
