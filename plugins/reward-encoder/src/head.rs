//! What transformers' classes put on top of their encoders: a state or the mean of all, a dense layer, and one row per label.

use crate::family::Activation;
use candle_core::{IndexOp, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module, VarBuilder, layer_norm_no_bias, linear, linear_no_bias};

/// What of the encoder's states is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// That of the first token.
    First,
    /// The mean over all tokens.
    Mean,
}

impl Pool {
    /// `[1, hidden]` of states `[1, tokens, hidden]`.
    pub fn of(self, states: &Tensor) -> Result<Tensor> {
        match self {
            Self::First => states.i((.., 0))?.contiguous(),
            Self::Mean => states.mean(1),
        }
    }
}

/// The layers of a class of transformers, by the names of their tensors.
pub struct Top {
    pub pool: Pool,
    pub dense: &'static str,
    pub bias: bool,
    pub activation: Activation,
    /// With its epsilon.
    pub norm: Option<(&'static str, f64)>,
    pub classifier: &'static str,
}

impl Top {
    pub fn load(&self, vb: &VarBuilder, hidden: usize, labels: usize) -> Result<Head> {
        let dense = if self.bias { linear } else { linear_no_bias };
        Ok(Head {
            pool: self.pool,
            dense: dense(hidden, hidden, vb.pp(self.dense))?,
            activation: self.activation,
            norm: self.norm.map(|(name, eps)| layer_norm_no_bias(hidden, eps, vb.pp(name))).transpose()?,
            classifier: linear(hidden, labels, vb.pp(self.classifier))?,
        })
    }
}

pub struct Head {
    pool: Pool,
    dense: Linear,
    activation: Activation,
    norm: Option<LayerNorm>,
    classifier: Linear,
}

impl Head {
    /// The logits `[labels]` of states `[1, tokens, hidden]`.
    pub fn logits(&self, states: &Tensor) -> Result<Tensor> {
        let mut x = self.activation.of(&self.dense.forward(&self.pool.of(states)?)?)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        self.classifier.forward(&x)?.squeeze(0)
    }
}
