//! Optimisers on plain tensors, with state that can be saved.

mod adafactor;
mod adamw;

use crate::model::numbers;
use crate::{Error, Result, finite};
use motrain_core::plan::{Optimizer, OptimizerName, Schedule};
use std::collections::BTreeMap;
use tch::{Kind, Tensor, no_grad};

pub type Params = [(String, Tensor)];

/// Moves parameters along their gradients.
pub trait Optim {
    /// One step at learning rate `lr`. Parameters without a gradient stay.
    fn step(&mut self, params: &Params, lr: f64) -> Result<()>;

    /// Everything that the next step depends on, by name.
    fn state(&self) -> Result<Vec<(String, Tensor)>>;

    /// Puts saved state back.
    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()>;
}

/// Makes the optimiser that the options name.
pub fn build(options: &Optimizer, params: &Params) -> Result<Box<dyn Optim>> {
    match options.name {
        OptimizerName::Adamw => Ok(Box::new(adamw::AdamW::new(options, params)?)),
        OptimizerName::Adafactor => Ok(Box::new(adafactor::Adafactor::new(options, params)?)),
    }
}

/// Numbers of an optimiser's state, by the shapes of what it moves.
pub fn state_numbers(options: &Optimizer, shapes: &[Vec<i64>]) -> f64 {
    let of = match options.name {
        OptimizerName::Adamw => |shape: &[i64]| 2.0 * numbers(shape),
        OptimizerName::Adafactor => |shape: &[i64]| match shape {
            [rows, columns] => *rows as f64 + *columns as f64,
            _ => numbers(shape),
        },
    };
    shapes.iter().map(|shape| of(shape)).sum::<f64>()
}

/// The learning rate of step `step` (from 0) of `total`.
pub fn learning_rate(options: &Optimizer, step: usize, total: usize) -> f64 {
    let warm = options.warmup_steps;
    if step < warm {
        return options.lr * (step + 1) as f64 / warm as f64;
    }
    let progress = (step - warm) as f64 / (total.saturating_sub(warm)).max(1) as f64;
    options.lr
        * match options.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => (1.0 - progress).max(0.0),
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
        }
}

/// Scales gradients down to `max_norm` (0: never) and returns their norm before.
pub fn clip_gradients(params: &Params, max_norm: f64) -> Result<f64> {
    no_grad(|| {
        let mut grads = params.iter().map(|(_, p)| p.f_grad()).collect::<std::result::Result<Vec<_>, _>>()?;
        grads.retain(Tensor::defined);
        let mut square = 0.0;
        for g in &grads {
            square += f64::try_from(g.f_square()?.f_sum(Kind::Double)?)?;
        }
        let norm = square.sqrt();
        if max_norm > 0.0 && norm > max_norm {
            for mut g in grads {
                let _ = g.f_mul_scalar_(max_norm / norm)?;
            }
        }
        Ok(norm)
    })
}

/// Where a number stopped being finite in a step, and what it was: in a gradient, or in a parameter.
pub fn not_finite(params: &Params, of: fn(&Tensor) -> Tensor) -> Result<Option<String>> {
    let tensors: Vec<Tensor> = params.iter().map(|(_, p)| of(p)).collect();
    let known: Vec<&Tensor> = tensors.iter().filter(|t| t.defined()).collect();
    if finite::all_finite(&known)? {
        return Ok(None);
    }
    for ((name, _), tensor) in params.iter().zip(&tensors).filter(|(_, t)| t.defined()) {
        if let Some(what) = finite::not_finite(tensor)? {
            return Ok(Some(format!("{name}: {what}")));
        }
    }
    Ok(None)
}

pub fn zero_gradients(params: &Params) -> Result<()> {
    for (_, p) in params {
        let mut gradient = p.f_grad()?;
        if gradient.defined() {
            let _ = gradient.f_detach_()?.f_zero_()?;
        }
    }
    Ok(())
}

/// The number of steps that saved state has seen.
fn take_step(state: &mut BTreeMap<String, Tensor>) -> Result<i64> {
    let step = take(state, "step", &Tensor::f_from_slice(&[0i64])?)?.f_int64_value(&[0])?;
    match step {
        0..=0x7fff_ffff => Ok(step),
        _ => Err(Error::invalid(format!("the checkpoint's optimiser state says that {step} steps were done"))),
    }
}

