//! Parameter mixes of specialists (Rewarded Soups, Ramé et al. 2023): `θ(w) = θ₀ + Σ wₖ·(θₖ − θ₀)`. The inputs are left as they are.

use super::Model;
use super::adapter::Adapter;
use super::config::Config;
use crate::finite::not_finite;
use crate::obey;
use crate::{Error, Result};
use tch::{Kind, Tensor, no_grad};

/// Below this cosine between a part's parameters and the base's, the part did not begin at the base: independent initialisations are
/// almost orthogonal, fine-tuning moves parameters by a few per cent.
const SAME_START: f64 = 0.5;

/// Specialists in memory, ready to be mixed at any weights.
pub struct Mix {
    base: Model,
    parts: Parts,
}

enum Parts {
    Models(Vec<Model>),
    /// LoRA factors, mixed before they are multiplied.
    Factors(Vec<Adapter>),
}

impl Mix {
    /// From whole models, by their differences to `base`. `names` are for messages.
    pub fn of_models(base: Model, parts: Vec<Model>, names: &[String]) -> Result<Self> {
        for (part, name) in parts.iter().zip(names) {
            same_shapes(&base, part, name)?;
            same_start(&base, part, name)?;
        }
        Ok(Self { base, parts: Parts::Models(parts) })
    }

    /// From LoRA adapters, by the changes that they make to `base`: these need no check of where they began.
    pub fn of_adapters(base: Model, parts: Vec<Adapter>, names: &[String]) -> Result<Self> {
        let models = parts.iter().map(|a| a.applied_to(&base)).collect::<Result<Vec<_>>>()?;
        for (part, name) in models.iter().zip(names) {
            same_shapes(&base, part, name)?;
        }
        Ok(Self { base, parts: Parts::Models(models) })
    }

    /// From LoRA adapters by their factors, `(Σ wₖBₖ)(Σ wₖAₖ)`, which holds cross terms that differences do not.
    pub fn of_factors(base: Model, parts: Vec<Adapter>) -> Result<Self> {
        // Each is applied once, to see that it fits the base.
        parts.iter().try_for_each(|part| part.applied_to(&base).map(|_| ()))?;
        if let Some(odd) = parts.iter().find(|p| !p.same_shape(&parts[0])) {
            return Err(Error::invalid(format!(
                "{} and {} have other ranks, scales or modules, or hold whole modules, so their factors cannot be mixed; use adapters = \"delta\"",
                parts[0].name(),
                odd.name()
            )));
        }
        Ok(Self { base, parts: Parts::Factors(parts) })
    }

    pub fn config(&self) -> &Config {
        &self.base.config
    }

    /// The mix at `weights`, one per part.
    pub fn at(&self, weights: &[f64]) -> Result<Model> {
        let parts = match &self.parts {
            Parts::Models(models) => models,
            Parts::Factors(adapters) => {
                self.right_count(weights, adapters.len())?;
                return Adapter::mixed_onto(&self.base, adapters, weights);
            }
        };
        self.right_count(weights, parts.len())?;
        // Written with the base's share, so that a weight of 1 gives that part exactly.
        let rest = 1.0 - weights.iter().sum::<f64>();
        let mix = |i: usize| -> Result<Tensor> {
            obey()?;
            let mut sum = if rest.abs() < 1e-9 { None } else { Some(self.base.params[i].1.f_mul_scalar(rest)?) };
            for (part, &w) in parts.iter().zip(weights).filter(|(_, w)| **w != 0.0) {
                let term = part.params[i].1.f_detach()?.f_mul_scalar(w)?;
                sum = Some(match sum {
                    Some(sum) => sum.f_add(&term)?,
                    None => term,
                });
            }
            sum.map_or_else(|| Ok(self.base.params[i].1.f_mul_scalar(rest)?), Ok)
        };
        no_grad(|| {
            let params = (0..self.base.params.len()).map(|i| {
                let (name, sum) = (&self.base.params[i].0, mix(i)?);
                match not_finite(&sum)? {
                    Some(what) => Err(Error::invalid(format!(
                        "soup: at weights {weights:?}, of {name} {what}; weigh the parts less"
                    ))),
                    None => Ok((name.clone(), sum)),
                }
            });
            Ok(Model { config: self.base.config.clone(), params: params.collect::<Result<_>>()?, lora: None })
        })
    }

    fn right_count(&self, weights: &[f64], parts: usize) -> Result<()> {
        if weights.len() == parts {
            return Ok(());
        }
        Err(Error::invalid(format!("soup: {} weights for {parts} parts; give a part per objective", weights.len())))
    }
}

