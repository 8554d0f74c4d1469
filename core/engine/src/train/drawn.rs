//! What a step drew, as both policies see it: log-probs at the sampling temperature, and how far the policy has moved.

use super::log::Metrics;
use super::logprob::{Group, Packed, pack, to_vec};
use crate::model::{Model, Net};
use crate::obey;
use crate::{Error, PROFILE, Result};
use motrain_core::metrics::stats::mean;
use motrain_core::plan::Training;
use tch::{Kind, Tensor, no_grad};

/// Completions of one prompt as tokens, with the prompt as the policy sees it (x') and as it is (x).
pub struct Drawn<'a> {
    /// Of the policy's blocks of changes, if it is steered by them.
    pub gains: &'a [f64],
    /// Soft tokens of the policy before the prompt.
    pub room: usize,
    pub conditioned: &'a [u32],
    pub plain: &'a [u32],
    pub completions: Vec<&'a [u32]>,
    /// Of each of their tokens, as it was drawn; empty where the policy did not draw them.
    pub log_probs: Vec<&'a [f32]>,
}

impl Drawn<'_> {
    /// Tokens of x' and its completions, as the policy sees them.
    pub fn length(&self) -> usize {
        self.room + self.conditioned.len() + self.trained()
    }

    /// Tokens of the completions.
    pub fn trained(&self) -> usize {
        self.completions.iter().map(|c| c.len()).sum()
    }
}

/// What a policy makes of completions.
pub struct Told {
    /// Their log-probs (nats), on the graph, `[completions]`.
    pub sums: Tensor,
    /// Of each token, one completion after the other, off the graph.
    tokens: Tensor,
}

/// The frozen initial policy, and how log-prob sums of completions are taken.
pub struct LogProbs {
    pub reference: Net,
    /// That completions were drawn at.
    pub temperature: f64,
    /// Whether the reference sees x' or x.
    pub reference_sees_weights: bool,
    /// How many prompts' completions are computed at once.
    pub train: Training,
    pub pad: u32,
}

impl LogProbs {
    /// As `net` sees prompts.
    fn pack(&self, net: &Net, drawn: &[&Drawn], see_weights: bool) -> Result<Packed> {
        let seen = |d: &&Drawn| net.with_room(if see_weights { d.conditioned } else { d.plain });
        let prompts: Vec<Vec<u32>> = drawn.iter().map(seen).collect();
        let groups: Vec<Group> = std::iter::zip(&prompts, drawn)
            .map(|(prompt, d)| Group { prompt, completions: d.completions.clone() })
            .collect();
        pack(&groups, self.pad, self.reference.device())
    }

    /// As the policy sees it.
    fn pack_gained(&self, net: &Net, drawn: &[&Drawn]) -> Result<Packed> {
        self.pack(net, drawn, true)?.gained(&drawn.iter().map(|d| d.gains).collect::<Vec<_>>())
    }

    /// Log-prob sums under the reference, completion by completion.
    pub fn reference(&self, drawn: &[&Drawn]) -> Result<Vec<f64>> {
        obey()?;
        let _part = tracing::trace_span!(target: PROFILE, "reference").entered();
        let packed = self.pack(&self.reference, drawn, self.reference_sees_weights)?;
        no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&self.reference, self.temperature)?)?))
    }

    /// The same under a policy, still on the graph.
    pub fn policy(&self, net: &Net, drawn: &[&Drawn]) -> Result<Told> {
        let _part = tracing::trace_span!(target: PROFILE, "policy").entered();
        let packed = self.pack_gained(net, drawn)?;
        Told::of(&packed, &packed.token_log_probs(net, self.temperature)?)
    }

    /// And with the policy's state at the end of each x', on the host.
    pub fn policy_and_states(&self, net: &Net, drawn: &[&Drawn]) -> Result<(Told, Vec<Vec<f64>>)> {
        let packed = self.pack_gained(net, drawn)?;
        let hidden = packed.hidden(net)?;
        let told = Told::of(&packed, &packed.log_probs_of(net, &hidden, self.temperature)?)?;
        Ok((told, packed.prompt_states(&hidden)?))
    }

    /// What completions that are not trained on say of how far the policy has moved.
    pub fn measure(&self, model: &Model, dtype: Kind, mut rest: Vec<Drawn>) -> Result<Moved> {
        let mut moved = Moved::default();
        rest.retain(|d| !d.completions.is_empty());
        if rest.is_empty() {
            return Ok(moved);
        }
        rest.sort_by_key(Drawn::length);
        let net = no_grad(|| model.net(dtype))?;
        for micro in self.train.micro_batches(&rest, Drawn::length) {
            let drawn: Vec<&Drawn> = micro.iter().collect();
            let told = no_grad(|| self.policy(&net, &drawn))?;
            moved.add(&to_vec(&told.sums)?, &self.reference(&drawn)?);
            moved.add_drawing(&drawn, &told)?;
        }
        Ok(moved)
    }
}

