//! AI feedback (Bai et al. 2022; Guo et al. 2024 online): judges compare the two answers of a prompt, one judge along each objective, asked in both
//! orders. Their verdicts stand where scores stand otherwise.

use super::experience::Batch;
use crate::Result;
use crate::reward::penalise_cut;
use crate::train::log::Metrics;
use motrain_core::judge::{Asked, Duel, Judge, Verdict, in_both_orders};
use motrain_core::metrics::stats::mean;
use motrain_core::plan::Component;
use motrain_core::registry::Registry;

/// A judge per objective.
pub struct Judges(Vec<Asking>);

struct Asking {
    objective: String,
    judge: Box<dyn Judge>,
    /// `judge "chat" of "Helpfulness"`, for errors.
    who: String,
}

impl Judges {
    pub fn build(judges: &[Component], objectives: &[String], registry: &Registry) -> Result<Self> {
        let build = |(objective, Component { name, options }): (&String, &Component)| {
            let who = format!("judge \"{name}\" of \"{objective}\"");
            Ok(Asking { objective: objective.clone(), judge: registry.judges.build(name, options)?, who })
        };
        Ok(Self(objectives.iter().zip(judges).map(build).collect::<Result<_>>()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of each prompt's two answers, a number for each objective: 1 for the one that the judge names in both orders, 0 for the other, ½ each where
    /// it names none, less `penalty` for one that was cut, which judges are not told; nothing where a judge left the pair out. Answers that are the
    /// same are not asked about.
    pub fn compare(&self, batch: &Batch, penalty: f64, metrics: &mut Metrics) -> Result<Vec<[Option<Vec<f64>>; 2]>> {
        let mut scores = vec![[Some(vec![]), Some(vec![])]; batch.rows.len()];
        let differ = |slot: &usize| batch.completions.of(*slot)[0].tokens != batch.completions.of(*slot)[1].tokens;
        let asked: Vec<usize> = (0..batch.rows.len()).filter(differ).collect();
        let duel = |&slot: &usize| {
            let answers = batch.completions.of(slot);
            Duel { prompt: &batch.rows[slot].prompt, first: &answers[0].text, second: &answers[1].text }
        };
        let duels: Vec<Duel> = asked.iter().map(duel).collect();
        for Asking { objective, judge, who } in &self.0 {
            let verdicts = in_both_orders(who, judge.as_ref(), &duels)?;
            let agreed: Vec<f64> = verdicts.iter().flatten().map(|a| f64::from(u8::from(a.consistent))).collect();
            if !agreed.is_empty() {
                metrics.insert(format!("judges/{objective}/consistent"), mean(&agreed));
            }
            for (&slot, verdict) in asked.iter().zip(&verdicts) {
                match verdict {
                    Some(verdict) => add(&mut scores[slot], verdict),
                    None => scores[slot] = [None, None],
                }
            }
        }
        for (slot, scores) in scores.iter_mut().enumerate() {
            penalise_cut(scores, batch.completions.of(slot), penalty);
        }
        Ok(scores)
    }
}

fn add(scores: &mut [Option<Vec<f64>>; 2], Asked { verdict, .. }: &Asked) {
    let points = match verdict {
        Verdict::First => [1.0, 0.0],
        Verdict::Second => [0.0, 1.0],
        Verdict::Tie => [0.5, 0.5],
    };
    scores.iter_mut().zip(points).for_each(|(scores, point)| scores.iter_mut().for_each(|all| all.push(point)));
}
