//! LoRA (Hu et al. 2021): low-rank changes that train while the base stands still, written as PEFT writes them.

use super::adapter::{Adapter, Factors, is_identity};
use super::changes::Change;
use super::head::SCORE;
use super::save::write_tensors;
use super::soft;
use super::targets::{Target, mean_head, named, said, targets, trained_head};
use super::weights::{Tensors, read_weights};
use super::{Config, Model, adapter, normal};
use crate::files::write_json;
use crate::{Error, Result};
use motrain_core::plan::{Gains, Lora as Options};
use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Why what weights steer cannot go on from an adapter.
pub const GAINS_BEGIN: &str = "lora: gains and soft tokens begin at a whole model, and the policy is an adapter already; merge it first (lora.merge = true where it is \
                               trained)";

/// An adapter in training.
pub struct Lora {
    /// adapter_config.json.
    said: Value,
    /// What trains (f32), by PEFT's names where PEFT has it: factors A (`[r, in]`) and B (`[out, r]`) of each change, or a whole one, what stands
    /// between factors, soft tokens, and a reward model's head.
    pub params: Vec<(String, Tensor)>,
    pairs: Vec<Placed>,
    /// Blocks of changes, each of which a query gives a gain.
    blocks: usize,
    /// Where the soft tokens begin, a set `[tokens, hidden]` of each objective.
    soft: Option<usize>,
    model: Config,
    pub dropout: f64,
    /// What the base began with: it is part of what stands still, and of what is saved.
    start: Option<Adapter>,
    merge: bool,
}

