//! Models: one network (`net.rs`, read top-down) for all families (`arch.rs`, `family/`), with parameters under the checkpoint's names.

mod adapter;
mod arch;
mod attention;
mod block;
mod cache;
mod changes;
mod config;
mod config_json;
mod family;
mod head;
mod labels;
mod layers;
mod load;
mod lora;
mod mix;
mod net;
mod output;
mod passes;
mod peft;
mod rope;
mod save;
mod shape;
mod sizes;
mod slots;
mod soft;
mod tape;
mod targets;
mod unread;
mod weights;

pub use adapter::{Adapter, WEIGHTS as ADAPTER, tokenizer_folder};
pub use arch::{Arch, FAMILIES};
pub use cache::Cache;
pub use changes::RowGains;
pub use config::Config;
pub use family::llama::LlamaSizes;
pub use head::Head;
pub use labels::Labels;
pub use lora::{GAINS_BEGIN, Lora};
pub use mix::Mix;
pub use net::{Mask, Net};
pub use passes::{Batch, F32, PACKED, Passes};
pub use peft::LoraConfig;
pub(crate) use save::write_tensors;
pub use shape::Shape;
pub use sizes::{Trained, numbers};
pub use soft::BESIDE as SOFT_TOKENS;
pub(crate) use weights::read_file;
pub use weights::{SHARD, check_safetensors, check_stored, largest_file, numbers_of, parameter_count};

use crate::{Error, Result};
use head::SCORE;
use motrain_core::plan::Lora as LoraOptions;
use motrain_core::rng::Rng;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use shape::Norm;
use slots::slots;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A model: its configuration and named f32 master weights.
pub struct Model {
    pub config: Config,
    /// With an adapter in training they stand still, in the type of computing.
    pub params: Vec<(String, Tensor)>,
    /// The adapter in training.
    pub lora: Option<Lora>,
}

impl Model {
    /// A model with random weights: normal with deviation 0.02 (residual projections scaled down by depth), norms that scale by 1, no bias.
    pub fn init(config: Config, seed: u64, device: Device) -> Result<Self> {
        let mut rng = Rng::seed_from_u64(seed);
        let residual = 0.02 / (2.0 * config.shape.layers.len() as f64).sqrt();
        let names = config.arch.names();
        let into_residual = [names.o, names.down].map(|name| format!("{name}.weight"));
        let scale = if matches!(config.shape.norm, Norm::RmsPlusOne(_)) { 0.0 } else { 1.0 };
        let params = slots(&config)
            .into_iter()
            .map(|slot| {
                let std = if into_residual.iter().any(|end| slot.name.ends_with(end)) { residual } else { 0.02 };
                let tensor = match slot.shape.len() {
                    1 if slot.name.ends_with(".bias") => Tensor::f_zeros(&slot.shape, (Kind::Float, device))?,
                    1 => Tensor::f_full(&slot.shape, scale, (Kind::Float, device))?,
                    _ => normal(&slot.shape, std, &mut rng)?.f_to_device(device)?,
                };
                Ok((slot.name, tensor))
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, params, lora: None })
    }

    /// The backbone's first `layers` layers (0: all) with a new head for these labels, of deviation 1/√(d+1).
    pub fn into_reward_model(mut self, layers: i64, labels: Labels, seed: u64) -> Result<Self> {
        let shape = &mut self.config.shape;
        let keep = if layers == 0 { shape.layers.len() } else { shape.layers.len().min(layers as usize) };
        shape.layers.truncate(keep);
        let (rows, width) = (labels.names.len() as i64, shape.hidden_size);
        let head = normal(&[rows, width], 1.0 / ((width + 1) as f64).sqrt(), &mut Rng::seed_from_u64(seed))?;
        self.with_head(head, labels)
    }

    pub fn device(&self) -> Device {
        self.params[0].1.device()
    }

    /// Has an adapter trained, and nothing else. `folder` is where the base lies; `start` an adapter that is in the model already; gains are of so
    /// many `objectives`.
    pub fn attach(
        &mut self,
        options: &LoraOptions,
        folder: &Path,
        start: Option<Adapter>,
        objectives: usize,
        seed: u64,
    ) -> Result<()> {
        let place = std::path::absolute(folder).map_err(|e| Error::io(folder, e))?;
        self.lora = Some(Lora::new(options, self, &place, start, objectives, seed)?);
        Ok(())
    }