fn take(state: &mut BTreeMap<String, Tensor>, name: &str, like: &Tensor) -> Result<Tensor> {
    match state.remove(name) {
        Some(t) if t.size() == like.size() && t.f_kind().ok() == like.f_kind().ok() => {
            Ok(t.f_to_device(like.device())?)
        }
        _ => Err(Error::invalid(format!("the checkpoint's optimiser state does not fit the model at {name}"))),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use tch::Device;

    fn options(name: OptimizerName) -> Optimizer {
        Optimizer { name, weight_decay: 0.1, ..Optimizer::default() }
    }

    fn param() -> Vec<(String, Tensor)> {
        let w = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.25]).view([2, 2]).set_requires_grad(true);
        vec![("w".into(), w)]
    }

    fn loss(params: &Params) -> Tensor {
        (&params[0].1 * Tensor::from_slice(&[1.0f32, 2.0, -1.0, 3.0]).view([2, 2])).square().sum(Kind::Float)
    }

    fn train(optim: &mut dyn Optim, params: &Params, steps: usize) {
        for _ in 0..steps {
            loss(params).backward();
            optim.step(params, 0.1).unwrap();
            zero_gradients(params).unwrap();
        }
    }

    fn values(params: &Params) -> Vec<f64> {
        crate::train::logprob::to_vec(&params[0].1.view([-1])).unwrap()
    }

    /// Three steps, from scripts in tests/goldens/optimisers.py (torch.optim.AdamW and transformers' Adafactor).
    #[test]
    fn golden_trajectories() {
        let goldens: [(OptimizerName, [f64; 4]); 2] = [
            (OptimizerName::Adamw, [0.193_220_35, -0.675_003_23, 1.644_317_03, -0.034_066_7]),
            (OptimizerName::Adafactor, [0.401_077_03, -0.671_985_69, 1.477_057_46, 0.061_002_55]),
        ];
        for (name, golden) in goldens {
            let params = param();
            let mut optim = build(&options(name), &params).unwrap();
            train(optim.as_mut(), &params, 3);
            for (found, expected) in values(&params).iter().zip(golden) {
                assert!((found - expected).abs() < 1e-5, "{name:?}: {:?}", values(&params));
            }
        }
    }

    #[test]
    fn restored_state_continues_exactly() {
        for name in [OptimizerName::Adamw, OptimizerName::Adafactor] {
            let straight = param();
            let mut optim = build(&options(name), &straight).unwrap();
            train(optim.as_mut(), &straight, 2);
            let saved: BTreeMap<String, Tensor> =
                optim.state().unwrap().into_iter().map(|(n, t)| (n, t.copy())).collect();
            let resumed = vec![("w".to_owned(), straight[0].1.detach().copy().set_requires_grad(true))];
            train(optim.as_mut(), &straight, 2);
            let mut fresh = build(&options(name), &resumed).unwrap();
            fresh.restore(saved).unwrap();
            train(fresh.as_mut(), &resumed, 2);
            assert_eq!(values(&straight), values(&resumed), "{name:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_named_with_its_tensor() {
        let params = param();
        let names = |of: fn(&Tensor) -> Tensor, params: &Params| not_finite(params, of).unwrap();
        assert_eq!(names(Tensor::grad, &params), None);
        (&params[0].1 * Tensor::from_slice(&[1.0f32, 2.0, f32::INFINITY, 3.0]).view([2, 2]))
            .sum(Kind::Float)
            .backward();
        let said = names(Tensor::grad, &params).unwrap();
        assert_eq!(said, "w: 1 of 4 values are not finite; the first is inf at [1, 0]");
        assert_eq!(names(Tensor::shallow_clone, &params), None);
        let mut optim = build(&options(OptimizerName::Adamw), &params).unwrap();
        optim.step(&params, 1e308).unwrap();
        assert!(names(Tensor::shallow_clone, &params).unwrap().starts_with("w: "));
        zero_gradients(&params).unwrap();
    }

    #[test]
    fn state_of_another_kind_is_refused() {
        for name in [OptimizerName::Adamw, OptimizerName::Adafactor] {
            for step in [Tensor::from_slice(&[i64::MAX]), Tensor::from_slice(&[-1i64]), Tensor::from_slice(&[1f32])] {
                let mut optim = build(&options(name), &param()).unwrap();
                let mut state: BTreeMap<String, Tensor> = optim.state().unwrap().into_iter().collect();
                state.insert("step".into(), step);
                let message = optim.restore(state).unwrap_err().to_string();
                assert!(message.contains("the checkpoint's optimiser state"), "{message}");
            }
        }
    }

    #[test]
    fn schedules() {
        let linear = Optimizer { schedule: Schedule::Linear, warmup_steps: 2, lr: 1.0, ..Optimizer::default() };
        assert_eq!([0, 1, 2, 6, 10].map(|s| learning_rate(&linear, s, 10)), [0.5, 1.0, 1.0, 0.5, 0.0]);
        let cosine = Optimizer { schedule: Schedule::Cosine, lr: 1.0, ..Optimizer::default() };
        assert!((learning_rate(&cosine, 5, 10) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn clipping_reports_the_norm_before() {
        let params = vec![("w".to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true))];
        (&params[0].1 * Tensor::from_slice(&[3.0f32, 4.0])).sum(Kind::Float).backward();
        assert!((clip_gradients(&params, 1.0).unwrap() - 5.0).abs() < 1e-6);
        assert!((clip_gradients(&params, 0.0).unwrap() - 1.0).abs() < 1e-6);
        zero_gradients(&params).unwrap();
    }
}
