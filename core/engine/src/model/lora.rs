//! LoRA (Hu et al. 2021): low-rank changes that train while the base stands still, written as PEFT writes them.

use super::adapter::{Adapter, Factors};
use super::arch::Names;
use super::head::{Head, SCORE};
use super::layers::Change;
use super::peft::{LoraConfig, Place};
use super::save::{write_json, write_tensors};
use super::slots::{Order, Slot, slots};
use super::weights::{Tensors, read_weights};
use super::{Config, Model, adapter};
use crate::plan::{Lora as Options, Targets};
use crate::{Error, Result};
use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// An adapter in training.
pub struct Lora {
    /// adapter_config.json.
    said: Value,
    /// What trains, by PEFT's names: A (`[r, in]`) and B (`[out, r]`) of each matrix in turn (f32), and a reward model's head.
    pub params: Vec<(String, Tensor)>,
    pairs: Vec<Pair>,
    pub dropout: f64,
    /// What the base began with: it is part of what stands still, and of what is saved.
    start: Option<Adapter>,
    merge: bool,
}

/// Where a matrix's change goes.
struct Pair {
    module: String,
    /// The parameter, and the rows of it.
    slot: String,
    row: i64,
    rows: i64,
    order: Order,
    scale: f64,
}

impl Lora {
    /// New changes, which change nothing yet: A uniform within 1/√in, B zero, as PEFT begins. `base` is where the model lies; `start` an
    /// adapter that is in the model already.
    pub fn new(options: &Options, model: &Model, base: &Path, start: Option<Adapter>, seed: u64) -> Result<Self> {
        let (said, config) = said(options, &model.config, base)?;
        let all = slots(&model.config);
        let (mut pairs, mut params) = (Vec::new(), Vec::new());
        let mut rng = Rng::seed_from_u64(seed);
        for slot in all.iter().filter(|slot| adapter::is_linear(slot, &model.config)) {
            let mut row = 0;
            for part in &slot.parts {
                let module = part.name.trim_end_matches(".weight").to_owned();
                let place = Place { names: model.config.arch.names(), linear: true };
                if config.changes(&module, &place) {
                    let (rank, columns) = (config.rank(&module), slot.shape[1]);
                    let a = uniform([rank, columns], 1.0 / (columns as f64).sqrt(), &mut rng)?;
                    let b = Tensor::f_zeros([part.rows, rank], (Kind::Float, Device::Cpu))?;
                    params.push((named(&module, "lora_A.weight"), a.f_to_device(model.device())?));
                    params.push((named(&module, "lora_B.weight"), b.f_to_device(model.device())?));
                    let scale = config.scale(&module);
                    pairs.push(Pair {
                        module,
                        slot: slot.name.clone(),
                        row,
                        rows: part.rows,
                        order: part.order,
                        scale,
                    });
                }
                row += part.rows;
            }
        }
        let mut lora = Self { said, params, pairs, dropout: options.dropout, start, merge: options.merge };
        lora.train_head(model)?;
        Ok(lora)
    }

    /// A reward model's head is trained as a whole.
    fn train_head(&mut self, model: &Model) -> Result<()> {
        let Some(slot) = trained_head(&model.config) else { return Ok(()) };
        let Some((_, head)) = model.params.iter().find(|(own, _)| *own == slot.name) else { return Ok(()) };
        self.params.push((named(SCORE, "weight"), head.f_to_kind(Kind::Float)?));
        self.said["modules_to_save"] = json!([SCORE]);
        self.said["task_type"] = json!("SEQ_CLS");
        Ok(())
    }

    /// The trained head, if there is one.
    pub fn head(&self) -> Option<&Tensor> {
        let name = named(SCORE, "weight");
        self.params.iter().find(|(own, _)| *own == name).map(|(_, head)| head)
    }

    /// What is added to the rows of a parameter's product, in the type of computing.
    pub fn changes(&self, slot: &str, dtype: Kind) -> Result<Vec<Change>> {
        let own = self.pairs.iter().zip(self.params.chunks(2)).filter(|(pair, _)| pair.slot == slot);
        own.map(|(pair, factors)| {
            let (a, b) = (&factors[0].1, &factors[1].1);
            Ok(Change {
                row: pair.row,
                a: a.f_to_kind(dtype)?,
                b: pair.order.rows().read(b)?.f_to_kind(dtype)?,
                scale: pair.scale,
                block: 0,
            })
        })
        .collect()
    }

