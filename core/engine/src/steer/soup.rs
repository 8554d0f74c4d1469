//! Specialists whose parameters are mixed at the weights (Rewarded Soups; ODPO Soups).

use super::{Loader, Route, Steer, Steerable, gained};
use crate::decode::Decoder;
use crate::memory::{F32, Machine, Part, Parts, Shaped, Taken, opening};
use crate::model::{Adapter, Mix};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::options::Checked;
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, no_grad};

/// Policies that began at the same one, a specialist per objective, mixed anew for each weight vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Specialists {
    /// The policy that all of them began at.
    pub base: ModelRef,
    /// Models or PEFT adapter folders (LoRA) of `base`, in the order of the objectives.
    #[schemars(length(min = 1, max = 32))]
    pub parts: Vec<ModelRef>,
    #[serde(default)]
    pub adapters: Adapters,
}

/// How LoRA adapters are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Adapters {
    /// The weights that they add: Σ wₖ·BₖAₖ.
    #[default]
    Delta,
    /// Their factors, as Rewarded Soups' code does: (Σ wₖBₖ)(Σ wₖAₖ).
    Factor,
}

impl Steer for Specialists {
    const NAME: &'static str = "soup";
    const OPTION: &'static str = "soup";

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        let parts = self.parts.iter_mut().enumerate().map(|(k, part)| (format!("parts/{k}"), part));
        std::iter::once(("base".to_owned(), &mut self.base)).chain(parts).collect()
    }

    fn common_base(&self) -> Option<&ModelRef> {
        Some(&self.base)
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        if let Some(gained) = self.gained(from)? {
            return Ok(gained);
        }
        let (mix, tokenizer) = self.mix(from)?;
        Ok((Box::new(Soup { mix, dtype: from.dtype }), tokenizer))
    }

    fn check_objectives(&self, objectives: usize) -> Checked {
        let parts = self.parts.len();
        if parts == objectives {
            return Ok(());
        }
        Err(("soup", format!("has {parts} parts for {objectives} objectives; give a part per objective")))
    }

    fn held(&self) -> usize {
        1 + self.parts.len()
    }

    /// All models in f32 and a mix of them; of adapters that are not mixed, the base in the type of computing.
    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken {
        let Some(base) = models.first() else { return Taken::default() };
        let all = |bytes: f64, models: f64| Parts::default().with(Part::Weights, bytes * base.numbers * models);
        let adapters: Option<f64> = models[1..].iter().map(|part| part.adapter).sum();
        match adapters.filter(|_| self.adapters == Adapters::Delta) {
            Some(numbers) => {
                let held = all(machine.bytes, 1.0).with(Part::Weights, (F32 + machine.bytes) * numbers);
                Taken { loading: opening(base, machine.bytes, Part::Weights, machine), held }
            }
            None => Taken { loading: vec![], held: all(F32, models.len() as f64 + 1.0).and(&all(machine.bytes, 1.0)) },
        }
    }
}

impl Specialists {
    /// Low-rank changes by difference need no mixing of parameters: each is there with its weight as gain.
    fn gained(&self, from: &Loader) -> Result<Option<(Box<dyn Steerable>, Tokenizer)>> {
        let folders: Vec<_> = self.parts.iter().map(&from.folder).collect();
        if self.adapters == Adapters::Factor || !folders.iter().all(|f| Adapter::is_one(f)) {
            return Ok(None);
        }
        let adapters = folders.iter().map(|f| Adapter::load(f, from.device)).collect::<Result<Vec<_>>>()?;
        if !adapters.iter().all(Adapter::is_low_rank) {
            return Ok(None);
        }
        gained::beside(from, &self.base, &adapters).map(Some)
    }

    /// Loads specialists: all of them models, or all of them PEFT adapter folders.
    pub fn mix(&self, from: &Loader) -> Result<(Mix, Tokenizer)> {
        let (base, tokenizer) = from.load(&self.base)?;
        let folders: Vec<_> = self.parts.iter().map(&from.folder).collect();
        let names: Vec<String> = self.parts.iter().map(ModelRef::to_string).collect();
        let adapters = folders.iter().filter(|f| Adapter::is_one(f)).count();
        if adapters == 0 {
            if self.adapters == Adapters::Factor {
                return Err(Error::invalid(
                    "soup: adapters = \"factor\" needs PEFT adapter folders, and the parts are models",
                ));
            }
            let parts = self.parts.iter().map(|part| Ok(from.load(part)?.0)).collect::<Result<_>>()?;
            return Ok((Mix::of_models(base, parts, &names)?, tokenizer));
        }
        if adapters < folders.len() {
            return Err(Error::invalid("soup: some parts are PEFT adapters and some are models; give one kind"));
        }
        let parts = folders.iter().map(|f| Adapter::load(f, from.device)).collect::<Result<Vec<_>>>()?;
        let mix = match self.adapters {
            Adapters::Delta => Mix::of_adapters(base, parts, &names)?,
            Adapters::Factor => Mix::of_factors(base, parts)?,
        };
        Ok((mix, tokenizer))
    }
}

struct Soup {
    mix: Mix,
    dtype: Kind,
}

impl Steerable for Soup {
    fn route(&self, weights: &Weights) -> Result<Route> {
        Ok(Route::Shares(weights.values().to_vec()))
    }

    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>> {
        let [Route::Shares(shares), ..] = routes else {
            return Err(Error::invalid("a soup of specialists answers at weights only; give one per objective"));
        };
        Ok(Box::new(no_grad(|| self.mix.at(shares)?.net(self.dtype))?))
    }

    fn context(&self) -> i64 {
        self.mix.config().shape.context
    }
}
