//! Drawing the next token. `multinomial` over a large vocabulary is single-threaded and slow on a CPU; a cumulative sum and a
//! binary search with one uniform number per row is several times faster and lets every sequence have its own seed.

use crate::Result;
use motrain_core::plan::Sampling;
use tch::{Kind, Tensor};

/// Draws one token per row of `logits` (`[rows, vocab]`, f32) with one uniform number in [0, 1) per row.
pub fn next_tokens(logits: &Tensor, sampling: &Sampling, uniform: &[f32]) -> Result<Tensor> {
    if sampling.temperature == 0.0 {
        return Ok(logits.f_argmax(-1, false)?);
    }
    let logits =
        if sampling.temperature == 1.0 { logits.shallow_clone() } else { logits.f_div_scalar(sampling.temperature)? };
    let uniform = Tensor::f_from_slice(uniform)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
    let vocab = logits.size2()?.1;
    if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        return pick(&logits.f_softmax(-1, Kind::Float)?, &uniform);
    }
    let keep = if sampling.top_k == 0 { vocab } else { (sampling.top_k as i64).min(vocab) };
    let (top, tokens) = logits.f_topk(keep, -1, true, true)?;
    let mut probs = top.f_softmax(-1, Kind::Float)?;
    if sampling.top_p < 1.0 {
        let before = probs.f_cumsum(-1, Kind::Float)? - &probs;
        probs = probs.f_masked_fill(&before.f_ge(sampling.top_p)?, 0.0)?;
    }
    let choice = pick(&probs, &uniform)?;
    Ok(tokens.f_gather(1, &choice.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?)
}

/// The index at which the cumulative probability passes `uniform` times the total.
fn pick(probs: &Tensor, uniform: &Tensor) -> Result<Tensor> {
    let last = probs.size2()?.1 - 1;
    let cumulative = probs.f_cumsum(-1, Kind::Float)?;
    let aim = uniform * cumulative.f_narrow(1, last, 1)?;
    let index = aim.f_searchsorted(&cumulative, false, true, "right", None::<&Tensor>)?;
    Ok(index.f_clamp_max(last)?.f_squeeze_dim(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: &Sampling, uniform: f32) -> i64 {
        let logits = Tensor::from_slice(&[0.5f32, 0.3, 0.15, 0.05]).log().unsqueeze(0);
        next_tokens(&logits, sampling, &[uniform]).unwrap().int64_value(&[0])
    }

    #[test]
    fn follows_the_distribution() {
        let plain = Sampling::default();
        assert_eq!([0.0, 0.49, 0.51, 0.79, 0.81, 0.96, 0.99999].map(|u| draw(&plain, u)), [0, 0, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn filters_and_greedy() {
        let top_k = Sampling { top_k: 2, ..Sampling::default() };
        assert_eq!([0.62, 0.63, 0.9999].map(|u| draw(&top_k, u)), [0, 1, 1]);
        let top_p = Sampling { top_p: 0.7, ..Sampling::default() };
        assert_eq!([0.62, 0.63, 0.9999].map(|u| draw(&top_p, u)), [0, 1, 1]);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(draw(&greedy, 0.99), 0);
        let cold = Sampling { temperature: 0.1, ..Sampling::default() };
        assert_eq!(draw(&cold, 0.99), 0);
    }
}