fn same_shapes(base: &Model, part: &Model, name: &str) -> Result<()> {
    let shapes = |m: &Model| m.params.iter().map(|(n, p)| (n.clone(), p.size())).collect::<Vec<_>>();
    let (wanted, found) = (shapes(base), shapes(part));
    for (i, (wanted, shape)) in wanted.iter().enumerate() {
        if found.get(i) != Some(&(wanted.clone(), shape.clone())) {
            let found = found.get(i).map_or("nothing".into(), |(n, s)| format!("{n} {s:?}"));
            return Err(Error::invalid(format!(
                "soup: {name} has another shape than the base: {found} where the base has {wanted} {shape:?}"
            )));
        }
    }
    Ok(())
}

/// Norms are near 1 whatever the initialisation, so only matrices tell.
fn same_start(base: &Model, part: &Model, name: &str) -> Result<()> {
    let (mut dot, mut own, mut other) = (0.0, 0.0, 0.0);
    for ((_, a), (_, b)) in base.params.iter().zip(&part.params).filter(|((_, a), _)| a.dim() > 1) {
        obey()?;
        let sum = |x: Tensor| -> Result<f64> { Ok(f64::try_from(x.f_sum(Kind::Double)?)?) };
        dot += sum(a.f_mul(b)?)?;
        own += sum(a.f_square()?)?;
        other += sum(b.f_square()?)?;
    }
    let cosine = if own == other && own == 0.0 { 1.0 } else { dot / (own.sqrt() * other.sqrt()) };
    // A cosine that is no number (one of them is all zeros) is no proof, either.
    if cosine.is_nan() || cosine < SAME_START {
        return Err(Error::invalid(format!(
            "soup: {name} did not begin at the base (cosine of their parameters {cosine:.2}); specialists must be trained from the same \
             initial policy"
        )));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Head, LlamaSizes};
    use tch::Device;

    fn config() -> Config {
        with_width(12)
    }

    fn with_width(intermediate_size: i64) -> Config {
        let sizes = LlamaSizes {
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            context: 16,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            bos: None,
            eos: vec![0],
            pad: None,
            head: Head::TiedLm,
        };
        sizes.config().unwrap()
    }

    pub fn base() -> Model {
        Model::init(config(), 1, Device::Cpu).unwrap()
    }

    /// The base with every parameter moved by `step`.
    fn moved(step: f64) -> Model {
        let mut model = base();
        for (_, p) in &mut model.params {
            *p = p.f_add_scalar(step).unwrap();
        }
        model
    }

    fn names() -> Vec<String> {
        vec!["one".into(), "two".into()]
    }

    fn first(model: &Model) -> f64 {
        model.params[0].1.double_value(&[0, 0])
    }

    #[test]
    fn a_weight_of_one_gives_that_part_exactly_and_inputs_stay() {
        let parts = [moved(0.004), moved(-0.002)];
        let copies = parts.iter().map(|p| p.frozen_copy().unwrap()).collect();
        let mix = Mix::of_models(base(), copies, &names()).unwrap();
        for _ in 0..2 {
            for (weights, part) in [([1.0, 0.0], &parts[0]), ([0.0, 1.0], &parts[1])] {
                let mixed = mix.at(&weights).unwrap();
                assert!(mixed.params.iter().zip(&part.params).all(|(a, b)| a.1 == b.1));
            }
            let half = first(&mix.at(&[0.5, 0.5]).unwrap()) - first(&base());
            assert!((half - 0.001).abs() < 1e-6, "{half}");
            let beyond = first(&mix.at(&[2.0, 1.0]).unwrap()) - first(&base());
            assert!((beyond - 0.006).abs() < 1e-6, "{beyond}");
        }
        assert!(mix.at(&[0.0, 0.0]).unwrap().params.iter().zip(&base().params).all(|(a, b)| a.1 == b.1));
    }

    #[test]
    fn other_shapes_beginnings_and_counts_are_refused() {
        let stranger = Model::init(config(), 2, Device::Cpu).unwrap();
        let start = Mix::of_models(base(), vec![moved(0.001), stranger], &names()).err().unwrap().to_string();
        assert!(start.contains("two did not begin at the base"), "{start}");
        let mut zeros = base();
        for (_, p) in &mut zeros.params {
            *p = p.f_zeros_like().unwrap();
        }
        let start = Mix::of_models(base(), vec![zeros], &names()).err().unwrap().to_string();
        assert!(start.contains("one did not begin at the base"), "{start}");
        let wide = Model::init(with_width(16), 1, Device::Cpu).unwrap();
        let shape = Mix::of_models(base(), vec![wide], &names()).err().unwrap().to_string();
        assert!(shape.contains("one has another shape than the base"), "{shape}");
        let mix = Mix::of_models(base(), vec![moved(0.001)], &names()).unwrap();
        let huge = mix.at(&[1e39]).err().unwrap().to_string();
        assert!(huge.contains("soup: at weights [1e39], of model.embed_tokens.weight"), "{huge}");
        assert_eq!(
            mix.at(&[0.5, 0.5]).err().unwrap().to_string(),
            "soup: 2 weights for 1 parts; give a part per objective"
        );
    }
}
