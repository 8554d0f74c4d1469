//! Drawing the next token. `multinomial` over a large vocabulary is single-threaded and slow on a CPU; a cumulative sum and a
//! binary search with one uniform number per row is several times faster and lets every sequence have its own seed.

use crate::Result;
use motrain_core::plan::GenerationConfig;
use tch::{Kind, Tensor};

/// Below this temperature f32 cannot divide by it, and only the likeliest token is ever drawn.
const COLD: f64 = 1e-30;

/// Tokens among which those that `top_p` keeps are looked for first.
const FEW: i64 = 64;

/// Stands for a token where a row's logits are not finite.
pub const NOT_FINITE: i64 = -1;

/// A token of each row.
pub struct Next {
    /// `[rows]` (i64).
    pub tokens: Tensor,
    /// Their log-probs at the temperature, before `top_k` and `top_p`, `[rows]` (f32).
    pub log_probs: Tensor,
}

/// Draws one token per row of `logits` (`[rows, vocab]`, f32) with one uniform number in [0, 1) per row. Where the logits hold a NaN or
/// an infinity, or nothing but −∞, the token is `NOT_FINITE`.
pub fn next_tokens(logits: &Tensor, sampling: &GenerationConfig, uniform: &[f32]) -> Result<Next> {
    if sampling.temperature < COLD {
        // A NaN is the greatest, so that the greatest tells of all.
        let (greatest, tokens) = logits.f_max_dim(-1, false)?;
        return Ok(Next { tokens: marked(&tokens, &greatest)?, log_probs: greatest.f_zeros_like()? });
    }
    if sampling.top_k == 0 && sampling.top_p >= 1.0 && motrain_kernels::serves(logits) {
        let [tokens, log_probs] = motrain_kernels::draw(logits, &Tensor::f_from_slice(uniform)?, sampling.temperature)?;
        return Ok(Next { tokens, log_probs });
    }
    let logits =
        if sampling.temperature == 1.0 { logits.shallow_clone() } else { logits.f_div_scalar(sampling.temperature)? };
    let uniform = Tensor::f_from_slice(uniform)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
    let log_probs = logits.f_log_softmax(-1, Kind::Float)?;
    let tokens = match sampling.top_k == 0 && sampling.top_p >= 1.0 {
        true => pick(&log_probs.f_exp()?, &uniform)?,
        false => pick_among(&log_probs, sampling, &uniform)?,
    };
    let own = log_probs.f_gather(1, &tokens.f_clamp_min(0)?.f_unsqueeze(1)?, false)?;
    Ok(Next { tokens, log_probs: own.f_squeeze_dim(1)? })
}

