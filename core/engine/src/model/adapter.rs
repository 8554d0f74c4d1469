//! LoRA adapters as PEFT saves them: adapter_config.json (`peft.rs` reads it) and adapter_model.safetensors.

mod fit;

use super::Model;
use super::arch::FAMILIES;
use super::changes::Change;
use super::config::Config;
use super::head::{Head, SCORE};
use super::labels::Labels;
use super::peft::LoraConfig;
use super::sizes::Trained;
use super::slots::{Slot, slots};
use super::soft;
use super::weights::{Tensors, outline, read_weights};
use crate::finite::not_finite;
use crate::obey;
use crate::{Error, Result, names};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

pub(super) const PREFIX: &str = "base_model.model.";
pub(super) const CONFIG: &str = "adapter_config.json";
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// Changes of a model's matrices, by the checkpoint's names of them, and soft tokens before its prompts.
pub struct Adapter {
    name: String,
    config: LoraConfig,
    factors: BTreeMap<String, Factors>,
    /// Matrices and norms that take the place of the base's.
    whole: Tensors,
    /// Of a classifier's head, if the folder says them.
    labels: Option<Labels>,
    /// `[tokens, hidden]`.
    soft: Option<Tensor>,
}

/// A low-rank change `scale·B·A`: A is `[r, in]`, B `[out, r]`.
pub(super) struct Factors {
    pub a: Tensor,
    pub b: Tensor,
    pub scale: f64,
}

impl Adapter {
    pub fn is_one(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        Self::read(folder, device, |file| {
            let mut tensors = Tensors::new();
            read_weights(file, &mut tensors).map(|()| tensors)
        })
    }

    /// An adapter by the names and shapes of its tensors, which are all zero: what can be known of it before it is loaded.
    pub fn outline(folder: &Path) -> Result<Self> {
        Self::read(folder, Device::Cpu, outline)
    }

    fn read(folder: &Path, device: Device, read: impl Fn(&Path) -> Result<Tensors>) -> Result<Self> {
        let config = read_config(folder)?;
        let file = folder.join(WEIGHTS);
        if !file.is_file() && folder.join("adapter_model.bin").is_file() {
            let what = format!(
                "has its weights as adapter_model.bin, and motrain reads {WEIGHTS}; load and save it with a newer peft"
            );
            return Err(Error::file(folder, what));
        }
        let tensors: Tensors =
            read(&file)?.into_iter().map(|(name, t)| Ok((name, t.f_to_device(device)?))).collect::<Result<_>>()?;
        let name = folder.display().to_string();
        if let Some(tokens) = config.soft_tokens {
            let soft = Some(soft::read(tensors, tokens).map_err(|what| Error::file(&file, what))?);
            return Ok(Self { name, config, factors: BTreeMap::new(), whole: Tensors::new(), labels: None, soft });
        }
        let adapter = Self::of(name, config, tensors).map_err(|what| Error::file(&file, what))?;
        let beside = folder.join(soft::BESIDE);
        let soft = if Self::is_one(&beside) { Self::read(&beside, device, read)?.soft } else { None };
        Ok(Self { labels: Labels::load(folder)?, soft, ..adapter })
    }

