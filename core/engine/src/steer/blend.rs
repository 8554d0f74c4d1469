//! Policies whose next-token distributions are mixed (MOD), and how far the mix goes from the policy that they began at (DeRa).

use super::{Loader, Route, Steer, Steerable};
use crate::decode::{Blend, Decoder, Divergence, Rule};
use crate::memory::{F32, Machine, Part, Parts, Shaped, Taken, opening};
use crate::model::{Adapter, Model, Net};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::options::Checked;
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::no_grad;

/// Policies that answer together, by a mix of their next-token distributions (MOD), as far from their base as `strength` says (DeRa). Nothing is
/// trained for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blending {
    /// The policy that all of them began at: for a `strength` other than 1, for "jsd", and for adapters that lie elsewhere than their base.
    #[serde(default)]
    pub base: Option<ModelRef>,
    /// Models or PEFT adapter folders of one tokenizer: a specialist per objective, in their order, or one that reads the weights in its prompt.
    #[schemars(length(min = 1, max = 32))]
    pub parts: Vec<ModelRef>,
    #[serde(default)]
    pub divergence: Held,
    /// Of the divergence "alpha": near 0 it mixes as "reverse_kl", near 1 as "forward_kl".
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub alpha: Option<f64>,
    /// 0 is the base, 1 the mix, more goes beyond what training did.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub strength: f64,
    /// Only tokens in this nucleus of the parts' mix are drawn: a strength above 1 lifts what is in its tail.
    #[serde(default = "one")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
}

/// The divergence from their base that held the parts in their training, which says how they are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// `Π πₖ^wₖ`: of DPO, REINFORCE and PPO.
    #[default]
    ReverseKl,
    /// `(Σ wₖ/πₖ)^−1`.
    ForwardKl,
    /// `(Σ wₖ·πₖ^−α)^(−1/α)`.
    Alpha,
    /// Jensen and Shannon's.
    Jsd,
}

fn one() -> f64 {
    1.0
}

impl Blending {
    fn rule(&self) -> Rule {
        let divergence = match self.divergence {
            Held::ReverseKl => Divergence::ReverseKl,
            Held::ForwardKl => Divergence::Alpha(1.0),
            Held::Alpha => Divergence::Alpha(self.alpha.unwrap_or_default()),
            Held::Jsd => Divergence::Jsd,
        };
        Rule { divergence, strength: self.strength, top_p: self.top_p }
    }

    /// The base, if mixing asks it.
    fn reference(&self) -> Option<&ModelRef> {
        self.base.as_ref().filter(|_| self.strength != 1.0 || self.divergence == Held::Jsd)
    }

    /// Low-rank adapters of one base, which is in memory once.
    fn adapters(&self, from: &Loader) -> Result<Option<(Members, Tokenizer)>> {
        let folders: Vec<PathBuf> = self.parts.iter().map(&from.folder).collect();
        if !folders.iter().all(|folder| Adapter::is_one(folder) && !folder.join("config.json").is_file()) {
            return Ok(None);
        }
        let base = match &self.base {
            Some(base) => (from.folder)(base),
            None => Adapter::base_in(&folders[0])?,
        };
        let adapters = folders.iter().map(|f| Adapter::load(f, from.device)).collect::<Result<Vec<_>>>()?;
        let others = |adapter: &Adapter| self.base.is_none() && adapter.base().is_ok_and(|other| other != base);
        if !adapters.iter().all(Adapter::is_low_rank) || adapters.iter().any(others) {
            return Ok(None);
        }
        let model = Model::load_as(&base, from.device, from.dtype)?;
        adapters.iter().try_for_each(|adapter| adapter.check(&model.config))?;
        let tokenizer = from.tokenizer(self.base.as_ref().unwrap_or(&self.parts[0]), &model)?;
        let net = |adapter: Adapter| model.net_of(adapter, from.dtype);
        let parts = no_grad(|| adapters.into_iter().map(net).collect::<Result<_>>())?;
        let reference = self.reference().map(|_| no_grad(|| model.net(from.dtype))).transpose()?;
        Ok(Some((Members { rule: self.rule(), reference, parts }, tokenizer)))
    }

    /// Models of their own.
    fn models_apart(&self, from: &Loader) -> Result<(Members, Tokenizer)> {
        let mut tokenizers = Vec::new();
        let mut open = |model: &ModelRef| -> Result<Net> {
            let (opened, tokenizer) = from.load_still(model)?;
            tokenizers.push((model.to_string(), tokenizer));
            no_grad(|| opened.net(from.dtype))
        };
        let parts = self.parts.iter().map(&mut open).collect::<Result<Vec<_>>>()?;
        let reference = self.reference().map(open).transpose()?;
        let rows = |net: &Net| net.config.shape.vocab_size;
        let of_first = parts.first().map_or(0, rows);
        if let Some(odd) = parts.iter().chain(&reference).map(rows).find(|rows| *rows != of_first) {
            return Err(Error::invalid(format!(
                "blend: one of its models has {odd} tokens and another {of_first}; bring them to one number with transformers: \
                 model.resize_token_embeddings(n)"
            )));
        }
        Ok((Members { rule: self.rule(), reference, parts }, Tokenizer::common(tokenizers)?))
    }
}