/// One of the tokens that `top_k` and `top_p` keep.
fn pick_among(log_probs: &Tensor, sampling: &GenerationConfig, uniform: &Tensor) -> Result<Tensor> {
    let vocab = log_probs.size2()?.1;
    let most = if sampling.top_k == 0 { vocab } else { i64::try_from(sampling.top_k).unwrap_or(vocab).min(vocab) };
    let (mut probs, tokens) = likeliest(log_probs, most, sampling)?;
    if sampling.top_p < 1.0 {
        let before = probs.f_cumsum(-1, Kind::Float)?.f_sub(&probs)?;
        // However little is asked for, the likeliest token stays.
        let share = sampling.top_p.max(f64::from(f32::MIN_POSITIVE));
        probs = probs.f_masked_fill(&before.f_ge(share)?, 0.0)?;
    }
    let choice = pick(&probs, uniform)?;
    let drawn = tokens.f_gather(1, &choice.f_clamp_min(0)?.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    Ok(drawn.f_where_self(&choice.f_ge(0)?, &choice)?)
}

/// The likeliest tokens, best first, with probabilities: `most` of them, among which the probabilities are, or at least those that `top_p` keeps of all
/// tokens, since a full sort costs more than all else.
fn likeliest(log_probs: &Tensor, most: i64, sampling: &GenerationConfig) -> Result<(Tensor, Tensor)> {
    let mut keep = most;
    if sampling.top_k == 0 && sampling.top_p < 1.0 {
        keep = FEW.min(most);
        while keep < most {
            let (top, tokens) = log_probs.f_topk(keep, -1, true, true)?;
            let probs = top.f_exp()?;
            // A row that is not finite never gets there, and is told by the full sort.
            let enough = probs.f_sum_dim_intlist(-1, false, Kind::Float)?.f_ge(sampling.top_p)?.f_all()?;
            if bool::try_from(enough)? {
                return Ok((probs, tokens));
            }
            keep = (keep * 8).min(most);
        }
    }
    let (top, tokens) = log_probs.f_topk(keep, -1, true, true)?;
    Ok((top.f_softmax(-1, Kind::Float)?, tokens))
}

/// The index at which the cumulative probability passes `uniform` times the total. Softmax makes one NaN or infinity a row of NaN, which
/// the total tells of.
fn pick(probs: &Tensor, uniform: &Tensor) -> Result<Tensor> {
    let last = probs.size2()?.1 - 1;
    let cumulative = probs.f_cumsum(-1, Kind::Float)?;
    let total = cumulative.f_narrow(1, last, 1)?;
    // Rounding may lift the product to the total, behind which only tokens without any probability lie.
    let aim = uniform.f_mul(&total)?.f_minimum(&total.f_nextafter(&total.f_zeros_like()?)?)?;
    let index = aim.f_searchsorted(&cumulative, false, true, "right", None::<&Tensor>)?;
    marked(&index.f_clamp_max(last)?.f_squeeze_dim(1)?, &total.f_squeeze_dim(1)?)
}

/// The tokens, `NOT_FINITE` where the value that tells of their row is not finite.
fn marked(tokens: &Tensor, tells: &Tensor) -> Result<Tensor> {
    Ok(tokens.f_masked_fill(&tells.f_isfinite()?.f_logical_not()?, NOT_FINITE)?)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;

    fn draw(sampling: &GenerationConfig, uniform: f32) -> i64 {
        let logits = Tensor::from_slice(&[0.5f32, 0.3, 0.15, 0.05]).log().unsqueeze(0);
        next_tokens(&logits, sampling, &[uniform]).unwrap().tokens.int64_value(&[0])
    }

    #[test]
    fn follows_the_distribution() {
        let plain = GenerationConfig::default();
        assert_eq!([0.0, 0.49, 0.51, 0.79, 0.81, 0.96, 0.99999].map(|u| draw(&plain, u)), [0, 0, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn filters_and_greedy() {
        let top_k = GenerationConfig { top_k: 2, ..GenerationConfig::default() };
        assert_eq!([0.62, 0.63, 0.9999].map(|u| draw(&top_k, u)), [0, 1, 1]);
        let top_p = GenerationConfig { top_p: 0.7, ..GenerationConfig::default() };
        assert_eq!([0.62, 0.63, 0.9999].map(|u| draw(&top_p, u)), [0, 1, 1]);
        let greedy = GenerationConfig { temperature: 0.0, ..GenerationConfig::default() };
        assert_eq!(draw(&greedy, 0.99), 0);
        let cold = GenerationConfig { temperature: 0.1, ..GenerationConfig::default() };
        assert_eq!(draw(&cold, 0.99), 0);
    }

    fn all_ways() -> [GenerationConfig; 6] {
        let plain = GenerationConfig::default();
        [
            plain.clone(),
            GenerationConfig { temperature: 0.0, ..plain.clone() },
            GenerationConfig { temperature: 0.7, ..plain.clone() },
            GenerationConfig { top_k: 2, ..plain.clone() },
            GenerationConfig { top_p: 0.5, ..plain.clone() },
            GenerationConfig { top_k: 3, top_p: 0.9, temperature: 1.5, ..plain },
        ]
    }

    /// Rows that no token can be drawn from are marked, whatever the way of drawing, and their neighbours are not.
    #[test]
    fn rows_that_are_not_finite_are_marked() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let rows = [[1.0, 2.0, 0.0, 0.0], [1.0, nan, 0.0, 0.0], [1.0, inf, 0.0, 0.0], [-inf; 4], [1.0, 2.0, -inf, 0.0]];
        let logits = Tensor::from_slice(&rows.concat()).view([5, 4]);
        for sampling in all_ways() {
            let drawn = Vec::<i64>::try_from(next_tokens(&logits, &sampling, &[0.5; 5]).unwrap().tokens).unwrap();
            assert_eq!(
                drawn.iter().map(|t| *t == NOT_FINITE).collect::<Vec<_>>(),
                [false, true, true, true, false],
                "{sampling:?}"
            );
        }
    }

    /// Whatever filters leave, and with kernels and without, the log-prob is that at the temperature.
    #[test]
    fn log_probs_are_those_of_the_whole_softmax() {
        let logits = [0.3f32, 2.0, -1.0, 0.0];
        for sampling in all_ways().into_iter().filter(|sampling| sampling.temperature > 0.0) {
            for plain in [false, true] {
                motrain_kernels::leave_out(plain);
                let next = next_tokens(&Tensor::from_slice(&logits).unsqueeze(0), &sampling, &[0.4]).unwrap();
                let odds = logits.map(|x| (f64::from(x) / sampling.temperature).exp());
                let token = next.tokens.int64_value(&[0]) as usize;
                let expected = (odds[token] / odds.iter().sum::<f64>()).ln();
                assert!((next.log_probs.double_value(&[0]) - expected).abs() < 1e-6, "{sampling:?} {plain}");
            }
        }
        motrain_kernels::leave_out(false);
    }

    /// A part of a sort keeps the tokens that a whole one keeps, whether they are few or nearly all.
    #[test]
    fn top_p_of_many_tokens_is_its_definition() {
        let vocab = 3000;
        for spread in [8.0, 1.0, 0.01] {
            let logits: Vec<f32> = (0..vocab).map(|i| ((i * 7919 % vocab) as f32 / 300.0).sin() * spread).collect();
            for top_p in [0.3, 0.9, 0.999] {
                let mut order: Vec<usize> = (0..vocab).collect();
                order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
                let weights: Vec<f64> = order.iter().map(|&i| f64::from(logits[i]).exp()).collect();
                let total: f64 = weights.iter().sum();
                let (mut kept, mut sum) = (0, 0.0);
                while sum < top_p * total {
                    sum += weights[kept];
                    kept += 1;
                }
                let sampling = GenerationConfig { top_p, ..GenerationConfig::default() };
                for u in [0.0f32, 0.31, 0.77, 0.99] {
                    let row = Tensor::from_slice(&logits).unsqueeze(0);
                    let drawn = next_tokens(&row, &sampling, &[u]).unwrap().tokens.int64_value(&[0]) as usize;
                    let place = order.iter().position(|&i| i == drawn).unwrap();
                    let before: f64 = weights[..place].iter().sum();
                    let within = f64::from(u) * sum / total;
                    // Rounding of sums in f32 may move a draw by a little.
                    assert!(place < kept + 2, "{spread} {top_p} {u}: {place} of {kept}");
                    let range = before / total - 2e-3..=(before + weights[place]) / total + 2e-3;
                    assert!(range.contains(&within), "{spread} {top_p} {u}: {within} in {range:?}");
                }
            }
        }
    }

    #[test]
    fn a_tiny_temperature_draws_the_likeliest() {
        let logits = Tensor::from_slice(&[40.0f32, 50.0, -60.0, 49.0]).unsqueeze(0);
        for temperature in [1e-3, 1e-20, 1e-30, 1e-38, 1e-45, 1e-300, f64::MIN_POSITIVE] {
            let drawn =
                next_tokens(&logits, &GenerationConfig { temperature, ..GenerationConfig::default() }, &[0.9]).unwrap();
            assert_eq!(drawn.tokens.int64_value(&[0]), 1, "{temperature:e}");
            assert_eq!(drawn.log_probs.double_value(&[0]), 0.0, "{temperature:e}");
        }
    }

    #[test]
    fn no_draw_falls_behind_the_tokens_that_are_kept() {
        let almost_one = 1.0 - f32::EPSILON / 2.0;
        let logits = Tensor::from_slice(&[0.7f32, 0.3, 0.0, 0.0]).log().unsqueeze(0);
        for sampling in all_ways() {
            let drawn = next_tokens(&logits, &sampling, &[almost_one]).unwrap().tokens.int64_value(&[0]);
            assert!((0..2).contains(&drawn), "{sampling:?} draws {drawn}");
        }
        let least = GenerationConfig { top_p: 1e-300, ..GenerationConfig::default() };
        assert_eq!(draw(&least, 0.5), 0);
        let many = GenerationConfig { top_k: usize::MAX, ..GenerationConfig::default() };
        assert_eq!(draw(&many, 0.0), 0);
    }
}