    /// Sorts the tensors of an adapter's file by what they do.
    fn of(name: String, config: LoraConfig, tensors: Tensors) -> std::result::Result<Self, String> {
        let (mut a, mut b, mut whole) = (Tensors::new(), Tensors::new(), Tensors::new());
        for (name, tensor) in tensors {
            let odd = || {
                format!(
                    "holds {name}, which is neither a LoRA factor of a matrix nor a module that modules_to_save names"
                )
            };
            let inner = name.strip_prefix(PREFIX).ok_or_else(odd)?;
            if inner.ends_with(".bias")
                && let Some(bias) = &config.bias
            {
                return Err(biased(bias));
            }
            let part = |end: &str| inner.strip_suffix(end).map(str::to_owned);
            let turned = || tensor.f_transpose(0, 1).map_err(|_| odd());
            if let Some(module) = part(".lora_A.weight") {
                a.insert(module, tensor);
            } else if let Some(module) = part(".lora_B.weight") {
                b.insert(module, tensor);
            } else if let Some(module) = part(".lora_embedding_A") {
                // Of the embedding's transpose.
                b.insert(module, turned()?);
            } else if let Some(module) = part(".lora_embedding_B") {
                a.insert(module, turned()?);
            } else {
                let module = part(".base_layer.weight").or(part(".weight")).ok_or_else(odd)?;
                let layer_of_own_head = module == "model.embed_tokens" || module == "lm_head";
                if !config.replaces(&module) && !layer_of_own_head {
                    return Err(odd());
                }
                whole.insert(format!("{module}.weight"), tensor);
            }
        }
        let mut factors = BTreeMap::new();
        for (module, a) in a {
            let b = b.remove(&module).ok_or_else(|| format!("has no lora_B of {module}"))?;
            let rank = config.rank(&module);
            if a.dim() != 2 || b.dim() != 2 || a.size()[0] != rank || b.size()[1] != rank {
                let what = format!("holds factors {:?} and {:?} of {module}", b.size(), a.size());
                return Err(format!("{what}, where {CONFIG} says a rank of {rank} (r, rank_pattern)"));
            }
            factors.insert(format!("{module}.weight"), Factors { a, b, scale: config.scale(&module) });
        }
        match b.keys().next() {
            Some(module) => Err(format!("has no lora_A of {module}")),
            None if factors.is_empty() && whole.is_empty() => Err("holds no LoRA factors".into()),
            None => Ok(Self { name, config, factors, whole, labels: None, soft: None }),
        }
    }

    /// How many numbers a folder's low-rank changes of a base hold, without reading them.
    pub fn numbers(folder: &Path, base: &Config) -> Result<f64> {
        let config = read_config(folder)?;
        let beside = folder.join(soft::BESIDE);
        let beside = Self::is_one(&beside).then(|| read_config(&beside)).transpose()?;
        let tokens = config.soft_tokens.or(beside.and_then(|config| config.soft_tokens)).unwrap_or(0);
        Ok(Trained::of_changes(&config, base).numbers() + tokens as f64 * base.shape.hidden_size as f64)
    }