/// A change of a matrix: where it goes, and its parameters by their places. One of full rank has no A.
struct Placed {
    place: Arc<Target>,
    a: Option<usize>,
    b: usize,
    /// Factors of its ranks.
    diagonal: Option<usize>,
    block: Option<usize>,
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
        if options.is_steered() && start.is_some() {
            return Err(Error::invalid(GAINS_BEGIN));
        }
        let (said, config) = said(options, &model.config, base)?;
        let blocks = if options.is_steered() { objectives } else { 0 };
        let (params, pairs, own) = (Vec::new(), Vec::new(), model.config.clone());
        let (dropout, merge) = (options.dropout, options.merge);
        let mut lora = Self { said, params, pairs, blocks, soft: None, model: own, dropout, start, merge };
        let mut rng = Rng::seed_from_u64(seed);
        let with_head = mean_head(options, model.config.arch.names());
        for target in targets(&model.config, &config, with_head) {
            match options.full {
                true => lora.add_whole(&Arc::new(Target { scale: 1.0, ..target }), options.gains)?,
                false => lora.add(&Arc::new(target), options.gains, &mut rng)?,
            }
        }
        if options.soft_tokens > 0 {
            lora.add_soft_tokens(options.soft_tokens, model, &mut rng)?;
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

    /// Changes of the rank that the matrix has, zero at first: one, or a copy for each objective.
    fn add_whole(&mut self, place: &Arc<Target>, gains: Gains) -> Result<()> {
        let copies = if gains.is_none() { vec![None] } else { (0..self.blocks).map(Some).collect() };
        for block in copies {
            let of = block.map_or(String::new(), |k| format!("copy_{k}."));
            let (b, shape) = (self.params.len(), [place.rows, place.columns]);
            let change = Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?;
            self.params.push((format!("{of}{}", named(&place.module, "change")), change));
            self.pairs.push(Placed { place: place.clone(), a: None, b, diagonal: None, block });
        }
        Ok(())
    }

    /// Soft tokens begin as embeddings of tokens that are drawn from the vocabulary, the same for all objectives.
    fn add_soft_tokens(&mut self, tokens: usize, model: &Model, rng: &mut Rng) -> Result<()> {
        let table = format!("{}.weight", model.config.arch.names().embed);
        let found = model.params.iter().find(|(name, _)| *name == table);
        let (_, table) = found.ok_or_else(|| Error::invalid(format!("the model has no {table}")))?;
        let drawn: Vec<i64> = (0..tokens).map(|_| rng.random_range(0..table.size()[0])).collect();
        let rows = Tensor::f_from_slice(&drawn)?.f_to_device(table.device())?;
        let first = table.f_detach()?.f_index_select(0, &rows)?.f_to_kind(Kind::Float)?;
        self.soft = Some(self.params.len());
        for k in 0..self.blocks {
            self.params.push((format!("soft_tokens.{k}"), first.f_detach_copy()?));
        }
        Ok(())
    }

    /// Of each objective, `[tokens, hidden]`.
    pub fn soft_sets(&self) -> Vec<&Tensor> {
        self.soft.iter().flat_map(|&at| &self.params[at..at + self.blocks]).map(|(_, set)| set).collect()
    }

    /// Soft tokens before a prompt.
    pub fn soft_tokens(&self) -> usize {
        self.soft_sets().first().map_or(0, |set| set.size()[0] as usize)
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
        self.pairs.push(Placed { place: place.clone(), a: Some(at), b: at + 1, diagonal, block });
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
        own.map(|Placed { place, a, b, diagonal, block }| {
            Ok(Change {
                row: place.row,
                a: a.map(|a| self.param(a).f_to_kind(dtype)).transpose()?,
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
            None if self.pairs.iter().all(|pair| pair.a.is_some()) => self.save_training(folder),
            start => self.save_summed(folder, self.summed(start.as_ref(), None)?),
        }
    }

    /// Writes the change at all weight on one objective as a PEFT folder. Weights add up to 1, so that those of all objectives, each times its
    /// weight, add up to the change at any weights.
    pub fn save_part(&self, folder: &Path, objective: usize) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let alone = self.pairs.is_empty();
        if let Some(set) = self.soft_sets().get(objective) {
            let place = if alone { folder.to_owned() } else { folder.join(soft::BESIDE) };
            soft::save(&place, &self.model, &self.said["base_model_name_or_path"], set)?;
        }
        if alone { Ok(()) } else { self.save_summed(folder, self.summed(None, Some(objective))?) }
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

    /// Changes of a matrix as one of the sum of their ranks, `[B₁·s₁, B₂·s₂]·[A₁; A₂]`, or of full rank: those that are always there, and those of one block.
    fn summed(&self, start: Option<&Adapter>, block: Option<usize>) -> Result<BTreeMap<String, Factors>> {
        let mut all = start.map_or_else(|| Ok(BTreeMap::new()), Adapter::scaled)?;
        for pair in self.pairs.iter().filter(|pair| pair.block.is_none() || pair.block == block) {
            let mut b = self.param(pair.b).f_detach()?.f_mul_scalar(pair.place.scale)?;
            if let Some(diagonal) = pair.diagonal {
                b = b.f_mul(&self.param(diagonal).f_detach()?)?;
            }
            let own = match pair.a {
                Some(a) => Factors { a: self.param(a).f_detach()?, b, scale: 1.0 },
                None => whole(b)?,
            };
            let joined = match all.remove(&pair.place.module) {
                None => own,
                Some(first) => joined(first, own)?,
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
            for Placed { place, a, b, .. } in self.pairs.iter().filter(|pair| pair.place.slot == *name) {
                let change = match a {
                    Some(a) => self.param(*b).f_detach()?.f_matmul(&self.param(*a).f_detach()?)?,
                    None => self.param(*b).f_detach()?,
                };
                let change = change.f_mul_scalar(place.scale)?;
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

/// A change `[out, in]` as PEFT has changes: times the identity, on the side where that is smaller.
fn whole(change: Tensor) -> Result<Factors> {
    let (rows, columns) = change.size2()?;
    let change = change.f_to_device(Device::Cpu)?;
    let identity = Tensor::f_eye(rows.min(columns), (Kind::Float, Device::Cpu))?;
    let (a, b) = if rows < columns { (change, identity) } else { (identity, change) };
    Ok(Factors { a, b, scale: 1.0 })
}

/// Two changes of a matrix as one.
fn joined(first: Factors, second: Factors) -> Result<Factors> {
    let full = |f: &Factors| Ok::<_, Error>(is_identity(&f.a)? || is_identity(&f.b)?);
    if full(&first)? || full(&second)? {
        let product = |f: &Factors| f.b.f_matmul(&f.a)?.f_to_device(Device::Cpu);
        return whole(product(&first)?.f_add(&product(&second)?)?);
    }
    let (a, b) = (Tensor::f_cat(&[first.a, second.a], 0)?, Tensor::f_cat(&[first.b, second.b], 1)?);
    Ok(Factors { a, b, scale: 1.0 })
}

/// Numbers between −`bound` and `bound`.
fn uniform(shape: [i64; 2], bound: f64, rng: &mut Rng) -> Result<Tensor> {
    let numbers: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.random_range(-bound..bound) as f32).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view(shape)?)
}
