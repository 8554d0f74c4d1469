//! The layers that all families are made of.

use super::changes::{Changes, Passing};
use super::shape::{Activation, Norm};
use crate::Result;
use motrain_kernels::LaidOut;
use tch::{Device, Kind, Tensor};

/// `W·x + b`, and what low-rank changes add to it.
pub struct Linear {
    pub matrix: Matrix,
    pub bias: Option<Tensor>,
    pub changes: Option<Changes>,
}

/// `[out, in]`.
pub enum Matrix {
    Plain(Tensor),
    /// As products without gradients go fastest, with its numbers of rows and columns.
    LaidOut(LaidOut, [i64; 2]),
}

/// Rows of the products that matrices are laid out for: a batch of tokens under way.
const LAID_OUT_FOR: i64 = 64;

/// Rows up to which f32 products on a CPU are faster as `W·xᵀ` than as `x·Wᵀ`: up to 2.7 times for the output head.
const FEW_ROWS: i64 = 96;

impl Linear {
    /// `x` is `[batch, …, in]`.
    pub fn apply(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let Some(changes) = &self.changes else { return self.matrix.product(x, self.bias.as_ref()) };
        let longer = changes.beside(x, passing)?;
        let out = self.matrix.product(longer.as_ref().unwrap_or(x), self.bias.as_ref())?;
        changes.add_to(out, x, passing)
    }

    pub fn numel(&self) -> usize {
        self.matrix.numel() + self.bias.as_ref().map_or(0, Tensor::numel)
    }

    /// Lays its matrices out for products without gradients, where that makes them faster.
    pub fn lay_out(&mut self) -> Result<()> {
        if let (Matrix::Plain(weight), Some(changes)) = (&self.matrix, &mut self.changes) {
            let size = [weight.size()[0], weight.size()[1]];
            if let Some(joined) = changes.join(weight, laid_out)? {
                self.matrix = Matrix::LaidOut(joined, size);
            }
        }
        self.matrix.lay_out()?;
        self.changes.as_mut().map_or(Ok(()), Changes::lay_out)
    }
}

fn laid_out(weight: &Tensor) -> Result<Option<LaidOut>> {
    Ok(if weight.requires_grad() { None } else { LaidOut::of(weight, LAID_OUT_FOR)? })
}

impl Matrix {
    /// `x·Wᵀ + b` for `x`, `[batch, …, in]`.
    pub fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let weight = match self {
            Self::Plain(weight) => weight,
            Self::LaidOut(weight, _) => return Ok(weight.product(x, bias)?),
        };
        let mut shape = x.size();
        let rows = (x.numel() as i64) / weight.size()[1];
        if rows == 1 || rows > FEW_ROWS || x.device() != Device::Cpu || x.f_kind()? != Kind::Float {
            return Ok(x.f_linear(weight, bias)?);
        }
        let columns = x.f_reshape([rows, -1])?.f_transpose(0, 1)?;
        shape.pop();
        shape.push(weight.size()[0]);
        let out = weight.f_mm(&columns)?.f_transpose(0, 1)?.f_reshape(shape)?;
        Ok(match bias {
            Some(bias) => out.f_add(bias)?,
            None => out,
        })
    }

    pub fn numel(&self) -> usize {
        match self {
            Self::Plain(weight) => weight.numel(),
            Self::LaidOut(_, [rows, columns]) => (rows * columns) as usize,
        }
    }

    /// Lays it out for products without gradients, where that makes them faster.
    pub fn lay_out(&mut self) -> Result<()> {
        if let Self::Plain(weight) = self
            && let Some(laid_out) = laid_out(weight)?
        {
            let (rows, columns) = weight.size2()?;
            *self = Self::LaidOut(laid_out, [rows, columns]);
        }
        Ok(())
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
        if motrain_kernels::serves(x) && self.weight.f_kind()? == dtype {
            match self.kind {
                Norm::Rms(eps) => return Ok(motrain_kernels::rms_norm(x, &self.weight, eps, false)?),
                Norm::RmsPlusOne(eps) => return Ok(motrain_kernels::rms_norm(x, &self.weight, eps, true)?),
                Norm::Layer(_) => {}
            }
        }
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
