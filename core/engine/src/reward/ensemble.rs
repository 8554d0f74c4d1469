//! Second opinions on an objective, and how far they disagree. A policy that has found what pleases one reward model alone leaves the others behind:
//! their disagreement on its own answers grows (Coste et al. 2023).

use crate::train::log::Metrics;
use motrain_core::metrics::stats::{mean, spearman, std};

/// What all that score an objective say of a batch's completions.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    /// The objective's place among the weights.
    pub objective: usize,
    pub name: String,
    /// Scaled scores by completion, the objective's own first; `None` where one of them left the completion out.
    pub scores: Vec<Option<Vec<f64>>>,
}

impl Ensemble {
    /// What the metrics call the mean disagreement.
    pub fn metric(objective: &str) -> String {
        format!("drift/{objective}/disagreement")
    }

    /// The standard deviation of the members' scores, by completion.
    pub fn disagreement(&self) -> Vec<Option<f64>> {
        self.scores.iter().map(|members| members.as_deref().map(std)).collect()
    }

    /// The mean disagreement, and without regard to scales the mean rank correlation of the objective's own scores with each second opinion's.
    pub fn report(&self, metrics: &mut Metrics) {
        let all: Vec<&Vec<f64>> = self.scores.iter().flatten().collect();
        let Some(first) = all.first() else { return };
        let column = |member: usize| all.iter().map(|members| members[member]).collect::<Vec<f64>>();
        let own = column(0);
        let agreement: Vec<f64> = (1..first.len()).map(|member| spearman(&own, &column(member))).collect();
        metrics.insert(Self::metric(&self.name), self.mean_disagreement());
        metrics.insert(format!("drift/{}/agreement", self.name), mean(&agreement));
    }

    /// NaN where no completion has all its scores.
    pub fn mean_disagreement(&self) -> f64 {
        mean(&self.disagreement().into_iter().flatten().collect::<Vec<_>>())
    }
}

/// Uncertainty-weighted optimisation's score: the members' mean less so many times their variance.
pub fn doubted(members: &[f64], penalty: f64) -> f64 {
    mean(members) - penalty * std(members).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::Scores;

    fn ensemble() -> Ensemble {
        let scores = vec![Some(vec![1.0, 0.0, 0.5]), None, Some(vec![0.5, 0.5, 0.5]), Some(vec![0.0, 0.2, 0.7])];
        Ensemble { objective: 1, name: "B".into(), scores }
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
    }

    /// Deviations √(1/6), 0 and √(0.26/3). Ranks 3 2 1 of the own scores; of the others 1 3 2 and 1.5 1.5 3.
    #[test]
    fn disagreement_by_hand() {
        let mut metrics = Metrics::new();
        ensemble().report(&mut metrics);
        near(metrics["drift/B/disagreement"], ((1.0f64 / 6.0).sqrt() + (0.26f64 / 3.0).sqrt()) / 3.0);
        near(metrics["drift/B/agreement"], (-0.5 - 0.75f64.sqrt()) / 2.0);
        assert_eq!(ensemble().disagreement()[1..3], [None, Some(0.0)]);
        let mut none = Metrics::new();
        Ensemble { scores: vec![None], ..ensemble() }.report(&mut none);
        assert!(none.is_empty(), "{none:?}");
    }

    /// Means 0.5, 0.5 and 0.3; variances 1/6, 0 and 0.26/3.
    #[test]
    fn the_penalty_by_hand() {
        let own = |score: f64| Some(vec![9.0, score]);
        let objectives = vec![own(1.0), own(0.4), own(0.5), None];
        let mut doubted = Scores { objectives, ensembles: vec![ensemble()], ..Scores::default() };
        doubted.doubt(0.0);
        assert_eq!(doubted.objectives[0], own(1.0), "no penalty leaves the objective's own score");
        doubted.doubt(0.6);
        near(doubted.objectives[0].as_ref().unwrap()[1], 0.4);
        near(doubted.objectives[2].as_ref().unwrap()[1], 0.5);
        assert_eq!(
            (&doubted.objectives[1], &doubted.objectives[3]),
            (&None, &None),
            "what is not known whole is no score"
        );
        assert_eq!(doubted.objectives[0].as_ref().unwrap()[0], 9.0, "an objective without second opinions stays");
    }
}
