//! Decoding from a mix of policies' next-token distributions (MOD, Shi et al. 2024), and how far it goes from the policy that all of them began
//! at (DeRa, Liu et al. 2024): `π ∝ π_ref^(1−λ)·M^λ`, where M is the mix of the parts at the weights of each prompt.

use super::{Decoder, Query, Rows};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// How distributions πₖ are mixed at weights wₖ: by the divergence that held the parts to the reference in their training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `Π πₖ^wₖ`.
    ReverseKl,
    /// `(Σ wₖ·πₖ^−α)^(−1/α)`; with α = 1 that of forward KL.
    Alpha(f64),
    /// `π_ref·e^g/(2 − e^g)`, where `g = Σ wₖ·log(2ρₖ/(1 + ρₖ))` and `ρₖ = πₖ/π_ref`.
    Jsd,
}

/// How parts and reference become one distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub divergence: Divergence,
    /// λ: 0 is the reference, 1 the mix of the parts, more goes beyond.
    pub strength: f64,
    /// Tokens outside of this nucleus of the parts' mix are not drawn: a λ above 1 lifts what is in their tails.
    pub top_p: f64,
}

/// Below this, a share is rounding of weights.
const DUST: f64 = 1e-6;

/// Policies that are mixed.
pub struct Blend<'a> {
    parts: Vec<&'a dyn Decoder>,
    reference: Option<&'a dyn Decoder>,
    /// The shares of each prompt, or of all of them: those of the parts, and of the reference at the end.
    shares: Vec<Vec<f64>>,
    rule: Rule,
}

impl<'a> Blend<'a> {
    /// A mix of `parts`, which have the same tokens, with a weight of each: those of each prompt in their order, or one for all. What nothing is
    /// asked of is left out.
    pub fn new(
        mut parts: Vec<&'a dyn Decoder>,
        reference: Option<&'a dyn Decoder>,
        mut weights: Vec<Vec<f64>>,
        rule: Rule,
    ) -> Result<Self> {
        weights.iter().try_for_each(|weights| rule.check(weights, parts.len()))?;
        let asked = |part: usize| rule.strength != 0.0 && weights.iter().any(|w| w[part] != 0.0);
        let asked: Vec<bool> = (0..parts.len()).map(asked).collect();
        let own = |weights: &mut Vec<f64>| {
            let rest = 1.0 - rule.strength * weights.iter().sum::<f64>();
            kept(weights, &asked);
            weights.push(if rest.abs() < DUST { 0.0 } else { rest });
        };
        weights.iter_mut().for_each(own);
        kept(&mut parts, &asked);
        let goes_elsewhere = weights.iter().any(|shares| shares.last().is_some_and(|rest| *rest != 0.0));
        let needed = goes_elsewhere || rule.divergence == Divergence::Jsd;
        if needed && reference.is_none() {
            return Err(Error::invalid(
                "blend: needs the policy that its parts began at: for a strength other than 1, weights that do not sum to 1, and the \
                 divergence jsd; give it as \"base\"",
            ));
        }
        if parts.is_empty() && !needed || weights.is_empty() {
            return Err(Error::invalid("blend: has nothing to mix; give it parts and their weights"));
        }
        Ok(Self { parts, reference: reference.filter(|_| needed), shares: weights, rule })
    }

    fn all(&self) -> impl Iterator<Item = &'a dyn Decoder> {
        self.parts.iter().copied().chain(self.reference)
    }

    /// The shares of the prompt that each row goes on from, `[rows, parts + 1]`.
    fn shares_of(&self, prompts: &[Query], rows: &[usize]) -> Result<Tensor> {
        let mut out = Vec::new();
        for &row in rows {
            let prompt = prompts[row].index;
            let own = if self.shares.len() == 1 { self.shares.first() } else { self.shares.get(prompt) };
            let own = own.ok_or_else(|| {
                Error::invalid(format!(
                    "blend: has weights of {} prompts, and not of prompt {prompt}",
                    self.shares.len()
                ))
            })?;
            out.extend(own.iter().map(|share| *share as f32));
        }
        Ok(Tensor::f_from_slice(&out)?.f_view([rows.len() as i64, -1])?.f_to_device(self.device())?)
    }
}