    /// Soft tokens that go before prompts, `[tokens, hidden]`.
    pub fn soft_tokens(&self) -> Option<&Tensor> {
        self.soft.as_ref()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the factors of both can be added up. Whole matrices have none.
    pub fn same_shape(&self, other: &Self) -> bool {
        let shapes =
            |a: &Self| a.factors.iter().map(|(k, f)| (k.clone(), f.a.size(), f.b.size(), f.scale)).collect::<Vec<_>>();
        self.whole.is_empty() && other.whole.is_empty() && shapes(self) == shapes(other)
    }

    /// A copy of `base` with the changes of an adapter whose factors are the weighted sums of these adapters' factors, which have the
    /// same shapes.
    pub fn mixed_onto(base: &Model, adapters: &[Self], weights: &[f64]) -> Result<Model> {
        let mut factors = BTreeMap::new();
        for (module, first) in &adapters[0].factors {
            let sum = |pick: fn(&Factors) -> &Tensor| -> Result<Tensor> {
                let mut sum = pick(first).f_zeros_like()?;
                for (adapter, &w) in adapters.iter().zip(weights) {
                    sum = sum.f_add(&pick(&adapter.factors[module]).f_mul_scalar(w)?)?;
                }
                Ok(sum)
            };
            factors.insert(module.clone(), Factors { a: sum(|f| &f.a)?, b: sum(|f| &f.b)?, scale: first.scale });
        }
        changed(base.frozen_copy()?, "the mixed adapter", &factors, &Tensors::new())
    }

    /// What is added to the rows of a parameter's product, as a block of changes of its own.
    pub(super) fn changes(&self, slot: &Slot, block: Option<usize>, dtype: Kind) -> Result<Vec<Change>> {
        let (mut row, mut out) = (0, Vec::new());
        for part in &slot.parts {
            if let Some(Factors { a, b, scale }) = self.factors.get(&part.name) {
                // One factor alone where the other is the identity.
                let (a, b) = if is_identity(a)? {
                    (None, b)
                } else if is_identity(b)? {
                    (None, a)
                } else {
                    (Some(a.f_to_kind(dtype)?), b)
                };
                let b = part.order.rows().read(b)?.f_to_kind(dtype)?;
                out.push(Change { row, a, b, scale: *scale, diagonal: None, block });
            }
            row += part.rows;
        }
        Ok(out)
    }

    /// The factors by module, with their scales in B.
    pub(super) fn scaled(&self) -> Result<BTreeMap<String, Factors>> {
        let one = |(name, f): (&String, &Factors)| {
            let module = name.trim_end_matches(".weight").to_owned();
            Ok((module, Factors { a: f.a.shallow_clone(), b: f.b.f_mul_scalar(f.scale)?, scale: 1.0 }))
        };
        self.factors.iter().map(one).collect()
    }

    /// Whether it is changes of matrices and nothing else.
    pub fn is_low_rank(&self) -> bool {
        self.takes_gains() && self.soft.is_none()
    }

    /// Whether all of it can be there in part, beside the base: whole matrices and changes of embeddings cannot.
    pub fn takes_gains(&self) -> bool {
        self.whole.is_empty() && !self.factors.keys().any(|name| is_table(name))
    }

    /// Where the base lies that it was made for: as it is said, seen from the adapter, or in the run that both are a part of.
    pub fn base(&self) -> Result<PathBuf> {
        base_of(Path::new(&self.name), &self.config)
    }

    /// The same of a folder whose weights are not read yet.
    pub fn base_in(folder: &Path) -> Result<PathBuf> {
        base_of(folder, &read_config(folder)?)
    }

    /// The base with the changes in it.
    pub fn merged_into(&self, base: Model) -> Result<Model> {
        match self.head(&base.config)? {
            Some((head, labels)) => self.put_into(base.with_head(head.f_detach_copy()?, labels)?),
            None => self.put_into(base),
        }
    }

    /// The base's configuration, with what the changes make of it.
    pub fn in_base(&self, mut base: Config) -> Result<Config> {
        if let Some((_, labels)) = self.head(&base)? {
            base.end_in_scores(labels);
        }
        self.is_of_weights()?;
        self.check(&base).map(|()| base)
    }

    /// A head that takes the place of the base's, and what its labels are called.
    fn head(&self, base: &Config) -> Result<Option<(&Tensor, Labels)>> {
        let Some(head) = self.whole.get(&format!("{SCORE}.weight")) else { return Ok(None) };
        let rows = head.size().first().map_or(0, |&rows| rows as usize);
        match &self.labels {
            Some(labels) if labels.names.len() != rows => {
                let (who, count) = (&self.name, labels.names.len());
                Err(Error::invalid(format!("{who}: labels.json names {count} labels of a head that has {rows}")))
            }
            Some(labels) => Ok(Some((head, labels.clone()))),
            None if base.head == Head::Score && base.labels.len() == rows => Ok(None),
            None => Ok(Some((head, Labels::numbered(rows)))),
        }
    }

    /// A copy of `base` with the changes added.
    pub fn applied_to(&self, base: &Model) -> Result<Model> {
        self.put_into(base.frozen_copy()?)
    }

    fn put_into(&self, base: Model) -> Result<Model> {
        self.check(&base.config)?;
        self.is_of_weights()?;
        changed(base, &self.name, &self.factors, &self.whole)
    }

    /// Refuses what training cannot go on from.
    pub fn can_go_on(&self) -> Result<()> {
        self.is_of_weights()?;
        match self.whole.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{}: holds whole matrices; training can go on from low-rank changes only",
                self.name
            ))),
        }
    }

    /// Refuses soft tokens where a model's weights are asked for.
    pub fn is_of_weights(&self) -> Result<()> {
        match self.soft {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "{}: has soft tokens, which no model's weights can hold; it answers as a part of a policy that weights steer (gains: [..])",
                self.name
            ))),
        }
    }
}

