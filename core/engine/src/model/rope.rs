//! Rotary positions (Su et al. 2021) and their scalings, as `modeling_rope_utils.py` of transformers reads and computes them.

use crate::Result;
use crate::fields::{Fields, Said};
use serde_json::{Map, Value};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// One way to rotate: angle `position · frequency` of each pair of dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Dimensions of a head that are rotated, from the first on.
    pub dims: i64,
    pub scaling: Scaling,
    /// What cos and sin are multiplied by.
    pub factor: f64,
}

/// What becomes of the plain frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    None,
    Linear(f64),
    /// Llama 3.1: low frequencies divided, high ones kept, those between in between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// YaRN (Peng et al. 2023): from the dimension `low` on divided more and more, from `high` on wholly.
    Yarn {
        factor: f64,
        low: f64,
        high: f64,
    },
    /// A divisor for each frequency.
    Each(Vec<f64>),
}

/// The file's only way to rotate. Where positions beyond `context` would be rotated otherwise than those before, `context` ends there.
pub fn read(f: &mut Fields, theta: f64, head_dim: i64, context: &mut i64) -> Said<Rope> {
    let beside = f.take("rope_theta")?.unwrap_or(theta);
    let (name, map) = parameters(f)?;
    let original = f.take("original_max_position_embeddings")?;
    one(name, map, beside, head_dim, original, context)
}

/// The fields that say how to rotate. Newer files keep them in rope_parameters, older ones in rope_scaling.
pub fn parameters(f: &mut Fields) -> Said<(&'static str, Map<String, Value>)> {
    let parameters: Map<String, Value> = f.take("rope_parameters")?.unwrap_or_default();
    let scaling: Map<String, Value> = f.take("rope_scaling")?.unwrap_or_default();
    if !parameters.is_empty() && !scaling.is_empty() && parameters != scaling {
        return Err("says how positions are rotated twice, in rope_parameters and in rope_scaling; leave one".into());
    }
    Ok(if scaling.is_empty() { ("rope_parameters", parameters) } else { ("rope_scaling", scaling) })
}

/// One way to rotate. `original` is what the file says outside of `map` of the context before scaling.
pub fn one(
    name: &str,
    map: Map<String, Value>,
    theta: f64,
    dims: i64,
    original: Option<f64>,
    context: &mut i64,
) -> Said<Rope> {
    let mut rope = Fields::from(map);
    let old: Option<String> = rope.take("type")?;
    let kind = rope.take("rope_type")?.or(old).unwrap_or_else(|| "default".into());
    let theta = rope.take("rope_theta")?.unwrap_or(theta);
    let inside: Option<f64> = rope.take("original_max_position_embeddings")?;
    let original = original.or(inside).unwrap_or(*context as f64);
    let needed = |rope: &mut Fields, key: &str| -> Said<f64> {
        rope.take(key)?.ok_or_else(|| format!("says {name}: rope type \"{kind}\" without {key}"))
    };
    let mut factor = 1.0;
    let scaling = match kind.as_str() {
        "default" => Scaling::None,
        "linear" => Scaling::Linear(needed(&mut rope, "factor")?),
        // Nothing changes up to the context; beyond it transformers rotates all positions anew, with every token.
        "dynamic" => needed(&mut rope, "factor").map(|_| Scaling::None)?,
        "llama3" => Scaling::Llama3 {
            factor: needed(&mut rope, "factor")?,
            low: needed(&mut rope, "low_freq_factor")?,
            high: needed(&mut rope, "high_freq_factor")?,
            original,
        },
        "yarn" => yarn(&mut rope, theta, dims, original, *context as f64, &mut factor)?,
        "longrope" | "su" => longrope(&mut rope, original, context, &mut factor)?,
        _ => {
            return Err(format!(
                "says {name}: rope type \"{kind}\"; motrain knows \"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\" and \"longrope\""
            ));
        }
    };
    match rope.left().into_iter().find(|(_, said)| said != "partial_rotary_factor = 1.0") {
        Some((_, said)) => Err(format!("says {said} in {name}, which motrain does not do")),
        None => Ok(Rope { theta, dims, scaling, factor }),
    }
}

fn yarn(rope: &mut Fields, theta: f64, dims: i64, original: f64, context: f64, spread: &mut f64) -> Said<Scaling> {
    let factor = rope.take("factor")?.unwrap_or(context / original);
    let said: Option<f64> = rope.take("attention_factor")?;
    let (scale, all): (Option<f64>, Option<f64>) = (rope.take("mscale")?, rope.take("mscale_all_dim")?);
    let of = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    *spread = said.unwrap_or_else(|| match (scale.filter(|s| *s != 0.0), all.filter(|s| *s != 0.0)) {
        (Some(scale), Some(all)) => of(scale) / of(all),
        _ => of(1.0),
    });
    let beta = |said: Option<f64>, usual: f64| said.filter(|b| *b != 0.0).unwrap_or(usual);
    let (fast, slow) = (beta(rope.take("beta_fast")?, 32.0), beta(rope.take("beta_slow")?, 1.0));
    let dim = |turns: f64| dims as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (dim(fast), dim(slow));
    if rope.take("truncate")?.unwrap_or(true) {
        (low, high) = (low.floor(), high.ceil());
    }
    Ok(Scaling::Yarn { factor, low: low.max(0.0), high: high.min(dims as f64 - 1.0) })
}