impl Steer for Blending {
    const NAME: &'static str = "blend";
    const OPTION: &'static str = "blend";

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        let parts = self.parts.iter_mut().enumerate().map(|(k, part)| (format!("parts/{k}"), part));
        self.base.iter_mut().map(|base| ("base".to_owned(), base)).chain(parts).collect()
    }

    fn common_base(&self) -> Option<&ModelRef> {
        self.base.as_ref()
    }

    fn same_tokens(&self) -> Vec<&ModelRef> {
        self.parts.iter().chain(self.reference()).collect()
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        let (members, tokenizer) = match self.adapters(from)? {
            Some(shared) => shared,
            None => self.models_apart(from)?,
        };
        Ok((Box::new(members), tokenizer))
    }

    fn check(&self) -> Checked {
        let wrong = |what: &str| Err((Self::OPTION, what.into()));
        match (self.divergence, self.alpha, &self.base) {
            (Held::Alpha, None, _) => {
                wrong("mixes by the divergence \"alpha\", and does not say its alpha; 0.5 lies in the middle")
            }
            (Held::Alpha, Some(_), _) | (_, None, Some(_)) => Ok(()),
            (_, Some(_), _) => wrong("has an alpha, which only the divergence \"alpha\" has; leave it out"),
            (Held::Jsd, None, None) => {
                wrong("mixes by \"jsd\", which needs the policy that the parts began at; give it as base")
            }
            (_, None, None) => Ok(()),
        }?;
        match self.base {
            None if self.strength != 1.0 => {
                wrong("has a strength other than 1, which needs the policy that the parts began at; give it as base")
            }
            _ => Ok(()),
        }
    }

    fn check_objectives(&self, objectives: usize) -> Checked {
        let parts = self.parts.len();
        if parts == objectives || parts == 1 {
            return Ok(());
        }
        let mend = "give a part per objective, or one that reads the weights in its prompt";
        Err((Self::OPTION, format!("has {parts} parts for {objectives} objectives; {mend}")))
    }

    fn held(&self) -> usize {
        self.networks()
    }

    fn networks(&self) -> usize {
        self.parts.len() + usize::from(self.reference().is_some())
    }

    /// All models at once, or the base of adapters once.
    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken {
        let (base, parts) = models.split_at(usize::from(self.base.is_some()));
        let adapters: Option<f64> = parts.iter().map(|part| part.adapter).sum();
        if let (Some(numbers), Some(base)) = (adapters, models.first()) {
            let held =
                Parts::default().with(Part::Weights, machine.bytes * base.numbers + (F32 + machine.bytes) * numbers);
            return Taken { loading: opening(base, machine.bytes, Part::Weights, machine), held };
        }
        let mut taken = Taken::default();
        for model in parts.iter().chain(base.iter().filter(|_| self.reference().is_some())) {
            let opened = opening(model, machine.bytes, Part::Weights, machine);
            taken.loading.extend(opened.into_iter().map(|parts| parts.and(&taken.held)));
            taken.held = taken.held.and(&model.network(machine));
        }
        taken
    }
}

/// The networks, each as often as it answers.
struct Members {
    rule: Rule,
    reference: Option<Net>,
    parts: Vec<Net>,
}

impl Steerable for Members {
    fn route(&self, weights: &Weights) -> Result<Route> {
        Ok(if self.parts.len() == 1 { Route::Same } else { Route::Shares(weights.values().to_vec()) })
    }

    /// Prompts with weights of their own are answered together.
    fn together(&self, _one: &Route, _other: &Route) -> bool {
        true
    }

    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>> {
        let weights = routes.iter().map(|route| match route {
            Route::Shares(shares) => Ok(shares.clone()),
            _ if self.parts.len() == 1 => Ok(vec![1.0]),
            _ => Err(Error::invalid("a blend of specialists answers at weights only; give one per objective")),
        });
        let parts: Vec<&dyn Decoder> = self.parts.iter().map(|net| net as &dyn Decoder).collect();
        let reference = self.reference.as_ref().map(|net| net as &dyn Decoder);
        Ok(Box::new(Blend::new(parts, reference, weights.collect::<Result<_>>()?, self.rule)?))
    }

    fn context(&self) -> i64 {
        self.parts.iter().chain(&self.reference).map(|net| net.config.shape.context).min().unwrap_or_default()
    }
}
