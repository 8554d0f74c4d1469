//! Low-rank changes of one base beside each other, each with a gain: adapter soups, Conditional Language Policies (Wang et al. 2024), Panacea (Zhong
//! et al. 2024). Nothing is mixed: `W₀x + Σ wₖ·BₖAₖx`, so that every row of a batch may bring its own weights.

use super::{Loader, Route, Steer, Steerable};
use crate::decode::{self, Decoder};
use crate::memory::{F32, Machine, Part, Parts, Shaped, Taken, opening};
use crate::model::{Adapter, Model, Net};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, names};
use motrain_core::Weights;
use motrain_core::options::Checked;
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// PEFT adapter folders (LoRA or prompt tuning) of one base, which they name, one per objective: each answers with its weight as gain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Gained(#[schemars(length(min = 1, max = 32))] pub Vec<ModelRef>);

impl Gained {
    /// The parts of a model's folder that a stage has saved.
    pub fn below(objectives: usize) -> Self {
        Self((0..objectives).map(|k| ModelRef::Path(names::part(k))).collect())
    }
}

impl Steer for Gained {
    const NAME: &'static str = "gains";
    const OPTION: &'static str = "gains";

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        self.0.iter_mut().enumerate().map(|(k, part)| (names::part(k), part)).collect()
    }

    fn adapters_stay(&self) -> bool {
        true
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        let folders: Vec<_> = self.0.iter().map(&from.folder).collect();
        let first = folders.first().ok_or_else(|| Error::invalid("gains: there are no adapters"))?;
        let base = Adapter::base_in(first)?;
        for folder in &folders[1..] {
            let other = Adapter::base_in(folder)?;
            if other != base {
                let what = format!("is an adapter of {}, and the first one of {}", other.display(), base.display());
                return Err(Error::file(folder, what));
            }
        }
        let adapters = folders.iter().map(|f| Adapter::load(f, from.device)).collect::<Result<Vec<_>>>()?;
        if let Some(at) = adapters.iter().position(|adapter| !adapter.takes_gains()) {
            let what = "holds whole matrices or a change of embeddings, which have no gain; mix it with `soup`";
            return Err(Error::file(&folders[at], what));
        }
        beside(from, &ModelRef::Path(base.to_string_lossy().into_owned()), &adapters)
    }

    fn check_objectives(&self, objectives: usize) -> Checked {
        let parts = self.0.len();
        if parts == objectives {
            return Ok(());
        }
        Err(("gains", format!("has {parts} adapters for {objectives} objectives; give one per objective")))
    }

    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken {
        let Some(base) = models.first() else { return Taken::default() };
        let numbers: f64 = models.iter().filter_map(|part| part.adapter).sum();
        let held = Parts::default().with(Part::Weights, machine.bytes * base.numbers + (F32 + machine.bytes) * numbers);
        Taken { loading: opening(base, machine.bytes, Part::Weights, machine), held }
    }
}

/// What answers with low-rank adapters beside their base.
pub fn beside(from: &Loader, base: &ModelRef, adapters: &[Adapter]) -> Result<(Box<dyn Steerable>, Tokenizer)> {
    let model = Model::load_as(&(from.folder)(base), from.device, from.dtype)?;
    adapters.iter().try_for_each(|adapter| adapter.check_beside(&model.config))?;
    let tokenizer = from.tokenizer(base, &model)?;
    Ok((Box::new(no_grad(|| model.net_with(adapters, from.dtype))?), tokenizer))
}

/// One network answers at all weights; where it has blocks of low-rank changes, at a gain of each.
impl Steerable for Net {
    fn route(&self, weights: &Weights) -> Result<Route> {
        Ok(if self.blocks() == 0 { Route::Same } else { Route::Shares(weights.values().to_vec()) })
    }

    fn together(&self, _one: &Route, _other: &Route) -> bool {
        true
    }

    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>> {
        if self.blocks() == 0 {
            return Ok(Box::new(self));
        }
        let gains = routes.iter().map(|route| match route {
            Route::Shares(shares) => Ok(shares.clone()),
            _ => Err(Error::invalid(
                "a policy that its parameters steer answers at weights only; give one per objective",
            )),
        });
        Ok(Box::new(decode::Gained { net: self, gains: gains.collect::<Result<_>>()? }))
    }

    fn context(&self) -> i64 {
        self.context()
    }
}
