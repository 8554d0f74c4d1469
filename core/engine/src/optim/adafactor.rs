//! Adafactor (Shazeer and Stern 2018) as transformers has it with `relative_step=False, scale_parameter=False`: factored second moments,
//! update clipping, no momentum, a given learning rate. The paper says only "Adafactor" and the rate; T5X's default also scales updates by the
//! parameter's size. A fused matrix (query/key/value, gate/up) is one parameter here: its parts share column moments and the clip.

use super::{Optim, Params, take, take_step};
use crate::Result;
use motrain_core::plan::Optimizer;
use std::collections::BTreeMap;
use tch::{Kind, Tensor, no_grad};

/// Keeps squared gradients away from 0.
const EPSILON: f64 = 1e-30;
/// The second moment's decay at step t is 1 − t^(−0.8).
const DECAY: f64 = -0.8;
/// Updates are scaled down to this root mean square.
const CLIP: f64 = 1.0;

enum Moment {
    /// Row and column means of a matrix.
    Factored(Tensor, Tensor),
    Full(Tensor),
}

pub struct Adafactor {
    weight_decay: f64,
    step: i64,
    names: Vec<String>,
    moments: Vec<Moment>,
}

impl Adafactor {
    pub fn new(options: &Optimizer, params: &Params) -> Result<Self> {
        let moment = |p: &Tensor| -> Result<Moment> {
            let options = (Kind::Float, p.device());
            Ok(match p.size()[..] {
                [rows, columns] => {
                    Moment::Factored(Tensor::f_zeros([rows], options)?, Tensor::f_zeros([columns], options)?)
                }
                _ => Moment::Full(p.f_detach()?.f_zeros_like()?),
            })
        };
        let moments = params.iter().map(|(_, p)| moment(p)).collect::<Result<_>>()?;
        let names = params.iter().map(|(n, _)| n.clone()).collect();
        Ok(Self { weight_decay: options.weight_decay, step: 0, names, moments })
    }
}

impl Optim for Adafactor {
    fn step(&mut self, params: &Params, lr: f64) -> Result<()> {
        self.step += 1;
        let decay = 1.0 - (self.step as f64).powf(DECAY);
        no_grad(|| {
            for ((_, p), moment) in params.iter().zip(&mut self.moments) {
                let g = p.f_grad()?;
                if !g.defined() {
                    continue;
                }
                let square = g.f_square()?.f_add_scalar_(EPSILON)?;
                let update = match moment {
                    Moment::Factored(rows, columns) => {
                        let _ = rows
                            .f_mul_scalar_(decay)?
                            .f_add_(&square.f_mean_dim(1, false, Kind::Float)?.f_mul_scalar(1.0 - decay)?)?;
                        let _ = columns
                            .f_mul_scalar_(decay)?
                            .f_add_(&square.f_mean_dim(0, false, Kind::Float)?.f_mul_scalar(1.0 - decay)?)?;
                        let row = rows.f_div(&rows.f_mean(Kind::Float)?)?.f_rsqrt()?.f_unsqueeze(1)?;
                        g.f_mul(&row)?.f_mul_(&columns.f_rsqrt()?.f_unsqueeze(0)?)?
                    }
                    Moment::Full(v) => {
                        let _ = v.f_mul_scalar_(decay)?.f_add_(&square.f_mul_scalar(1.0 - decay)?)?;
                        g.f_mul(&v.f_rsqrt()?)?
                    }
                };
                let rms = f64::try_from(update.f_square()?.f_mean(Kind::Double)?)?.sqrt();
                let update = update.f_mul_scalar(lr / (rms / CLIP).max(1.0))?;
                let mut p = p.shallow_clone();
                if self.weight_decay > 0.0 && p.dim() > 1 {
                    let _ = p.f_mul_scalar_(1.0 - lr * self.weight_decay)?;
                }
                let _ = p.f_sub_(&update)?;
            }
            Ok(())
        })
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = vec![("step".to_owned(), Tensor::f_from_slice(&[self.step])?)];
        for (name, moment) in self.names.iter().zip(&self.moments) {
            match moment {
                Moment::Factored(rows, columns) => {
                    out.push((format!("rows.{name}"), rows.shallow_clone()));
                    out.push((format!("columns.{name}"), columns.shallow_clone()));
                }
                Moment::Full(v) => out.push((format!("square.{name}"), v.shallow_clone())),
            }
        }
        Ok(out)
    }

    fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        self.step = take_step(&mut state)?;
        for (name, moment) in self.names.iter().zip(&mut self.moments) {
            match moment {
                Moment::Factored(rows, columns) => {
                    *rows = take(&mut state, &format!("rows.{name}"), rows)?;
                    *columns = take(&mut state, &format!("columns.{name}"), columns)?;
                }
                Moment::Full(v) => *v = take(&mut state, &format!("square.{name}"), v)?,
            }
        }
        Ok(())
    }
}