/// Up to the context of before only: beyond it transformers rotates all positions anew.
fn longrope(rope: &mut Fields, original: f64, context: &mut i64, spread: &mut f64) -> Said<Scaling> {
    let short: Vec<f64> = rope.need("short_factor")?;
    rope.harmless(&["long_factor"]);
    let factor = rope.take("factor")?.unwrap_or(*context as f64 / original);
    let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
    *spread = rope.take("attention_factor")?.unwrap_or(usual);
    *context = (*context).min(original as i64);
    Ok(Scaling::Each(short))
}

impl Rope {
    pub fn check(&self, head_dim: i64) -> Said<()> {
        if self.dims % 2 != 0 || self.dims > head_dim || self.dims < 0 {
            return Err(format!("says head_dim = {}; rotary positions need an even one", self.dims));
        }
        let numbers = match &self.scaling {
            Scaling::None => vec![],
            Scaling::Linear(factor) => vec![*factor],
            Scaling::Llama3 { factor, low, high, original } => vec![*factor, *low, *high - *low, *original],
            Scaling::Yarn { factor, .. } => vec![*factor],
            Scaling::Each(list) if list.len() as i64 * 2 != self.dims => {
                return Err(format!("says {} numbers in short_factor; {} are needed", list.len(), self.dims / 2));
            }
            Scaling::Each(list) => list.clone(),
        };
        let odd = |x: &f64| !(x.is_finite() && *x > 0.0);
        if odd(&self.theta) {
            return Err(format!("says rope_theta = {}; it must be above 0", self.theta));
        }
        match numbers.iter().chain([&self.factor]).find(|x| odd(x)) {
            Some(x) => {
                Err(format!("scales rotary positions (rope_scaling, rope_parameters) by {x}; it must be above 0"))
            }
            None => Ok(()),
        }
    }

    /// cos and sin of each position's angles, each `[batch, 1, length, dims]`; `positions` is `[batch, length]`.
    pub fn rotation(&self, positions: &Tensor, dtype: Kind) -> Result<(Tensor, Tensor)> {
        let frequency = self.frequencies(positions.device())?;
        let angle = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequency)?;
        let angle = Tensor::f_cat(&[&angle, &angle], -1)?.f_unsqueeze(1)?;
        let of = |x: Tensor| -> Result<Tensor> {
            let x = if self.factor == 1.0 { x } else { x.f_mul_scalar(self.factor)? };
            Ok(x.f_to_kind(dtype)?)
        };
        Ok((of(angle.f_cos()?)?, of(angle.f_sin()?)?))
    }

    /// `[dims / 2]` (f32): radians a position.
    pub fn frequencies(&self, device: Device) -> Result<Tensor> {
        let half = Tensor::f_arange_start_step(0, self.dims, 2, (Kind::Float, device))?;
        let exponent = half.f_div_scalar(self.dims as f64)?;
        let turns = Tensor::f_pow_scalar(self.theta, &exponent)?;
        let plain = turns.f_reciprocal()?;
        let scaled = match &self.scaling {
            Scaling::None => return Ok(plain),
            Scaling::Linear(factor) => return Ok(plain.f_div_scalar(*factor)?),
            Scaling::Each(list) => {
                let list: Vec<f32> = list.iter().map(|x| *x as f32).collect();
                return Ok(Tensor::f_from_slice(&list)?.f_to_device(device)?.f_mul(&turns)?.f_reciprocal()?);
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let wave = |f: f64| 2.0 * PI / f;
                let (longest, shortest) = (original / low, original / high);
                each(&plain, |_, f| match wave(f) {
                    wave if wave < shortest => f,
                    wave if wave > longest => f / factor,
                    wave => {
                        let share = (original / wave - low) / (high - low);
                        (1.0 - share) * f / factor + share * f
                    }
                })?
            }
            Scaling::Yarn { factor, low, high } => {
                let width = if high == low { 0.001 } else { high - low };
                each(&plain, |i, f| {
                    let divided = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    f / factor * divided + f * (1.0 - divided)
                })?
            }
        };
        Ok(scaled.f_to_device(device)?)
    }
}

fn each(plain: &Tensor, of: impl Fn(usize, f64) -> f64) -> Result<Tensor> {
    let plain: Vec<f32> = Vec::try_from(plain.f_to_device(Device::Cpu)?)?;
    let scaled: Vec<f32> = plain.iter().enumerate().map(|(i, f)| of(i, f64::from(*f)) as f32).collect();
    Ok(Tensor::f_from_slice(&scaled)?)
}

/// The dimensions that a share of a head has.
pub fn part(share: f64, head_dim: i64) -> Said<i64> {
    match (share * head_dim as f64) as i64 {
        dims if (0.0..=1.0).contains(&share) && dims > 0 => Ok(dims),
        _ => Err(format!("says that a share of {share} of each head is rotated (partial_rotary_factor, rotary_pct)")),
    }
}
