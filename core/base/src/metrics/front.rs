//! Metrics of a set of points in objective space, all objectives maximised.

use super::stats::{mean, std};

/// Whether `a` dominates `b`: nowhere worse, somewhere better. Exact, without tolerance.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(x, y)| x >= y) && a.iter().zip(b).any(|(x, y)| x > y)
}

/// Indices of the points that no other point dominates.
pub fn non_dominated(points: &[Vec<f64>]) -> Vec<usize> {
    (0..points.len()).filter(|&i| !points.iter().any(|p| dominates(p, &points[i]))).collect()
}

/// The volume that the points dominate above a reference point, by slicing along the last objective.
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    hypervolume_of_other_half(points, points, reference)
}

/// The same of points that are measured twice: `chosen` say which point is where on the front, `measured` how far it reaches. Noise raises the
/// volume of points that say both, since those that it carried outwards are the ones that count; two measurements with noise of their own keep
/// it out. A point must be above the reference point in `chosen`.
pub fn hypervolume_of_other_half(chosen: &[Vec<f64>], measured: &[Vec<f64>], reference: &[f64]) -> f64 {
    let both = chosen.iter().zip(measured).map(|(c, m)| (c.as_slice(), m.as_slice()));
    volume(both.filter(|(c, _)| c.iter().zip(reference).all(|(x, r)| x > r)).collect(), reference)
}

fn volume(mut points: Vec<(&[f64], &[f64])>, reference: &[f64]) -> f64 {
    let Some(last) = reference.len().checked_sub(1) else {
        return 0.0;
    };
    if last == 0 {
        let farthest = points.iter().max_by(|(a, _), (b, _)| a[0].total_cmp(&b[0]));
        return farthest.map_or(0.0, |(_, measured)| measured[0] - reference[0]);
    }
    points.sort_by(|(a, _), (b, _)| b[last].total_cmp(&a[last]));
    let mut total = 0.0;
    for i in 0..points.len() {
        let below = points.get(i + 1).map_or(reference[last], |(_, measured)| measured[last]);
        let height = points[i].1[last] - below;
        if height != 0.0 {
            let slice = points[..=i].iter().map(|(c, m)| (&c[..last], &m[..last])).collect();
            total += height * volume(slice, &reference[..last]);
        }
    }
    total
}

/// PGMORL's sparsity of the non-dominated points: the mean over neighbours of the squared gaps, summed over objectives. Lower is
/// denser; 0 for a single point.
pub fn sparsity(points: &[Vec<f64>]) -> f64 {
    let front: Vec<&Vec<f64>> = non_dominated(points).into_iter().map(|i| &points[i]).collect();
    if front.len() < 2 {
        return 0.0;
    }
    let mut total = 0.0;
    for k in 0..front[0].len() {
        let mut column: Vec<f64> = front.iter().map(|p| p[k]).collect();
        column.sort_by(f64::total_cmp);
        total += column.windows(2).map(|w| (w[1] - w[0]).powi(2)).sum::<f64>();
    }
    total / (front.len() - 1) as f64
}

