//! AdamW (Loshchilov and Hutter 2019). Weight decay leaves vectors (norms) alone.

use super::{Optim, Params, take, take_step};
use crate::Result;
use motrain_core::plan::Optimizer;
use std::collections::BTreeMap;
use tch::{Tensor, no_grad};

pub struct AdamW {
    options: Optimizer,
    step: i64,
    names: Vec<String>,
    mean: Vec<Tensor>,
    square: Vec<Tensor>,
}

impl AdamW {
    pub fn new(options: &Optimizer, params: &Params) -> Result<Self> {
        let zeros = || params.iter().map(|(_, p)| Ok(p.f_detach()?.f_zeros_like()?)).collect::<Result<Vec<_>>>();
        let names = params.iter().map(|(n, _)| n.clone()).collect();
        Ok(Self { options: options.clone(), step: 0, names, mean: zeros()?, square: zeros()? })
    }
}

impl Optim for AdamW {
    fn step(&mut self, params: &Params, lr: f64) -> Result<()> {
        self.step += 1;
        let Optimizer { beta1, beta2, epsilon, weight_decay, .. } = self.options;
        let correct1 = 1.0 - beta1.powi(self.step as i32);
        let correct2 = 1.0 - beta2.powi(self.step as i32);
        no_grad(|| {
            for (((_, p), m), v) in params.iter().zip(&mut self.mean).zip(&mut self.square) {
                let g = p.f_grad()?;
                if !g.defined() {
                    continue;
                }
                let mut p = p.shallow_clone();
                if weight_decay > 0.0 && p.dim() > 1 {
                    let _ = p.f_mul_scalar_(1.0 - lr * weight_decay)?;
                }
                let _ = m.f_mul_scalar_(beta1)?.f_add_(&g.f_mul_scalar(1.0 - beta1)?)?;
                let square = g.f_square()?.f_mul_scalar_(1.0 - beta2)?;
                let _ = v.f_mul_scalar_(beta2)?.f_add_(&square)?;
                let scale = v.f_div_scalar(correct2)?.f_sqrt_()?.f_add_scalar_(epsilon)?;
                let update = m.f_div(&scale)?.f_mul_scalar_(lr / correct1)?;
                let _ = p.f_sub_(&update)?;
            }
            Ok(())
        })
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = vec![("step".to_owned(), Tensor::f_from_slice(&[self.step])?)];
        for ((name, m), v) in self.names.iter().zip(&self.mean).zip(&self.square) {
            out.push((format!("mean.{name}"), m.shallow_clone()));
            out.push((format!("square.{name}"), v.shallow_clone()));
        }
        Ok(out)
    }

    fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        self.step = take_step(&mut state)?;
        for ((name, m), v) in self.names.iter().zip(&mut self.mean).zip(&mut self.square) {
            *m = take(&mut state, &format!("mean.{name}"), m)?;
            *v = take(&mut state, &format!("square.{name}"), v)?;
        }
        Ok(())
    }
}
