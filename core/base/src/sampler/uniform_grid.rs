//! A uniformly drawn point of a grid (each grid point equally likely, vertices included).

use super::WeightSampler;
use super::grid::Grid;
use crate::options::parse;
use crate::registry::{Builtin, schema};
use crate::rng::Rng;
use crate::{Result, Weights};

pub const BUILTIN: Builtin<dyn WeightSampler> = Builtin {
    name: "uniform_grid",
    summary: "a point of a regular grid, each equally likely",
    schema: schema::<Grid>(),
    build: |owner, options| Ok(Box::new(UniformGrid(parse(owner, options)?))),
};

struct UniformGrid(Grid);

impl WeightSampler for UniformGrid {
    fn sample(&self, objectives: usize, _index: u64, rng: &mut Rng) -> Result<Weights> {
        let points = self.0.points(objectives)?;
        Ok(points[rand::Rng::random_range(rng, 0..points.len())].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::rng::rng;
    use serde_json::json;

    #[test]
    fn grid_samplers_cover_the_grid() {
        let registry = Registry::builtin();
        for (objectives, step) in [(2, 0.1), (3, 0.5)] {
            let uniform = registry.samplers.build("uniform_grid", &json!({ "step": step })).unwrap();
            let points = Weights::grid(objectives, (1.0 / step) as u32);
            let mut counts = vec![0usize; points.len()];
            for i in 0..1000 * points.len() as u64 {
                let w = uniform.sample(objectives, i, &mut rng(1, "t", i)).unwrap();
                counts[points.iter().position(|p| *p == w).unwrap()] += 1;
            }
            assert!(counts.iter().all(|c| (870..1130).contains(c)), "{counts:?}");
        }
        let grid = registry.samplers.build("grid", &json!({})).unwrap();
        assert_eq!(grid.sample(2, 14, &mut rng(0, "t", 0)).unwrap().values(), [0.3, 0.7]);
        let fixed = registry.samplers.build("fixed", &json!({"weights": [0.2, 0.8]})).unwrap();
        assert!(fixed.sample(3, 0, &mut rng(0, "t", 0)).is_err());
    }
}