/// Schott's spacing of the non-dominated points: the deviation of L1 distances to the nearest neighbour.
pub fn spacing(points: &[Vec<f64>]) -> f64 {
    let front: Vec<&Vec<f64>> = non_dominated(points).into_iter().map(|i| &points[i]).collect();
    if front.len() < 2 {
        return 0.0;
    }
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).sum::<f64>();
    let nearest: Vec<f64> = (0..front.len())
        .map(|i| {
            (0..front.len()).filter(|&j| j != i).map(|j| distance(front[i], front[j])).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let mean = nearest.iter().sum::<f64>() / nearest.len() as f64;
    (nearest.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (nearest.len() - 1) as f64).sqrt()
}

/// The coefficient of variation of the gaps between neighbouring weights' points: 0 when evenly spaced, larger the less evenly.
pub fn unevenness(weights: &[Vec<f64>], points: &[Vec<f64>]) -> f64 {
    let gaps: Vec<f64> = neighbours(weights).into_iter().map(|(i, j)| distance(&points[i], &points[j])).collect();
    let mean = mean(&gaps);
    if gaps.is_empty() || mean == 0.0 { 0.0 } else { std(&gaps) / mean }
}

/// Pairs of weights with no third one nearer to both than they are to each other (their relative neighbourhood graph): consecutive
/// weights of two objectives, and neighbours on the grid of more.
pub(crate) fn neighbours(weights: &[Vec<f64>]) -> Vec<(usize, usize)> {
    let between = |i: usize, j: usize, apart: f64| {
        weights.iter().any(|w| distance(w, &weights[i]).max(distance(w, &weights[j])) < apart - 1e-9)
    };
    let pairs = (0..weights.len()).flat_map(|i| (i + 1..weights.len()).map(move |j| (i, j)));
    pairs.filter(|&(i, j)| !between(i, j, distance(&weights[i], &weights[j]))).collect()
}

pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

fn dot(w: &[f64], p: &[f64]) -> f64 {
    w.iter().zip(p).map(|(a, b)| a * b).sum()
}

/// Mean inner product of each weight with its own point (PARM, Panacea).
pub fn mean_inner_product(weights: &[Vec<f64>], points: &[Vec<f64>]) -> f64 {
    weights.iter().zip(points).map(|(w, p)| dot(w, p)).sum::<f64>() / weights.len().max(1) as f64
}

/// How much better each weight would do with its best point among all: 0 if and only if every weight gets its own best.
pub fn steering_regret(weights: &[Vec<f64>], points: &[Vec<f64>]) -> f64 {
    let best = |w: &Vec<f64>| points.iter().map(|p| dot(w, p)).fold(f64::NEG_INFINITY, f64::max);
    let expected = weights.iter().map(best).sum::<f64>() / weights.len().max(1) as f64;
    expected - mean_inner_product(weights, points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;

    fn golden() -> Vec<Vec<f64>> {
        vec![vec![0.2, 0.9], vec![0.5, 0.7], vec![0.8, 0.3], vec![0.4, 0.6]]
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-7, "{a} is not {b}");
    }

    #[test]
    fn golden_values() {
        let f = golden();
        assert_eq!(non_dominated(&f), [0, 1, 2]);
        near(hypervolume(&f, &[0.0, 0.0]), 0.48);
        near(hypervolume(&f, &[0.1, 0.1]), 0.32);
        near(sparsity(&f), 0.19);
        near(spacing(&f), 0.115_470_1);
        let w = vec![vec![0.0, 1.0], vec![0.5, 0.5], vec![1.0, 0.0]];
        near(mean_inner_product(&w, &f[..3]), 0.766_666_7);
        near(steering_regret(&w, &f[..3]), 0.0);
        near(steering_regret(&w, &[f[2].clone(), f[1].clone(), f[0].clone()]), 0.4);
    }

    #[test]
    fn hypervolume_in_three_dimensions_and_monotone() {
        let cube = vec![vec![1.0, 1.0, 1.0]];
        near(hypervolume(&cube, &[0.0; 3]), 1.0);
        let two = vec![vec![1.0, 0.5, 1.0], vec![0.5, 1.0, 1.0]];
        near(hypervolume(&two, &[0.0; 3]), 0.75);
        let mut f = golden();
        let before = hypervolume(&f, &[0.0, 0.0]);
        f.push(vec![0.7, 0.6]);
        assert!(hypervolume(&f, &[0.0, 0.0]) > before);
        near(hypervolume(&[vec![-1.0, 2.0]], &[0.0, 0.0]), 0.0);
    }

    #[test]
    fn unevenness_of_even_and_uneven() {
        let w = [vec![0.0, 1.0], vec![0.5, 0.5], vec![1.0, 0.0]];
        near(unevenness(&w, &w), 0.0);
        let uneven = [vec![0.0, 1.0], vec![0.1, 0.9], vec![1.0, 0.0]];
        near(unevenness(&w, &uneven), 0.8);
        // The order in which weights were asked does not matter.
        let shuffled = |x: &[Vec<f64>]| [x[2].clone(), x[0].clone(), x[1].clone()];
        near(unevenness(&shuffled(&w), &shuffled(&uneven)), 0.8);
    }

    #[test]
    fn a_front_that_is_even_over_the_grid_of_three_objectives_is_even() {
        let grid: Vec<Vec<f64>> = Weights::grid(3, 4).iter().map(|w| w.values().to_vec()).collect();
        assert_eq!(neighbours(&grid).len(), 30, "10 triangles of side 1/4 that point up have three edges each");
        near(unevenness(&grid, &grid), 0.0);
    }
}
