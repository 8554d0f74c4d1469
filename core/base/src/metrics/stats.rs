//! Means, quantiles, rank correlation, intervals of a mean and the bootstrap: statrs's, and what statrs has not or has otherwise.

use crate::rng::rng;
use rand::Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::statistics::{Data, OrderStatistics, RankTieBreaker, Statistics};

/// NaN for no data, as the standard deviation.
pub fn mean(x: &[f64]) -> f64 {
    x.mean()
}

/// Population standard deviation.
pub fn std(x: &[f64]) -> f64 {
    x.population_std_dev()
}

/// Linear interpolation between order statistics (NumPy's default; statrs has R's type 8); NaN for no data.
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

/// Ranks from 1, ties sharing their mean rank; all NaN where one value is, since statrs cannot order that.
fn ranks(x: &[f64]) -> Vec<f64> {
    if x.iter().any(|v| v.is_nan()) {
        return vec![f64::NAN; x.len()];
    }
    Data::new(x.to_vec()).ranks(RankTieBreaker::Average)
}

/// Pearson's r of two equally long lists; 0 where one of them does not vary.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let spread = std(x) * std(y);
    if spread == 0.0 { 0.0 } else { (x.population_covariance(y) / spread).clamp(-1.0, 1.0) }
}

/// Spearman's ρ; 0 where one side does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

/// Kendall's τ-b: pairs that both sides put in the same order, less those that they do not, over all pairs, each side without its ties; 0
/// where one side does not vary.
pub fn kendall(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let (mut agreed, mut ordered_x, mut ordered_y) = (0.0, 0.0, 0.0);
    for i in 0..x.len() {
        for j in 0..i {
            let (a, b) = (sign(x[i] - x[j]), sign(y[i] - y[j]));
            agreed += a * b;
            ordered_x += a * a;
            ordered_y += b * b;
        }
    }
    if ordered_x * ordered_y == 0.0 { 0.0 } else { agreed / f64::sqrt(ordered_x * ordered_y) }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The covariances of several equally long lists, unbiased (NumPy's default); 0 of fewer than two values.
pub fn covariances(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let few = columns.iter().any(|c| c.len() < 2);
    let between = |a: &Vec<f64>, b: &Vec<f64>| if few { 0.0 } else { a.covariance(b) };
    columns.iter().map(|a| columns.iter().map(|b| between(a, b)).collect()).collect()
}

/// The determinant of covariances, by elimination: a column whose variance the ones before it explain leaves 0.
pub fn determinant(mut covariances: Vec<Vec<f64>>) -> f64 {
    let mut product = 1.0;
    for k in 0..covariances.len() {
        let pivot = covariances[k].clone();
        if pivot[k] <= 0.0 {
            return 0.0;
        }
        product *= pivot[k];
        for row in &mut covariances[k + 1..] {
            let share = row[k] / pivot[k];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= share * p);
        }
    }
    product
}

/// The 95 % interval of a mean by Student's t; `None` for fewer than two values.
pub fn mean_interval(x: &[f64]) -> Option<[f64; 2]> {
    let freedom = x.len().checked_sub(1)? as f64;
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975);
    let half = t * x.std_dev() / (x.len() as f64).sqrt();
    Some([mean(x) - half, mean(x) + half])
}

/// The two-sided p-value of the mean being 0 (Student's t); `None` of fewer than two numbers, and of equal ones other than 0, which say nothing of
/// how far they spread.
pub fn t_test(x: &[f64]) -> Option<f64> {
    let freedom = x.len().checked_sub(1)? as f64;
    let error = x.std_dev() / (x.len() as f64).sqrt();
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
    match mean(x).abs() {
        0.0 => Some(1.0),
        _ if error == 0.0 => None,
        off => Some(2.0 * distribution.sf(off / error)),
    }
}

