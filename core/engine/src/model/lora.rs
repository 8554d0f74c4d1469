//! LoRA (Hu et al. 2021): low-rank changes that train while the base stands still, written as PEFT writes them.

use super::adapter::{Adapter, Factors};
use super::arch::Names;
use super::head::{Head, SCORE};
use super::layers::Change;
use super::peft::{LoraConfig, Place};
use super::save::{write_json, write_tensors};
use super::slots::{Order, Slot, slots};
use super::weights::{Tensors, read_weights};
use super::{Config, Model, adapter, normal};
use crate::plan::{Gains, Lora as Options, Targets};
use crate::{Error, Result};
use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Why gains cannot go on from an adapter.
pub const GAINS_BEGIN: &str = "lora: gains begin at a whole model, and the policy is an adapter already; merge it first (lora.merge = true where it is \
                               trained)";

/// An adapter in training.
pub struct Lora {
    /// adapter_config.json.
    said: Value,
    /// What trains (f32), by PEFT's names where PEFT has it: factors A (`[r, in]`) and B (`[out, r]`) of each change, what stands between them, and a
    /// reward model's head.
    pub params: Vec<(String, Tensor)>,
    pairs: Vec<Pair>,
    /// Blocks of changes, each of which a query gives a gain.
    blocks: usize,
    pub dropout: f64,
    /// What the base began with: it is part of what stands still, and of what is saved.
    start: Option<Adapter>,
    merge: bool,
}

/// A change of a matrix: where it goes, and its parameters by their places.
struct Pair {
    place: Arc<Target>,
    a: usize,
    b: usize,
    /// Factors of its ranks.
    diagonal: Option<usize>,
    block: Option<usize>,
}

/// A matrix that is changed.
struct Target {
    module: String,
    /// The parameter, and the rows of it.
    slot: String,
    row: i64,
    rows: i64,
    columns: i64,
    order: Order,
    rank: i64,
    scale: f64,
}

impl Lora {
    /// New changes, which change nothing yet: A uniform within 1/√in, B zero, as PEFT begins. `base` is where the model lies; `start` an
    /// adapter that is in the model already; gains are of so many `objectives`.
    pub fn new(
        options: &Options,
        model: &Model,
        base: &Path,
        start: Option<Adapter>,
        objectives: usize,
        seed: u64,
    ) -> Result<Self> {
        if !options.gains.is_none() && start.is_some() {
            return Err(Error::invalid(GAINS_BEGIN));
        }
        let (said, config) = said(options, &model.config, base)?;
        let blocks = if options.gains.is_none() { 0 } else { objectives };
        let (params, pairs) = (Vec::new(), Vec::new());
        let mut lora = Self { said, params, pairs, blocks, dropout: options.dropout, start, merge: options.merge };
        let mut rng = Rng::seed_from_u64(seed);
        for target in targets(&model.config, &config) {
            lora.add(&Arc::new(target), options.gains, &mut rng)?;
        }
        for (_, p) in &mut lora.params {
            *p = p.f_to_device(model.device())?;
        }
        lora.train_head(model)?;
        Ok(lora)
    }

    /// The changes of a matrix.
    fn add(&mut self, place: &Arc<Target>, gains: Gains, rng: &mut Rng) -> Result<()> {
        let bound = 1.0 / (place.columns as f64).sqrt();
        match gains {
            Gains::None => self.push(place, uniform([place.rank, place.columns], bound, rng)?, "", None, None),
            // Conditional Language Policy (Wang et al. 2024).
            Gains::Copies => (0..self.blocks).try_for_each(|k| {
                self.push(
                    place,
                    uniform([place.rank, place.columns], bound, rng)?,
                    &format!("copy_{k}."),
                    None,
                    Some(k),
                )
            }),
            // Panacea (Zhong et al. 2024): W₀ + B·diag(σ, s·w)·A. It begins at A and σ of deviation 0.02, s of 0.5, B zero.
            Gains::Diagonal => {
                let sigma = self.push_diagonal(place, "sigma", normal(&[place.rank], 0.02, rng)?);
                self.push(place, normal(&[place.rank, place.columns], 0.02, rng)?, "", Some(sigma), None)?;
                let s = self.push_diagonal(place, "s", normal(&[1], 0.5, rng)?);
                (0..self.blocks).try_for_each(|k| {
                    self.push(place, normal(&[1, place.columns], 0.02, rng)?, &format!("weight_{k}."), Some(s), Some(k))
                })
            }
        }
    }