/// Keeps those of a list that are `wanted`.
fn kept<T>(list: &mut Vec<T>, wanted: &[bool]) {
    let mut wanted = wanted.iter();
    list.retain(|_| wanted.next().is_some_and(|wanted| *wanted));
}

impl Decoder for Blend<'_> {
    fn context(&self) -> i64 {
        self.all().map(Decoder::context).min().unwrap_or_default()
    }

    fn device(&self) -> Device {
        self.all().next().map_or(Device::Cpu, Decoder::device)
    }

    fn dtype(&self) -> Kind {
        self.all().next().map_or(Kind::Float, Decoder::dtype)
    }

    fn parameter_count(&self) -> usize {
        self.all().map(Decoder::parameter_count).sum()
    }

    fn prefill(&self, prompts: &[Query], rows: &[usize], new: usize) -> Result<(Tensor, Box<dyn Rows + '_>)> {
        let begun = self.all().map(|one| one.prefill(prompts, rows, new)).collect::<Result<Vec<_>>>()?;
        let (logits, under_way) = begun.into_iter().unzip();
        let rows = Blended { rule: self.rule, all: under_way, shares: self.shares_of(prompts, rows)? };
        Ok((rows.mixed(logits)?, Box::new(rows)))
    }
}

/// Completions under way: those of each part, and of the reference if it is asked.
struct Blended<'a> {
    rule: Rule,
    all: Vec<Box<dyn Rows + 'a>>,
    shares: Tensor,
}

impl Blended<'_> {
    fn mixed(&self, mut logits: Vec<Tensor>) -> Result<Tensor> {
        let parts = self.shares.size2()?.1 as usize - 1;
        let reference = if logits.len() > parts { logits.pop() } else { None };
        self.rule.mix(&logits, reference.as_ref(), &self.shares)
    }
}

impl Rows for Blended<'_> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        let logits = self.all.iter_mut().map(|rows| rows.step(tokens)).collect::<Result<_>>()?;
        self.mixed(logits)
    }

    fn select(&mut self, rows: &Tensor) -> Result<()> {
        self.shares = self.shares.f_index_select(0, rows)?;
        self.all.iter_mut().try_for_each(|own| own.select(rows))
    }
}

impl Rule {
    fn check(&self, weights: &[f64], parts: usize) -> Result<()> {
        let (given, sum) = (weights.len(), weights.iter().sum::<f64>());
        if given != parts {
            return Err(Error::invalid(format!("blend: {given} weights for {parts} parts; give a part per objective")));
        }
        if let Some(odd) = weights.iter().find(|w| !w.is_finite()) {
            return Err(Error::invalid(format!("blend: {odd} is not a weight")));
        }
        if self.divergence == Divergence::ReverseKl {
            return Ok(());
        }
        if let Some(odd) = weights.iter().find(|w| **w < 0.0) {
            return Err(Error::invalid(format!(
                "blend: {odd} is not a weight of this divergence, whose weights are at least 0; reverse_kl takes negative ones"
            )));
        }
        if (sum - 1.0).abs() > DUST {
            return Err(Error::invalid(format!(
                "blend: the weights {weights:?} sum to {sum}, and those of this divergence must sum to 1; reverse_kl gives the rest to the base"
            )));
        }
        Ok(())
    }

    /// Logits of the mix, `[rows, vocab]`, of those of the parts and of the reference. `shares` is `[rows, parts + 1]`.
    pub fn mix(&self, parts: &[Tensor], reference: Option<&Tensor>, shares: &Tensor) -> Result<Tensor> {
        if let (true, Some(reference)) = (parts.is_empty(), reference) {
            return Ok(reference.shallow_clone());
        }
        let count = parts.len() as i64;
        let reference = reference.map(log_softmax).transpose()?;
        let mixed = self.of_parts(parts, reference.as_ref(), &shares.f_narrow(1, 0, count)?)?;
        let mixed = mixed.f_mul_scalar(self.strength)?;
        match reference {
            Some(reference) => Ok(mixed.f_add(&reference.f_mul(&shares.f_narrow(1, count, 1)?)?)?),
            None => Ok(mixed),
        }
    }

