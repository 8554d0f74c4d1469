//! motrain beside its peers on one machine: all sides in turn, and what came of it in docs/performance.md.

use crate::commands::release_binary;
use crate::run::{cache, cargo, checked, python, root};
use crate::{libtorch, models};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the table lies in docs/performance.md.
const BEGIN: &str = "<!-- Made by `cargo xtask bench --peers`. -->";
const END: &str = "<!-- End of what `cargo xtask bench --peers` makes. -->";

/// In the order of the table's columns.
const SIDES: [&str; 4] = ["motrain", "TRL", "transformers", "llama.cpp"];

/// All figures of a measure, by side; those of motrain with what the matrix products alone would give.
#[derive(Default)]
struct Measured {
    unit: String,
    by_side: BTreeMap<String, Vec<f64>>,
    products: Vec<f64>,
}

#[derive(Default)]
struct Table {
    /// In the order in which motrain says them.
    order: Vec<String>,
    /// What was measured.
    revision: String,
    measures: BTreeMap<String, Measured>,
    versions: BTreeMap<String, String>,
}

/// Runs every side `rounds` times, one after the other, with the peers of `environment` or of one that is made once.
pub fn run(rounds: usize, environment: Option<PathBuf>) -> Result<()> {
    libtorch::setup(false)?;
    let model = models::fetch("smollm2", release_binary)?;
    let gguf = models::gguf("smollm2")?;
    let python = environment.map_or_else(installed, Ok)?;
    checked(cargo().args(["bench", "--workspace", "--bench", "online_step", "--no-run"]))?;
    let mut table = Table { revision: revision()?, ..Table::default() };
    for round in 1..=rounds {
        for side in SIDES {
            for mut command in commands(side, &python, &model, &gguf)? {
                eprintln!("round {round} of {rounds}: {side}");
                table.add(side, &said(&mut command)?)?;
            }
        }
    }
    table.write(rounds)
}

/// What a side runs.
fn commands(side: &str, python: &Path, model: &Path, gguf: &Path) -> Result<Vec<Command>> {
    let threads = std::thread::available_parallelism()?.to_string();
    let script = |name: &str, first: &Path, more: &[&str]| {
        let mut command = Command::new(python);
        command.arg(root().join("docs/peers").join(name)).arg(first).args(more).env("OMP_NUM_THREADS", &threads);
        command
    };
    let bench = |more: &[&str]| {
        let mut command = cargo();
        command
            .args(["bench", "--quiet", "--workspace", "--bench", "online_step", "--"])
            .arg(model)
            .arg("--json")
            .args(more);
        command
    };
    let trl = |more: &[&str]| script("trl_online_dpo.py", model, &[&["--json", "--steps", "4"], more].concat());
    Ok(match side {
        "motrain" => ["drawing", "step", "lora"].map(|part| bench(&["--only", part])).into(),
        "TRL" => vec![trl(&[]), trl(&["--lora"])],
        "transformers" => vec![script("transformers_generate.py", model, &[])],
        _ => vec![script("llama_cpp_decode.py", gguf, &[&threads])],
    })
}

/// The peers' environment, made once in the cache.
fn installed() -> Result<PathBuf> {
    let folder = cache()?.join("peers");
    let (inside, done) = (folder.join("bin/python"), folder.join("installed"));
    let pinned =
        ["requirements.txt", "llama_cpp.txt"].map(|name| fs::read_to_string(root().join("docs/peers").join(name)));
    let wanted = pinned.into_iter().collect::<std::io::Result<String>>()?;
    if fs::read_to_string(&done).is_ok_and(|there| there == wanted) {
        return Ok(inside);
    }
    checked(python().args(["-m", "venv"]).arg(&folder))?;
    let pip = |more: &[&str]| {
        let mut command = Command::new(&inside);
        command.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(more).current_dir(root());
        command
    };
    checked(&mut pip(&["--requirement", "docs/peers/requirements.txt"]))?;
    // From its source, for this machine's instructions.
    let llama = ["--no-binary", "llama-cpp-python", "--requirement", "docs/peers/llama_cpp.txt"];
    checked(pip(&llama).env("CMAKE_ARGS", "-DGGML_NATIVE=ON"))?;
    fs::write(&done, wanted)?;
    Ok(inside)
}

/// The objects that a command prints, a line each.
fn said(command: &mut Command) -> Result<Vec<Value>> {
    let shown = format!("{command:?}");
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {shown}"))?;
    let lines: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if !output.status.success() || lines.is_empty() {
        bail!("{shown} failed ({}), or measured nothing", output.status);
    }
    Ok(lines)
}

