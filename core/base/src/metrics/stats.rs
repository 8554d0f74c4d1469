//! Means, quantiles, rank correlation and the bootstrap.

use crate::rng::rng;
use rand::Rng;

pub fn mean(x: &[f64]) -> f64 {
    if x.is_empty() { f64::NAN } else { x.iter().sum::<f64>() / x.len() as f64 }
}

/// Population standard deviation.
pub fn std(x: &[f64]) -> f64 {
    let m = mean(x);
    (x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / x.len().max(1) as f64).sqrt()
}

/// Linear interpolation between order statistics (NumPy's default); NaN for no data.
pub fn quantile(x: &[f64], q: f64) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Ranks from 1, ties sharing their mean rank.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut out = vec![0.0; x.len()];
    let mut i = 0;
    while i < order.len() {
        let mut j = i;
        while j + 1 < order.len() && x[order[j + 1]] == x[order[i]] {
            j += 1;
        }
        for &k in &order[i..=j] {
            out[k] = (i + j) as f64 / 2.0 + 1.0;
        }
        i = j + 1;
    }
    out
}

pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let cov: f64 = x.iter().zip(y).map(|(a, b)| (a - mx) * (b - my)).sum();
    let (vx, vy): (f64, f64) = (x.iter().map(|a| (a - mx).powi(2)).sum(), y.iter().map(|b| (b - my).powi(2)).sum());
    if vx == 0.0 || vy == 0.0 { 0.0 } else { cov / (vx * vy).sqrt() }
}

/// Spearman's ρ; 0 where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

/// Resamples of `0..n` with replacement; the same for the same seed, so that methods can be compared on paired resamples.
pub fn resamples(n: usize, count: usize, seed: u64) -> Vec<Vec<usize>> {
    (0..count as u64)
        .map(|i| {
            let mut rng = rng(seed, "bootstrap", i);
            (0..n).map(|_| rng.random_range(0..n)).collect()
        })
        .collect()
}

/// The 95 % percentile interval of a statistic over resamples of `0..n`.
pub fn bootstrap(resamples: &[Vec<usize>], statistic: impl Fn(&[usize]) -> f64) -> [f64; 2] {
    let values: Vec<f64> = resamples.iter().map(|r| statistic(r)).collect();
    [quantile(&values, 0.025), quantile(&values, 0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_ranks() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0, 4.0], 0.5), 2.5);
        assert_eq!(ranks(&[10.0, 20.0, 10.0]), [1.5, 3.0, 1.5]);
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 4.0, 9.0, 16.0]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 2.0], &[5.0, 5.0]), 0.0);
    }

    #[test]
    fn bootstrap_covers_the_mean() {
        let x: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let [low, high] =
            bootstrap(&resamples(x.len(), 500, 1), |r| mean(&r.iter().map(|&i| x[i]).collect::<Vec<_>>()));
        assert!(low < 4.5 && 4.5 < high && high - low < 1.0, "{low} {high}");
    }
}
