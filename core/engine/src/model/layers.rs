//! The layers that all families are made of.

use super::shape::{Activation, Norm};
use crate::Result;
use tch::{Device, Kind, Tensor};

/// `W·x + b`.
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

/// Rows up to which f32 products on a CPU are faster as `W·xᵀ` than as `x·Wᵀ`: up to 2.7 times for the output head.
const FEW_ROWS: i64 = 96;

impl Linear {
    /// `x` is `[…, in]`.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.size();
        let rows = (x.numel() as i64) / self.weight.size()[1];
        if rows == 1 || rows > FEW_ROWS || x.device() != Device::Cpu || x.f_kind()? != Kind::Float {
            return Ok(x.f_linear(&self.weight, self.bias.as_ref())?);
        }
        let columns = x.f_reshape([rows, -1])?.f_transpose(0, 1)?;
        shape.pop();
        shape.push(self.weight.size()[0]);
        let out = self.weight.f_mm(&columns)?.f_transpose(0, 1)?.f_reshape(shape)?;
        Ok(match &self.bias {
            Some(bias) => out.f_add(bias)?,
            None => out,
        })
    }

    pub fn numel(&self) -> usize {
        self.weight.numel() + self.bias.as_ref().map_or(0, Tensor::numel)
    }
}

/// A norm with its parameters.
pub struct Normed {
    pub kind: Norm,
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Normed {
    /// Of the last dimension.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.f_kind()?;
        match self.kind {
            Norm::Rms(eps) => Ok(self.weight.f_mul(&rms(x, eps)?.f_to_kind(dtype)?)?),
            Norm::RmsPlusOne(eps) => {
                let weight = self.weight.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?;
                Ok(rms(x, eps)?.f_mul(&weight)?.f_to_kind(dtype)?)
            }
            Norm::Layer(eps) => {
                let width = self.weight.numel() as i64;
                Ok(x.f_layer_norm([width], Some(&self.weight), self.bias.as_ref(), eps, false)?)
            }
        }
    }

    pub fn numel(&self) -> usize {
        self.weight.numel() + self.bias.as_ref().map_or(0, Tensor::numel)
    }
}

/// `x / √(mean x² + eps)`, in f32.
fn rms(x: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.f_to_kind(Kind::Float)?;
    let mean_square = wide.f_square()?.f_mean_dim(-1, true, Kind::Float)?;
    Ok(wide.f_mul(&mean_square.f_add_scalar(eps)?.f_rsqrt()?)?)
}

impl Activation {
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::Relu => x.f_relu()?,
        })
    }
}

/// `cap · tanh(x / cap)`.
pub fn capped(x: Tensor, cap: Option<f64>) -> Result<Tensor> {
    match cap {
        Some(cap) => Ok(x.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?),
        None => Ok(x),
    }
}
