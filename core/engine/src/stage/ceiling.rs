//! What listed answers to each prompt reach at best: at every weight, the answer with the highest weighted score. Where the list holds all that
//! a task has (an embedded task's grammar enumerated), no policy comes beyond, so that a front can be read as a share of it.

use super::front::Front;
use super::rows::all_prompts;
use super::{Makes, Ref, Work, rewards};
use crate::decode::{Completion, Completions};
use crate::memory::{Drawing, Footprint, Known};
use crate::obey;
use crate::reward::Scores;
use crate::session::Cx;
use crate::stage::{Stage, objectives};
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::data::{DataOptions, Row};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{GenerationConfig, StageId};
use motrain_core::reward::Sample;
use motrain_core::weights::{grid_of, steps_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The best of listed answers to each prompt at a grid of weights: a front that no policy that answers with one of them comes beyond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// What tables and figures call it.
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    /// Prompts whose rows have a column `answers`, a list of texts.
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    /// Distance of neighbouring weights; 0.1 gives the paper's 11 points for two objectives.
    #[serde(default = "super::evaluate::tenth")]
    #[schemars(range(min = 1e-5, max = 1))]
    pub step: f64,
}

impl Options for Ceiling {
    fn check(&self) -> Checked {
        steps_of(self.step).map(|_| ()).map_err(|what| ("step", what))
    }
}

impl Work for Ceiling {
    const KIND: &'static str = "ceiling";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Front, Makes::Ceiling];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![Ref::Stage(Makes::Rewards, &mut self.rewards), Ref::Data(&mut self.prompts)]
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let scorers = rewards::scorers(known, &self.rewards)?;
        let mut out = Footprint::default();
        out.moments("loading reward models", scorers.opening(known.machine));
        // As if an answer were as long as reward models read.
        let sampling = GenerationConfig::default();
        let answers = Drawing { prompts: f64::INFINITY, longest: f64::INFINITY, completions: 1.0, sampling: &sampling };
        out.moment("scoring", scorers.held(known.machine).and(&scorers.scoring(&answers, known.machine)));
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let Some(names) = objectives(earlier, &self.rewards) else { return Ok(()) };
        grid_of(names.len(), self.step).map(|_| ()).map_err(|what| ("step", what))
    }

    fn run(&self, stage: Cx) -> Result<()> {
        let set = rewards::load(stage.session, &self.rewards)?;
        let objectives = set.objectives();
        let rows = all_prompts(&self.prompts)?;
        set.check_rows(&self.prompts, &rows)?;
        let bar = stage.progress(rows.len());
        let mut scored = Vec::new();
        for row in &rows {
            let answers = listed(row).map_err(|e| e.at(row.place.of(&self.prompts)))?;
            let sample = |completion| Sample { prompt: &row.prompt, completion, finished: true, row: &row.columns };
            let scores = set.score_samples(&answers.iter().copied().map(sample).collect::<Vec<_>>())?;
            scored.push((answers, scores));
            bar.inc(1);
            obey()?;
        }
        bar.finish();
        let mut front = Front::default();
        for weights in grid_of(objectives.len(), self.step).map_err(|what| Error::invalid(format!("step {what}")))? {
            let best: Vec<usize> = scored.iter().map(|(_, scores)| highest(&scores.objectives, &weights)).collect();
            let chosen = scored.iter().zip(best);
            let texts = chosen.clone().map(|((answers, _), i)| Completion::written(answers[i], true));
            let answers = Completions::new(1, texts.collect());
            let scores = Scores::picked(chosen.map(|((_, scores), i)| (scores, i)));
            front.add(&weights, &rows, &answers, scores);
        }
        front.save(stage, &self.name, &objectives)
    }
}

/// The answers that a row lists.
fn listed(row: &Row) -> Result<Vec<&str>> {
    let list = row.columns["answers"].as_array().filter(|list| !list.is_empty());
    let texts = list.and_then(|list| list.iter().map(Value::as_str).collect());
    texts.ok_or_else(|| Error::invalid("column \"answers\" must be a list of texts, of at least one"))
}

/// The answer with the highest weighted score; the first of several. Answers without scores are none.
fn highest(scores: &[Option<Vec<f64>>], weights: &Weights) -> usize {
    let value = |i: usize| scores[i].as_ref().map_or(f64::NEG_INFINITY, |s| weights.dot(s));
    (1..scores.len()).fold(0, |best, i| if value(i) > value(best) { i } else { best })
}
