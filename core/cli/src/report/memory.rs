//! The memory that stages take, as a table.

use motrain_core::shown::printable;
use motrain_engine::memory::Estimate;

/// Parts below this share of a stage's memory, and those that would be told as 0.00, are not worth a word.
const LITTLE: f64 = 0.01;

/// A line for each stage: when it takes most, how much, and of what; then the stage that takes most of all, and what is not counted.
pub fn table(estimates: &[Estimate], gpu: bool) -> String {
    let wide = |all: &mut dyn Iterator<Item = usize>, least: usize| all.max().unwrap_or(0).max(least);
    let ids = wide(&mut estimates.iter().map(|e| printable(&e.stage).len()), "stage".len());
    let moments = wide(&mut estimates.iter().map(|e| e.moment.len()), "fullest at".len());
    let mut out = format!("{:<ids$}  {:<moments$}  {:>8}  of which (GB)\n", "stage", "fullest at", "GB");
    for Estimate { stage, moment, parts, .. } in estimates {
        let total = parts.total();
        let told = parts.by_size().into_iter().filter(|(_, bytes)| *bytes >= 5e6_f64.max(LITTLE * total));
        let told: Vec<String> = told.map(|(part, bytes)| format!("{} {}", gb(bytes), part.words())).collect();
        let (stage, told) = (printable(stage), told.join(", "));
        out += &format!("{stage:<ids$}  {moment:<moments$}  {:>8}  {told}\n", gb(total));
    }
    let fuller = |a: &&Estimate, b: &&Estimate| a.parts.total().total_cmp(&b.parts.total());
    if let Some(most) = estimates.iter().max_by(fuller) {
        let (of, total) = (if gpu { "the GPU's memory" } else { "memory" }, gb(most.parts.total()));
        out += &format!("\n{total} GB of {of} at the fullest, in stage \"{}\"\n", printable(&most.stage));
    }
    for (stage, what) in estimates.iter().flat_map(|e| e.uncounted.iter().map(move |what| (&e.stage, what))) {
        out += &format!("not counted: stage \"{}\": {}\n", printable(stage), printable(what));
    }
    out
}

/// 10⁹ bytes.
fn gb(bytes: f64) -> String {
    format!("{:.2}", bytes / 1e9)
}