    /// `log M`, up to a number per row.
    fn of_parts(&self, parts: &[Tensor], reference: Option<&Tensor>, weights: &Tensor) -> Result<Tensor> {
        let logs = parts.iter().map(log_softmax).collect::<Result<Vec<_>>>()?;
        let weights =
            (0..parts.len() as i64).map(|k| weights.f_narrow(1, k, 1)).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut mixed = match (self.divergence, reference) {
            (Divergence::ReverseKl, _) => weighted(&logs, &weights)?,
            (Divergence::Alpha(alpha), _) => power_mean(&logs, &weights, alpha)?,
            (Divergence::Jsd, Some(reference)) => jsd(&logs, &weights, reference)?,
            (Divergence::Jsd, None) => return Err(Error::invalid("blend: jsd needs the base")),
        };
        // What a single part says stays as it is, to the last bit.
        let asked = Tensor::f_cat(&weights, 1)?.f_ne(0.0)?.f_sum_dim_intlist(1i64, true, Kind::Int64)?;
        for (own, weight) in parts.iter().zip(&weights) {
            let alone = weight.f_eq(1.0)?.f_logical_and(&asked.f_eq(1)?)?;
            mixed = own.f_where_self(&alone, &mixed)?;
        }
        if self.top_p < 1.0 {
            mixed = mixed.f_masked_fill(&outside(&mixed, self.top_p)?, f64::NEG_INFINITY)?;
        }
        Ok(mixed)
    }
}

fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.f_log_softmax(-1, Kind::Float)?)
}

/// `Σ wₖ·xₖ`. What has no weight adds nothing, whatever it is: 0·∞ is no number.
fn weighted(all: &[Tensor], weights: &[Tensor]) -> Result<Tensor> {
    let own = all.iter().zip(weights).map(|(x, w)| Ok(x.f_mul(w)?.f_masked_fill(&w.f_eq(0.0)?, 0.0)?));
    let own = own.collect::<Result<Vec<_>>>()?;
    own.iter().skip(1).try_fold(own[0].shallow_clone(), |sum, x| Ok(sum.f_add(x)?))
}

/// `log (Σ wₖ·πₖ^−α)^(−1/α)`.
fn power_mean(logs: &[Tensor], weights: &[Tensor], alpha: f64) -> Result<Tensor> {
    let own = logs.iter().zip(weights).map(|(log, w)| {
        let term = log.f_mul_scalar(-alpha)?.f_add(&w.f_log()?)?;
        Ok(term.f_masked_fill(&w.f_eq(0.0)?, f64::NEG_INFINITY)?)
    });
    let own = Tensor::f_stack(&own.collect::<Result<Vec<_>>>()?, 0)?;
    Ok(own.f_logsumexp(0i64, false)?.f_mul_scalar(-1.0 / alpha)?)
}

/// With `h = g − log 2 = Σ wₖ·log σ(log ρₖ)`, which is below 0, `e^g/(2 − e^g)` is `e^h/(1 − e^h)`.
fn jsd(logs: &[Tensor], weights: &[Tensor], reference: &Tensor) -> Result<Tensor> {
    let own = logs.iter().map(|log| Ok(log.f_sub(reference)?.f_log_sigmoid()?)).collect::<Result<Vec<_>>>()?;
    let h = weighted(&own, weights)?.f_clamp_max(-f64::from(f32::MIN_POSITIVE))?;
    Ok(reference.f_add(&h)?.f_sub(&h.f_expm1()?.f_neg()?.f_log()?)?)
}

/// Whether a token lies outside of the nucleus, `[rows, vocab]`.
fn outside(logits: &Tensor, top_p: f64) -> Result<Tensor> {
    let probs = logits.f_softmax(-1, Kind::Float)?;
    let (sorted, _) = probs.f_sort(-1, true)?;
    let before = sorted.f_cumsum(-1, Kind::Float)?.f_sub(&sorted)?;
    let least = sorted.f_masked_fill(&before.f_ge(top_p)?, f64::INFINITY)?.f_amin(-1i64, true)?;
    Ok(probs.f_lt_tensor(&least)?)
}