impl Told {
    fn of(packed: &Packed, tokens: &Tensor) -> Result<Self> {
        Ok(Self { sums: packed.sums(tokens)?, tokens: tokens.f_detach()? })
    }
}

/// `Σ g·logp` over log-prob sums, with `g` detached: its gradient is that of a loss whose derivatives by the sums `g` are.
pub fn surrogate(sums: &Tensor, derivatives: &[f64]) -> Result<Tensor> {
    let g: Vec<f32> = derivatives.iter().map(|g| *g as f32).collect();
    if let Some(bad) = g.iter().find(|g| !g.is_finite()) {
        return Err(Error::invalid(format!("the loss gave the derivative {bad}; the last checkpoint is kept")));
    }
    let g = Tensor::f_from_slice(&g)?.f_to_device(sums.device())?;
    Ok(sums.f_mul(&g)?.f_sum(Kind::Float)?)
}

/// How far the policy has moved from the reference, over every completion that a step drew.
#[derive(Default)]
pub struct Moved {
    log_ratios: Vec<f64>,
    log_probs: Vec<f64>,
    /// Of each token, between drawing and training.
    gaps: Vec<f64>,
}

impl Moved {
    /// Log-prob sums of completions under the policy that drew them, and under the reference.
    pub fn add(&mut self, policy: &[f64], reference: &[f64]) {
        self.log_ratios.extend(policy.iter().zip(reference).map(|(p, r)| p - r));
        self.log_probs.extend(policy);
    }

    /// How far what the policy makes of completions lies from what it made of them when it drew them, at the same parameters.
    pub fn add_drawing(&mut self, drawn: &[&Drawn], told: &Told) -> Result<()> {
        let sampled: Vec<f32> = drawn.iter().flat_map(|d| d.log_probs.concat()).collect();
        if !sampled.is_empty() {
            let trained = to_vec(&told.tokens)?;
            self.gaps.extend(sampled.iter().zip(trained).map(|(s, t)| (f64::from(*s) - t).abs()));
        }
        Ok(())
    }

    pub fn extend(&mut self, other: Moved) {
        self.gaps.extend(other.gaps);
        self.log_ratios.extend(other.log_ratios);
        self.log_probs.extend(other.log_probs);
    }

    /// Nats per completion, as TRL's OnlineDPOTrainer has both: means over completions of `Σ log π − log π₀` and `−Σ log π`. And nats per token, as its
    /// GRPOTrainer has them, between drawing and training, which round otherwise.
    pub fn report(&self, metrics: &mut Metrics) {
        metrics.insert("objective/kl".into(), mean(&self.log_ratios));
        metrics.insert("objective/entropy".into(), -mean(&self.log_probs));
        if !self.gaps.is_empty() {
            let most = self.gaps.iter().copied().fold(0.0, f64::max);
            metrics.insert("sampling/sampling_logp_difference/mean".into(), mean(&self.gaps));
            metrics.insert("sampling/sampling_logp_difference/max".into(), most);
        }
    }
}