/// Where a folder's tokenizer lies: an adapter's may be its base's.
pub fn tokenizer_folder(folder: &Path) -> Result<PathBuf> {
    match Adapter::is_one(folder) && !folder.join("tokenizer.json").is_file() {
        true => Adapter::base_in(folder),
        false => Ok(folder.to_owned()),
    }
}

fn read_config(folder: &Path) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    LoraConfig::parse(&text).map_err(|what| Error::file(&path, what))
}

fn base_of(folder: &Path, config: &LoraConfig) -> Result<PathBuf> {
    let said = config.base.as_deref().unwrap_or_default();
    // A run may have been moved: what its stages made lies where it lay in it.
    let stages = Path::new(names::STAGES);
    let tail: PathBuf = Path::new(said).iter().skip_while(|part| *part != stages.as_os_str()).collect();
    let moved = folder.ancestors().filter(|_| tail.starts_with(stages)).map(|above| above.join(&tail));
    // A policy that was handed on has it beside its adapters.
    let beside = folder.ancestors().take(3).map(|above| above.join(names::BASE));
    let mut places = [PathBuf::from(said), folder.join(said)].into_iter().chain(moved).chain(beside);
    let found = places.find(|place| !said.is_empty() && place.join("config.json").is_file());
    found.ok_or_else(|| {
        let what = format!(
            "is an adapter of \"{said}\", which is no model folder here; say in its {CONFIG} (base_model_name_or_path) where the base lies"
        );
        Error::file(folder, what)
    })
}

/// Whether a parameter is looked up by token or by position, in any family.
fn is_table(name: &str) -> bool {
    let module = name.trim_end_matches(".weight");
    FAMILIES.iter().map(|arch| arch.names()).any(|names| names.embed == module || names.positions == Some(module))
}

/// Whether a factor leaves what it is given as it is: a change of full rank is written so.
pub(super) fn is_identity(factor: &Tensor) -> Result<bool> {
    let (rows, columns) = factor.size2()?;
    Ok(rows == columns && factor.f_equal(&Tensor::f_eye(rows, (factor.f_kind()?, factor.device()))?)?)
}

/// Of an adapter that changes biases of its base, all or those of the matrices that it changes.
fn biased(how: &str) -> String {
    format!(
        "{CONFIG} says bias = \"{how}\": the base's biases were trained too, which motrain does not do; merge the adapter into its base with \
         peft's merge_and_unload(), or train it with bias = \"none\""
    )
}

/// Whether a parameter is a matrix of a layer.
pub(super) fn is_linear(slot: &Slot, config: &Config) -> bool {
    slot.shape.len() == 2 && slot.name.starts_with(config.arch.names().layers)
}

fn changed(mut model: Model, who: &str, factors: &BTreeMap<String, Factors>, whole: &Tensors) -> Result<Model> {
    no_grad(|| {
        for (slot, (_, param)) in slots(&model.config).into_iter().zip(&mut model.params) {
            obey()?;
            let mut row = 0;
            for part in &slot.parts {
                let name = &part.name;
                let mut target = param.f_narrow(0, row, part.rows)?;
                if let Some(own) = whole.get(name) {
                    target.f_copy_(&part.order.read(own)?)?;
                }
                if let Some(Factors { a, b, scale }) = factors.get(name) {
                    let _ = target.f_add_(&part.order.rows().read(&b.f_matmul(a)?.f_mul_scalar(*scale)?)?)?;
                    if let Some(what) = not_finite(&target)? {
                        return Err(Error::invalid(format!("{who}: with its change, of {name} {what}")));
                    }
                }
                row += part.rows;
            }
        }
        Ok(model)
    })
}

#[cfg(test)]
mod tests;