    fn push(
        &mut self,
        place: &Arc<Target>,
        a: Tensor,
        named_by: &str,
        diagonal: Option<usize>,
        block: Option<usize>,
    ) -> Result<()> {
        let b = Tensor::f_zeros([place.rows, a.size()[0]], (Kind::Float, Device::Cpu))?;
        let at = self.params.len();
        self.params.push((format!("{named_by}{}", named(&place.module, "lora_A.weight")), a));
        self.params.push((format!("{named_by}{}", named(&place.module, "lora_B.weight")), b));
        self.pairs.push(Pair { place: place.clone(), a: at, b: at + 1, diagonal, block });
        Ok(())
    }

    fn push_diagonal(&mut self, place: &Target, name: &str, numbers: Tensor) -> usize {
        self.params.push((named(&place.module, name), numbers));
        self.params.len() - 1
    }

    /// Gains that a query must bring.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    fn param(&self, at: usize) -> &Tensor {
        &self.params[at].1
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
        let own = self.pairs.iter().filter(|pair| pair.place.slot == slot);
        own.map(|Pair { place, a, b, diagonal, block }| {
            Ok(Change {
                row: place.row,
                a: self.param(*a).f_to_kind(dtype)?,
                b: place.order.rows().read(self.param(*b))?.f_to_kind(dtype)?,
                scale: place.scale,
                diagonal: diagonal.map(|at| self.param(at).f_to_kind(dtype)).transpose()?,
                block: *block,
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
        match &self.start {
            None => self.save_training(folder),
            Some(start) => self.save_summed(folder, self.summed(Some(start), None)?),
        }
    }

    /// Writes the change at all weight on one objective as a PEFT folder. Weights add up to 1, so that those of all objectives, each times its
    /// weight, add up to the change at any weights.
    pub fn save_part(&self, folder: &Path, objective: usize) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        self.save_summed(folder, self.summed(None, Some(objective))?)
    }

    fn save_summed(&self, folder: &Path, factors: BTreeMap<String, Factors>) -> Result<()> {
        let (mut tensors, mut ranks, mut said) = (Vec::new(), Map::new(), self.said.clone());
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

    /// Changes of a matrix as one of the sum of their ranks, `[B₁·s₁, B₂·s₂]·[A₁; A₂]`: those that are always there, and those of one block.
    fn summed(&self, start: Option<&Adapter>, block: Option<usize>) -> Result<BTreeMap<String, Factors>> {
        let mut all = start.map_or_else(|| Ok(BTreeMap::new()), Adapter::scaled)?;
        for pair in self.pairs.iter().filter(|pair| pair.block.is_none() || pair.block == block) {
            let a = self.param(pair.a).f_detach()?;
            let mut b = self.param(pair.b).f_detach()?.f_mul_scalar(pair.place.scale)?;
            if let Some(diagonal) = pair.diagonal {
                b = b.f_mul(&self.param(diagonal).f_detach()?)?;
            }
            let joined = match all.remove(&pair.place.module) {
                None => Factors { a, b, scale: 1.0 },
                Some(first) => {
                    Factors { a: Tensor::f_cat(&[first.a, a], 0)?, b: Tensor::f_cat(&[first.b, b], 1)?, scale: 1.0 }
                }
            };
            all.insert(pair.place.module.clone(), joined);
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
            for Pair { place, a, b, .. } in self.pairs.iter().filter(|pair| pair.place.slot == *name) {
                let change =
                    self.param(*b).f_detach()?.f_matmul(&self.param(*a).f_detach()?)?.f_mul_scalar(place.scale)?;
                let _ = p.f_narrow(0, place.row, place.rows)?.f_add_(&place.order.rows().read(&change)?)?;
            }
            params.push((name.clone(), p));
        }
        if let (Some(head), Some(last)) = (self.head(), params.iter_mut().find(|(n, _)| n.starts_with(SCORE))) {
            last.1 = head.f_detach()?;
        }
        Ok(Model { config: model.config.clone(), params, lora: None })
    }
}

/// The matrices that an adapter changes.
fn targets(model: &Config, config: &LoraConfig) -> Vec<Target> {
    let (mut out, place) = (Vec::new(), Place { names: model.arch.names(), linear: true });
    for slot in slots(model).iter().filter(|slot| adapter::is_linear(slot, model)) {
        let mut row = 0;
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