impl Table {
    fn add(&mut self, side: &str, lines: &[Value]) -> Result<()> {
        for line in lines {
            let text = |key: &str| line[key].as_str().unwrap_or_default().trim().to_owned();
            if line["version"].is_string() {
                self.versions.insert(text("version"), text("is"));
                continue;
            }
            let (measure, value) = (text("measure"), line["value"].as_f64().context("a figure is no number")?);
            if !self.order.contains(&measure) {
                self.order.push(measure.clone());
            }
            let measured = self.measures.entry(measure).or_default();
            measured.unit = text("unit");
            measured.by_side.entry(side.to_owned()).or_default().push(value);
            measured.products.extend(line["products"].as_f64());
        }
        Ok(())
    }

    fn write(&self, rounds: usize) -> Result<()> {
        let raw = self.measures.iter().map(|(measure, m)| {
            (measure.clone(), json!({ "unit": m.unit, "values": m.by_side, "products alone": m.products }))
        });
        let raw = json!({ "machine": machine(), "revision": self.revision, "versions": self.versions, "rounds": rounds,
                          "measures": raw.collect::<serde_json::Map<_, _>>() });
        fs::write(root().join("docs/peers/measured.json"), format!("{raw:#}\n"))?;
        let page = root().join("docs/performance.md");
        let text = fs::read_to_string(&page)?;
        let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{} has no {BEGIN}", page.display()))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("{} has no {END}", page.display()))?;
        let table = self.shown(rounds);
        fs::write(&page, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
        println!("{table}");
        Ok(())
    }

    fn shown(&self, rounds: usize) -> String {
        let versions: Vec<String> = self.versions.iter().map(|(name, is)| format!("{name} {is}")).collect();
        let mut out = format!(
            "{}; {}; revision {}. Medians of {rounds} rounds in turn, with the least and the most; ratios are medians of the rounds' own.\n\n\
             | measure | motrain | products alone | {} |\n|---|---|---|{}\n",
            machine(),
            versions.join(", "),
            self.revision,
            SIDES[1..].join(" | "),
            "---|".repeat(SIDES.len() - 1)
        );
        for measure in &self.order {
            let m = &self.measures[measure];
            let Some(own) = m.by_side.get("motrain") else { continue };
            let alone = if m.products.is_empty() { String::new() } else { against(m, own, &m.products) };
            let peers =
                SIDES[1..].iter().map(|side| m.by_side.get(*side).map_or(String::new(), |v| against(m, own, v)));
            let peers = peers.collect::<Vec<_>>().join(" | ");
            out += &format!("| {measure}, {} | {} | {alone} | {peers} |\n", m.unit, spread(own));
        }
        out
    }
}

/// A side's figure, and motrain's share of it: of seconds, memory and rates alike.
fn against(m: &Measured, own: &[f64], other: &[f64]) -> String {
    let ratios: Vec<f64> = own.iter().zip(other).map(|(a, b)| a / b).collect();
    if m.unit == "tokens" { spread(other) } else { format!("{}: × {}", spread(other), spread(&ratios)) }
}

fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let digits = match median {
        m if m < 20.0 => 2,
        m if m < 200.0 => 1,
        _ => 0,
    };
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(most)) if sorted.len() > 1 => {
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        }
        _ => format!("{median:.digits$}"),
    }
}

fn machine() -> String {
    let said = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = said.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("a CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", name.trim_start_matches([' ', '\t', ':']))
}

fn revision() -> Result<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_the_rounds_own_ratios() {
        let mut table = Table::default();
        for (own, other) in [(1.0, 4.0), (2.0, 6.0), (3.0, 6.0)] {
            table
                .add("motrain", &[json!({ "measure": "whole step", "value": own, "unit": "s", "products": own / 2.0 })])
                .unwrap();
            table
                .add(
                    "TRL",
                    &[
                        json!({ "version": "trl", "is": "1" }),
                        json!({ "measure": "whole step", "value": other, "unit": "s" }),
                    ],
                )
                .unwrap();
        }
        let shown = table.shown(3);
        assert!(shown.contains("| whole step, s | 2.00 (1.00–3.00) | 1.00 (0.50–1.50): × 2.00 (2.00–2.00) | 6.00 (4.00–6.00): × 0.33 (0.25–0.50) |  |  |"), "{shown}");
        assert!(shown.contains("trl 1"), "{shown}");
    }
}
