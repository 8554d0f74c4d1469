//! From hidden states to numbers: what each head computes.

use super::changes::Passing;
use super::config::Config;
use super::head::{Head, MEAN, Norm, SCALE, SCORE, TRANSFORM, VAR};
use super::layers::{Linear, Matrix, capped};
use super::net::Reader;
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// The head of a network.
pub struct Output {
    linear: Linear,
    then: Then,
}

enum Then {
    Nothing,
    Capped(Option<f64>),
    /// What is taken away from a score, and what it is divided by.
    Normalised(Option<Tensor>, Tensor),
    Gated(Gate),
}

struct Gate {
    layers: Vec<Linear>,
    scale: Tensor,
    transform: Tensor,
    temperature: f64,
}

impl Output {
    /// `trained` takes the place of the head's matrix.
    pub fn of(config: &Config, params: &Reader, embed: &Tensor, trained: Option<&Tensor>) -> Result<Self> {
        let capped = Then::Capped(config.shape.logits_cap);
        let (linear, then) = match config.head {
            // What changes the head of a tied pair leaves the embedding as it is.
            Head::TiedLm => {
                let changes = params.changes_of(config.arch.names().head, embed.size()[0])?;
                (Linear { matrix: Matrix::Plain(embed.shallow_clone()), bias: None, changes }, capped)
            }
            Head::Lm => (params.read_linear(config.arch.names().head, false)?, capped),
            Head::Score => (params.read_linear(SCORE, false)?, Then::Nothing),
            Head::Normalised(head) => {
                let then = match head.norm {
                    Norm::None => Then::Nothing,
                    norm => {
                        let mean = if norm == Norm::Affine { Some(params.wide(MEAN)?) } else { None };
                        Then::Normalised(mean, params.wide(VAR)?.f_sqrt()?.f_add_scalar(1e-8)?)
                    }
                };
                (params.read_linear("score_head", head.bias.unwrap_or(false))?, then)
            }
            Head::Gated(gate) => {
                let layers = (0..=gate.layers).map(|i| params.read_linear(&format!("gating.layers.{i}"), true));
                let gate = Gate {
                    layers: layers.collect::<Result<_>>()?,
                    scale: params.wide(SCALE)?,
                    transform: params.wide(TRANSFORM)?,
                    temperature: gate.temperature,
                };
                (params.read_linear("regression_layer", false)?, Then::Gated(gate))
            }
        };
        let linear = match trained {
            Some(weight) => Linear { matrix: Matrix::Plain(weight.f_to_kind(embed.f_kind()?)?), ..linear },
            None => linear,
        };
        Ok(Self { linear, then })
    }

    /// Numbers (f32) of hidden states: next-token logits, or a score for each label.
    pub fn apply(&self, hidden: &Tensor, passing: &Passing) -> Result<Tensor> {
        let out = self.linear.apply(hidden, passing)?.f_to_kind(Kind::Float)?;
        match &self.then {
            Then::Nothing | Then::Gated(_) => Ok(out),
            Then::Capped(cap) => capped(out, *cap),
            Then::Normalised(None, deviation) => Ok(out.f_div(deviation)?),
            Then::Normalised(Some(mean), deviation) => Ok(out.f_sub(mean)?.f_div(deviation)?),
        }
    }

    /// The log-prob of each target, `[rows]` (f32), when tokens are drawn at `temperature`.
    pub fn log_probs(&self, hidden: &Tensor, targets: &Tensor, temperature: f64, passing: &Passing) -> Result<Tensor> {
        if matches!(self.then, Then::Nothing | Then::Capped(None)) && motrain_kernels::serves(hidden) {
            let logits = self.linear.apply(hidden, passing)?;
            return Ok(motrain_kernels::chosen_log_probs(&logits, targets, temperature)?);
        }
        let logits = self.apply(hidden, passing)?;
        let logits = if temperature == 1.0 { logits } else { logits.f_div_scalar(temperature)? };
        let all = logits.f_log_softmax(-1, Kind::Float)?;
        Ok(all.f_gather(1, &targets.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?)
    }

    /// Of hidden states at ends of answers, and at ends of their prompts: a rating for each label, and the gated sum behind them.
    pub fn gated(&self, ends: &Tensor, prompts: &Tensor, passing: &Passing) -> Result<Tensor> {
        let Then::Gated(gate) = &self.then else { return Err(Error::invalid("the model has no gate")) };
        let ratings = self.apply(ends, passing)?;
        let sum = gate.weights(prompts, passing)?.f_mul(&ratings.f_matmul(&gate.transform)?)?;
        Ok(Tensor::f_cat(&[&ratings, &sum.f_sum_dim_intlist(-1, true, Kind::Float)?], -1)?)
    }

    /// Lays its matrix out for products without gradients.
    pub fn lay_out(&mut self) -> Result<()> {
        self.linear.lay_out()
    }

    /// Whether an adapter changes it.
    pub fn is_changed(&self) -> bool {
        self.linear.changes.is_some()
    }

    pub fn numel(&self) -> usize {
        let then = match &self.then {
            Then::Nothing | Then::Capped(_) => 0,
            Then::Normalised(mean, deviation) => mean.as_ref().map_or(0, Tensor::numel) + deviation.numel(),
            Then::Gated(gate) => {
                let layers: usize = gate.layers.iter().map(Linear::numel).sum();
                layers + gate.scale.numel() + gate.transform.numel()
            }
        };
        self.linear.numel() + then
    }
}

impl Gate {
    /// Of the ratings, `[prompts, labels]` (f32).
    fn weights(&self, prompts: &Tensor, passing: &Passing) -> Result<Tensor> {
        let mut x = prompts.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.apply(&if i == 0 { x } else { x.f_relu()? }, passing)?;
        }
        let shares = x.f_to_kind(Kind::Float)?.f_div_scalar(self.temperature)?.f_softmax(-1, Kind::Float)?;
        Ok(shares.f_mul(&self.scale)?)
    }
}
