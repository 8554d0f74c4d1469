//! The metrics of a front from numbers alone: `cargo run -p motrain-core --example hypervolume`.

use motrain_core::metrics::front::{hypervolume, non_dominated, sparsity, steering_regret};

fn main() {
    // Mean rewards of two objectives at the weights of the first, on a scale where 0 is what nobody wants.
    let weights = [0.0, 0.5, 0.6, 1.0].map(|w| vec![w, 1.0 - w]);
    let points = [[0.2, 0.9], [0.6, 0.7], [0.5, 0.6], [0.9, 0.1]].map(|p| p.to_vec());
    println!("hypervolume above (0, 0): {:.3}", hypervolume(&points, &[0.0, 0.0]));
    println!("not dominated:            {:?}", non_dominated(&points));
    println!("sparsity:                 {:.3}", sparsity(&points));
    println!("steering regret:          {:.3}", steering_regret(&weights, &points));
}