/// Which of these p-values are below a level once all are held against each other (Holm 1979): the chance that any is there by chance stays below
/// the level.
pub fn holm(p_values: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut out = vec![false; p_values.len()];
    for (rank, &i) in order.iter().enumerate() {
        out[i] = p_values[i] <= level / (p_values.len() - rank) as f64;
        if !out[i] {
            break;
        }
    }
    out
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

/// Added to deviations before they divide.
const EPSILON: f64 = 1e-4;

/// Count, mean and sum of squared deviations of all that was added (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes up a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    /// A value less the mean, over the population standard deviation and a little: what is rounding stays small.
    pub fn standard(&self, value: f64) -> f64 {
        (value - self.mean) / ((self.squares / self.count.max(1.0)).sqrt() + EPSILON)
    }
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
        assert!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]).is_nan());
        assert_eq!((kendall(&[1.0, 2.0], &[5.0, 5.0]), kendall(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0])), (0.0, -1.0));
        assert!(kendall(&[1.0, f64::NAN], &[1.0, 2.0]).is_nan());
        let copies = vec![vec![1.0, 2.0, 4.0]; 2];
        assert_eq!((determinant(covariances(&copies)), covariances(&[vec![1.0]])), (0.0, vec![vec![0.0]]));
        assert!(mean(&[]).is_nan() && std(&[]).is_nan() && std(&[3.0]) == 0.0);
    }

    /// Computed apart: correlations and τ-b by their definitions, covariances and determinants by NumPy, quantiles of t by integrating its density.
    #[test]
    fn goldens() {
        let (x, y) = ([0.3, 1.7, -0.4, 2.2, 1.7], [10.0, 7.0, 11.0, 7.0, 9.0]);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        near(pearson(&x, &y), -0.916_650_949);
        near(spearman(&x, &y), -0.921_052_632);
        near(kendall(&x, &y), -0.888_888_889);
        let (p, q) = ([12.0, 2.0, 1.0, 12.0, 2.0], [1.0, 4.0, 7.0, 1.0, 0.0]);
        near(kendall(&p, &q), -0.471_404_521);
        let columns = [vec![0.3, 1.7, -0.4, 2.2], vec![1.0, 0.0, 2.5, 0.5], vec![0.1, 0.9, 0.4, 0.2]];
        near(covariances(&columns)[0][1], -1.133_333_333);
        near(determinant(covariances(&columns[..2])), 0.415);
        near(determinant(covariances(&columns)), 0.045_633_333);
        let interval = |n: usize| mean_interval(&(0..n).map(|i| (i * i) as f64).collect::<Vec<_>>());
        assert_eq!((interval(0), interval(1)), (None, None));
        for (n, [low, high]) in
            [(2, [-5.853_102, 6.853_102]), (3, [-3.504_478, 6.837_812]), (13, [20.700_570, 79.299_430])]
        {
            let [a, b] = interval(n).unwrap();
            near(a, low);
            near(b, high);
        }
    }

    /// The first by integrating the density beyond t = 3.286335 with 3 degrees of freedom; 0.005 · 4 and 0.01 · 3 are below 0.05, 0.03 · 2 is not.
    #[test]
    fn p_values_alone_and_among_others() {
        let alone = t_test(&[0.2, 0.5, 0.1, 0.4]).unwrap();
        assert!((alone - 0.046_205).abs() < 1e-6, "{alone}");
        assert_eq!((t_test(&[]), t_test(&[1.0]), t_test(&[2.0; 3]), t_test(&[0.0; 3])), (None, None, None, Some(1.0)));
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005], 0.05), [true, false, false, true]);
        assert_eq!(holm(&[0.04], 0.05), [true]);
        assert_eq!(holm(&[0.026, 0.026], 0.05), [false, false]);
    }

    /// Of 95 % intervals of means of 40 normal numbers, about 94 in a hundred hold the true mean.
    #[test]
    fn intervals_cover_the_mean_as_often_as_they_say() {
        let (sets, n) = (400, 40);
        let resamples = resamples(n, 400, 1);
        let (mut by_bootstrap, mut by_t) = (0, 0);
        for set in 0..sets {
            let mut rng = rng(7, "coverage", set);
            let x: Vec<f64> = (0..n).map(|_| rng.sample::<f64, _>(rand_distr::StandardNormal)).collect();
            let holds = |[low, high]: [f64; 2]| u32::from(low < 0.0 && 0.0 < high);
            by_bootstrap += holds(bootstrap(&resamples, |r| mean(&r.iter().map(|&i| x[i]).collect::<Vec<_>>())));
            by_t += holds(mean_interval(&x).unwrap());
        }
        for (name, covered) in [("bootstrap", by_bootstrap), ("t", by_t)] {
            let share = f64::from(covered) / sets as f64;
            assert!((0.91..0.98).contains(&share), "{name}: {share}");
        }
    }
}
