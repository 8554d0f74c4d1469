//! What a person looks at: the table on the terminal, front.svg, and report.html, which needs no other file.

mod html;
pub mod memory;
pub mod plot;
pub mod template;

use anyhow::Result;
use motrain_core::metrics::report::Fronts;
use motrain_core::shown::printable;
use motrain_engine::folder::RunFolder;
use motrain_engine::names;
use motrain_engine::plan::Plan;
use motrain_engine::run::Front;

/// Writes front.svg and report.html into the run folder, of each front.
pub fn write(run: &RunFolder, plan: &Plan, front: &Front) -> Result<()> {
    let svg = plot::front(&front.fronts)?;
    run.write(&front.file(names::FRONT, "svg"), &svg)?;
    Ok(run.write(&front.file(names::REPORT, "html"), &html::page(run.root(), plan, front, &svg)?)?)
}

/// The fronts as text: one row per method and weight.
pub fn table(fronts: &Fronts) -> String {
    let mut out = String::new();
    for method in &fronts.methods {
        let listed = |list: &[f64]| list.iter().map(|r| format!("{r:.2}")).collect::<Vec<_>>().join(" ");
        out += &format!(
            "\n{}   hypervolume {:.3} [{:.3}, {:.3}]{}   mean inner product {:.3}   steering regret {:.3}   Spearman {}{}\n",
            printable(&method.name),
            method.hypervolume,
            method.hypervolume_ci[0],
            method.hypervolume_ci[1],
            fronts.ceiling.map_or_else(String::new, |all| format!(", {:.2} of the ceiling", method.hypervolume / all)),
            method.mip,
            method.steering_regret,
            listed(&method.spearman),
            if method.kendall.is_empty() { String::new() } else { format!("   Kendall {}", listed(&method.kendall)) }
        );
        let watched: Vec<&String> = method.points.first().map(|p| p.watched.keys().collect()).unwrap_or_default();
        let mut header = format!("  {:<14}", "weights");
        for name in &fronts.objectives {
            header += &format!(" {:>14} {:>16}", printable(name), "95 % interval");
        }
        let width = |name: &str| name.chars().count().max(16);
        for name in &watched {
            header += &format!(" {:>1$}", printable(name), width(name));
        }
        out += &format!("{header}\n");
        for point in &method.points {
            let weights: Vec<String> = point.weights.values().iter().map(|w| format!("{w:.2}")).collect();
            out += &format!("  {:<14}", weights.join(" "));
            for (reward, ci) in point.rewards.iter().zip(&point.ci) {
                out += &format!(" {reward:>14.3} {:>16}", format!("[{:.3}, {:.3}]", ci[0], ci[1]));
            }
            for name in &watched {
                out += &format!(" {:>1$.3}", point.watched[*name], width(name));
            }
            out += "\n";
        }
    }
    out
}
