//! The matrices that an adapter in training changes, by the options that name them.

use super::Config;
use super::adapter::{self, PREFIX};
use super::arch::Names;
use super::head::{Head, SCORE};
use super::peft::{LoraConfig, Place};
use super::slots::{Order, Slot, slots, slots_and_head};
use super::soft;
use crate::{Error, Result};
use motrain_core::plan::{Lora as Options, Targets};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// A matrix that is changed.
pub(super) struct Target {
    pub module: String,
    /// The parameter, and the rows of it.
    pub slot: String,
    pub row: i64,
    pub rows: i64,
    pub columns: i64,
    pub order: Order,
    pub rank: i64,
    pub scale: f64,
}

/// The matrices that an adapter changes.
pub(super) fn targets(model: &Config, config: &LoraConfig, with_head: bool) -> Vec<Target> {
    let mut out = Vec::new();
    let head = format!("{}.weight", model.arch.names().head);
    let changed = |slot: &&Slot| adapter::is_linear(slot, model) || (with_head && slot.name == head);
    for slot in slots_and_head(model).iter().filter(changed) {
        let (mut row, linear) = (0, slot.name != head);
        let place = Place { names: model.arch.names(), linear };
        for part in &slot.parts {
            let module = part.name.trim_end_matches(".weight").to_owned();
            if config.changes(&module, &place) {
                let (rank, scale) = (config.rank(&module), config.scale(&module));
                let (slot, columns) = (slot.name.clone(), slot.shape[1]);
                out.push(Target { module, slot, row, rows: part.rows, columns, order: part.order, rank, scale });
            }
            row += part.rows;
        }
    }
    out
}

/// Whether options mean the output head. A pattern such as ".*" means the matrices of layers; one that means the head holds its name.
pub(super) fn mean_head(options: &Options, names: &Names) -> bool {
    let last = names.head.rsplit('.').next().unwrap_or(names.head);
    match &options.targets {
        Targets::All(pattern) => pattern.contains(last),
        Targets::Ends(ends) => ends.iter().any(|end| end == last || end == names.head),
    }
}

/// PEFT's name of a tensor.
pub(super) fn named(module: &str, end: &str) -> String {
    format!("{}{module}.{end}", PREFIX)
}

/// What adapter_config.json says of an adapter with these options, if the model has the matrices that they name.
pub(super) fn said(options: &Options, model: &Config, base: &Path) -> Result<(Value, LoraConfig)> {
    let said = config_json(options, model, base);
    let config = LoraConfig::parse(&said.to_string()).map_err(|what| {
        // As the option is called.
        let what = what.strip_prefix("target_modules").map_or(what.clone(), |rest| format!("targets{rest}"));
        Error::invalid(format!("lora: {what}"))
    })?;
    check_targets(options, &config, &slots_and_head(model), model.arch.names()).map_err(Error::Invalid)?;
    check_head(options, &config, model).map_err(Error::Invalid)?;
    check_soft_tokens(options.soft_tokens as i64, model).map_err(Error::Invalid)?;
    Ok((said, config))
}

/// The head that is trained as a whole.
pub(super) fn trained_head(model: &Config) -> Option<Slot> {
    let name = format!("{SCORE}.weight");
    slots(model).into_iter().find(|slot| model.head == Head::Score && slot.name == name)
}

/// adapter_config.json, with the fields that PEFT writes.
fn config_json(options: &Options, config: &Config, base: &Path) -> Value {
    let names = config.arch.names();
    let targets = match &options.targets {
        all if means_all(all) => json!(matrices(names)),
        Targets::Ends(ends) => json!(ends),
        Targets::All(pattern) => json!(pattern),
    };
    json!({
        "alpha_pattern": {},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": names.transposed,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": options.r,
        "rank_pattern": {},
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": options.rslora,
    })
}

fn means_all(targets: &Targets) -> bool {
    match targets {
        Targets::All(all) => is_all(all),
        Targets::Ends(ends) => ends.iter().any(|end| is_all(end)),
    }
}

fn is_all(target: &str) -> bool {
    target.eq_ignore_ascii_case("all-linear")
}

/// The last parts of the names of a layer's matrices.
fn matrices(names: &Names) -> BTreeSet<&'static str> {
    let all = names.qkv.iter().chain([&names.o]).chain(names.up).chain([&names.down]);
    all.map(|name| name.rsplit('.').next().unwrap_or(name)).collect()
}

/// Each target must be there.
fn check_targets(
    options: &Options,
    config: &LoraConfig,
    all: &[Slot],
    names: &Names,
) -> std::result::Result<(), String> {
    if matches!(&options.targets, Targets::Ends(ends) if ends.is_empty()) {
        return Ok(());
    }
    let is_head = |slot: &Slot| slot.name.trim_end_matches(".weight") == names.head;
    let modules: Vec<&str> = all
        .iter()
        .filter(|slot| slot.shape.len() == 2 && (slot.name.starts_with(names.layers) || is_head(slot)))
        .flat_map(|slot| slot.parts.iter().map(|part| part.name.trim_end_matches(".weight")))
        .collect();
    let heads = all.iter().filter(|slot| is_head(slot)).map(|_| names.head);
    let known = matrices(names).into_iter().chain(heads).collect::<Vec<_>>().join(", ");
    let ends_with =
        |module: &str, end: &str| module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if let Targets::Ends(ends) = &options.targets
        && let Some(odd) = ends.iter().filter(|end| !is_all(end)).find(|end| !modules.iter().any(|m| ends_with(m, end)))
    {
        return Err(format!("lora: targets: \"{odd}\" is no matrix of the model; there are {known}"));
    }
    let place = Place { names, linear: true };
    match modules.iter().any(|m| config.changes(m, &place)) {
        true => Ok(()),
        false => Err(format!("lora: targets: no matrix of the model is meant; there are {known}")),
    }
}

/// A head that is the embedding too cannot change alone in the model's own weights.
fn check_head(options: &Options, config: &LoraConfig, model: &Config) -> std::result::Result<(), String> {
    let names = model.arch.names();
    let head = mean_head(options, names) && config.changes(names.head, &Place { names, linear: false });
    if model.head != Head::TiedLm || !head || options.is_steered() {
        return Ok(());
    }
    Err(format!(
        "lora: targets: {} is the embedding's matrix too, and a model's folder cannot hold a change of one of them; leave it out, or save the \
         model with tie_word_embeddings = false and a {} of its own (an adapter that gains steer stays beside the model, and may change it)",
        names.head, names.head
    ))
}

fn check_soft_tokens(tokens: i64, model: &Config) -> std::result::Result<(), String> {
    let context = model.shape.context;
    match tokens {
        0 => Ok(()),
        _ if tokens >= context => Err(format!("lora: {tokens} soft_tokens leave no room in a context of {context}")),
        _ => soft::check(model).map_err(|what| format!("lora: {what}")),
    }
}