    /// The model with this head, a number for each of the labels, in the place of its own.
    pub fn with_head(mut self, head: Tensor, labels: Labels) -> Result<Self> {
        let name = format!("{SCORE}.weight");
        self.config.end_in_scores(labels);
        let wanted = slots(&self.config);
        self.params.retain(|(own, _)| *own != name && wanted.iter().any(|slot| slot.name == *own));
        self.params.push((name, head.f_to_device(self.device())?));
        Ok(self)
    }

    /// A copy that training does not move.
    pub fn frozen_copy(&self) -> Result<Self> {
        self.frozen(|p| Ok(p.f_detach_copy()?))
    }

    fn frozen(&self, copied: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let copy = |(name, p): &(String, Tensor)| Ok((name.clone(), copied(p)?));
        let params = self.params.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { config: self.config.clone(), params, lora: None })
    }

    /// The network as training found it: a copy, or the base below an adapter, which is shared.
    pub fn reference(&self, dtype: Kind) -> Result<Net> {
        match self.lora {
            Some(_) => Net::of_base(self, dtype)?.frozen(),
            None if dtype == Kind::Float => self.frozen_copy()?.net(dtype),
            None => self.frozen(|p| Ok(p.f_detach()?.f_to_kind(dtype)?))?.net(dtype),
        }
    }

    /// What training moves.
    pub fn trained(&self) -> &[(String, Tensor)] {
        self.lora.as_ref().map_or(&self.params, |lora| &lora.params)
    }

    pub fn require_grad(&mut self) -> Result<()> {
        let trained = self.lora.as_mut().map_or(&mut self.params, |lora| &mut lora.params);
        for (_, p) in trained {
            *p = p.f_set_requires_grad(true)?;
        }
        Ok(())
    }

    /// Gains that a query must bring.
    pub fn blocks(&self) -> usize {
        self.lora.as_ref().map_or(0, Lora::blocks)
    }

    /// Positions that a prompt and its completion have together.
    pub fn context(&self) -> i64 {
        self.config.shape.context - self.soft_tokens() as i64
    }

    /// Soft tokens before every prompt.
    pub fn soft_tokens(&self) -> usize {
        self.lora.as_ref().map_or(0, Lora::soft_tokens)
    }

    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|(_, p)| p.numel()).sum()
    }

    /// Numbers that training moves.
    pub fn trained_count(&self) -> usize {
        self.trained().iter().map(|(_, p)| p.numel()).sum()
    }

    /// The network, computing in `dtype`. Where none of its numbers has a gradient (below `no_grad`, or below an adapter), there is no way back through
    /// it in bf16 on a CPU: `training_net` has one.
    pub fn net(&self, dtype: Kind) -> Result<Net> {
        Net::of(self, dtype)?.frozen()
    }

    /// The network with adapters beside each other; a query brings a gain of each.
    pub fn net_with(&self, adapters: &[Adapter], dtype: Kind) -> Result<Net> {
        Net::of_adapters(self, adapters, true, dtype)?.frozen()
    }

    /// The network with an adapter that is always there.
    pub fn net_of(&self, adapter: Adapter, dtype: Kind) -> Result<Net> {
        Net::of_adapters(self, &[adapter], false, dtype)?.frozen()
    }

    /// The network of a training step: an adapter's dropout is drawn from `seed`; with `recompute` layers are computed again for their gradient.
    pub fn training_net(&self, dtype: Kind, seed: u64, recompute: bool) -> Result<Net> {
        let net = Net::of(self, dtype)?.dropping(self.lora.as_ref().map_or(0.0, |lora| lora.dropout), seed);
        Ok(if recompute { net.recomputing() } else { net })
    }
}

/// Normal numbers of mean 0, `shape`: drawn here, since libtorch's generator is one for the whole process.
fn normal(shape: &[i64], std: f64, rng: &mut Rng) -> Result<Tensor> {
    let count: i64 = shape.iter().product();
    let numbers: Vec<f32> =
        (0..count).map(|_| std as f32 * Distribution::<f32>::sample(&StandardNormal, rng)).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view(shape)?)
}