    /// Takes up the changes of a checkpoint.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join(adapter::WEIGHTS);
        let mut saved = Tensors::new();
        read_weights(&file, &mut saved)?;
        for (name, p) in &mut self.params {
            match saved.remove(name) {
                Some(t) if t.size() == p.size() => *p = t.f_to_device(p.device())?,
                _ => return Err(Error::file(&file, format!("does not fit the adapter in training at {name}"))),
            }
        }
        Ok(())
    }

    /// Writes what trains, for a checkpoint.
    pub fn save_training(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(adapter::CONFIG), &self.said)?;
        write_tensors(&folder.join(adapter::WEIGHTS), &self.params, Kind::Float)
    }

    /// Writes a PEFT folder of all that the base's folder lacks.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let Some(start) = &self.start else { return self.save_training(folder) };
        let (factors, mut tensors) = (self.joined(start)?, Vec::new());
        let (mut ranks, mut said) = (Map::new(), self.said.clone());
        for (module, Factors { a, b, .. }) in &factors {
            tensors.push((named(module, "lora_A.weight"), a.shallow_clone()));
            tensors.push((named(module, "lora_B.weight"), b.shallow_clone()));
            ranks.insert(module.clone(), json!(a.size()[0]));
        }
        tensors.extend(self.head().map(|head| (named(SCORE, "weight"), head.shallow_clone())));
        said["target_modules"] = json!(factors.keys().collect::<Vec<_>>());
        // The scales are in B.
        said["use_rslora"] = json!(false);
        said["lora_alpha"] = said["r"].clone();
        said["alpha_pattern"] = Value::Object(ranks.clone());
        said["rank_pattern"] = Value::Object(ranks);
        write_json(&folder.join(adapter::CONFIG), &said)?;
        write_tensors(&folder.join(adapter::WEIGHTS), &tensors, Kind::Float)
    }

    /// Both changes as one of the sum of their ranks: `[B₁·s₁, B₂·s₂]·[A₁; A₂]`.
    fn joined(&self, start: &Adapter) -> Result<BTreeMap<String, Factors>> {
        let mut all = start.scaled()?;
        for (pair, factors) in self.pairs.iter().zip(self.params.chunks(2)) {
            let (a, b) = (factors[0].1.f_detach()?, factors[1].1.f_detach()?.f_mul_scalar(pair.scale)?);
            let joined = match all.remove(&pair.module) {
                None => Factors { a, b, scale: 1.0 },
                Some(first) => {
                    Factors { a: Tensor::f_cat(&[first.a, a], 0)?, b: Tensor::f_cat(&[first.b, b], 1)?, scale: 1.0 }
                }
            };
            all.insert(pair.module.clone(), joined);
        }
        Ok(all)
    }

    /// Whether the whole model is saved.
    pub fn merges(&self) -> bool {
        self.merge
    }

    /// The model's parameters with the changes in them (f32).
    pub fn merged(&self, model: &Model) -> Result<Model> {
        let mut params = Vec::new();
        for (name, p) in &model.params {
            let p = p.f_detach_copy()?.f_to_kind(Kind::Float)?;
            for (pair, factors) in self.pairs.iter().zip(self.params.chunks(2)).filter(|(pair, _)| pair.slot == *name) {
                let change = factors[1].1.f_detach()?.f_matmul(&factors[0].1.f_detach()?)?.f_mul_scalar(pair.scale)?;
                let _ = p.f_narrow(0, pair.row, pair.rows)?.f_add_(&pair.order.rows().read(&change)?)?;
            }
            params.push((name.clone(), p));
        }
        if let (Some(head), Some(last)) = (self.head(), params.iter_mut().find(|(n, _)| n.starts_with(SCORE))) {
            last.1 = head.f_detach()?;
        }
        Ok(Model { config: model.config.clone(), params, lora: None })
    }
}

/// PEFT's name of a tensor.
fn named(module: &str, end: &str) -> String {
    format!("{}{module}.{end}", adapter::PREFIX)
}

/// What adapter_config.json says of an adapter with these options, if the model has the matrices that they name.
pub(super) fn said(options: &Options, model: &Config, base: &Path) -> Result<(Value, LoraConfig)> {
    let said = config_json(options, model, base);
    let config = LoraConfig::parse(&said.to_string()).map_err(|what| {
        // As the option is called.
        let what = what.strip_prefix("target_modules").map_or(what.clone(), |rest| format!("targets{rest}"));
        Error::invalid(format!("lora: {what}"))
    })?;
    check_targets(options, &config, &slots(model), model.arch.names()).map_err(Error::Invalid)?;
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
    let modules: Vec<&str> = all
        .iter()
        .filter(|slot| slot.shape.len() == 2 && slot.name.starts_with(names.layers))
        .flat_map(|slot| slot.parts.iter().map(|part| part.name.trim_end_matches(".weight")))
        .collect();
    let known = matrices(names).into_iter().collect::<Vec<_>>().join(", ");
    let ends_with =
        |module: &str, end: &str| module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if let Targets::Ends(ends) = &options.targets
        && let Some(odd) = ends.iter().filter(|end| !is_all(end)).find(|end| !modules.iter().any(|m| ends_with(m, end)))
    {
        return Err(format!("lora: targets: \"{odd}\" is no matrix of the model's layers; there are {known}"));
    }
    let place = Place { names, linear: true };
    match modules.iter().any(|m| config.changes(m, &place)) {
        true => Ok(()),
        false => Err(format!("lora: targets: no matrix of the model's layers is meant; there are {known}")),
    }
}

/// Numbers between −`bound` and `bound`.
fn uniform(shape: [i64; 2], bound: f64, rng: &mut Rng) -> Result<Tensor> {
    let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.random_range(-bound..bound) as f32).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view(shape)?)
}
