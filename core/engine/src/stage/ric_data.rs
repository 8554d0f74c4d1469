//! Rows for fine-tuning whose prompts name the scores that the answers got (Rewards-in-Context, Yang et al. 2024; CPO, SteerLM). The offline stage
//! answers plain prompts, keeps all, and fits the scores' statistics. An online round asks for high scores, keeps the answers of which
//! some score is among the best, and mixes in good rows of earlier stages.

use super::rows::{plain, samples};
use super::scored::{Answer, Asking, Source};
use super::{Makes, Ref, Work, rewards};
use crate::files::write_json;
use crate::memory::{Footprint, Known};
use crate::names;
use crate::others::stage_refs;
use crate::session::{Cx, Session};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::conditioner::Conditioner;
use motrain_core::conditioner::rewards_in_context::{self, Statistics, goals};
use motrain_core::data::{DataOptions, json_lines};
use motrain_core::metrics::stats::quantile;
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, GenerationConfig, ModelRef, StageId};
use motrain_core::registry::{Kind, Registry};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Answers of a policy, under the scores that they got: Rewards-in-Context, or what a `conditioner` writes of them (CPO, SteerLM). Without
/// `goals`, the offline stage: answers to plain prompts, of which all are kept, and the statistics of their scores. With `goals`, an online
/// round: answers to prompts that ask for high scores, of which the good ones are kept, beside good ones of earlier rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RicData {
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    /// Completions a prompt.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
    /// An online round: the id of the offline stage, whose statistics say what high is.
    #[serde(default)]
    pub goals: Option<StageId>,
    /// Ids of `ric_data` stages whose rows are kept too, filtered like the new ones.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub mix: Vec<StageId>,
    /// In an online round an answer is kept if any of its scores reaches this quantile of that score.
    #[serde(default = "seven_tenths")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub quantile: f64,
    /// What writes scores into prompts, such as "levels" or "attributes"; without it they stand there as Rewards-in-Context has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioner: Option<Component>,
    #[serde(default)]
    pub generate: GenerationConfig,
}

fn one() -> usize {
    1
}

fn seven_tenths() -> f64 {
    0.7
}

impl Options for RicData {
    fn check(&self) -> Checked {
        if self.goals.is_none() && !self.mix.is_empty() {
            return Err(("mix", "goes with an online round; give \"goals\" too".into()));
        }
        Ok(())
    }
}

impl RicData {
    fn source(&self) -> Source<'_> {
        let Self { policy, prompts, rewards, completions, generate, .. } = self;
        Source { policy, prompts, rewards, completions: *completions, generate }
    }
}

impl Work for RicData {
    const KIND: &'static str = "ric_data";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Samples, Makes::ScoredSamples, Makes::Statistics];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let goals = self.goals.iter_mut().map(|id| Ref::Stage(Makes::Statistics, id));
        let mix = self.mix.iter_mut().map(|id| Ref::Stage(Makes::ScoredSamples, id));
        let own = [Ref::Model(&mut self.policy), Ref::Stage(Makes::Rewards, &mut self.rewards)];
        let conditioner = self.conditioner.iter_mut().map(|c| Ref::Component(Kind::Conditioner, c));
        own.into_iter().chain(goals).chain(mix).chain(conditioner).chain([Ref::Data(&mut self.prompts)]).collect()
    }

    fn makes(&self) -> &'static [Makes] {
        match self.goals {
            None => Self::MAKES,
            Some(_) => &[Makes::Samples, Makes::ScoredSamples],
        }
    }

    fn made_of_rewards(&self) -> Option<&'static str> {
        Some("answers scored by the reward models")
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        self.source().footprint(known, &plain)
    }

    fn check_with(&self, registry: &Registry) -> Checked {
        let given = self.conditioner.as_ref().filter(|c| stage_refs(&c.options).is_empty());
        let Some(Component { name, options }) = given else { return Ok(()) };
        let Ok(built) = registry.conditioners.build(name, options) else { return Ok(()) };
        match built.with_scores(&[], &[], &Prompt::user("")) {
            Ok(None) => {
                let what = format!(
                    "is \"{name}\", which writes weights and no scores; use \"levels\" or \"attributes\", or leave it out"
                );
                Err(("conditioner", what))
            }
            _ => Ok(()),
        }
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    /// The statistics themselves.
    fn value(&self, session: &Session, id: &str) -> Result<Value> {
        Ok(json!(statistics(session, id)?))
    }
}

fn run(stage: Cx, options: &RicData) -> Result<()> {
    let session = stage.session;
    let objectives = rewards::of(session, &options.rewards)?.objectives();
    let goals = options.goals.as_deref().map(|id| statistics(session, id)).transpose()?;
    let drawn = match &goals {
        None => options.source().answers(stage, &Asking { draw: &|_, prompt| plain(prompt), longest: &plain })?,
        Some(goals) => ask(stage, options, &Said::new(session, options, objectives.clone(), goals)?, goals)?,
    };
    let (statistics, kept) = match goals {
        None => {
            let columns: Vec<Vec<f64>> =
                (0..objectives.len()).map(|k| drawn.iter().map(|a| a.scores[k]).collect()).collect();
            (Statistics::of(&columns), drawn)
        }
        Some(statistics) => {
            let mut kept = best(drawn, options.quantile);
            for id in &options.mix {
                kept.extend(best(read(session, id)?, options.quantile));
            }
            (statistics, kept)
        }
    };
    write_json(&stage.folder().join(names::STATISTICS), &json!(statistics))?;
    let said = Said::new(session, options, objectives, &statistics)?;
    let mut lines = String::new();
    for answer in &kept {
        let mut line = json!(answer);
        line["prompt"] = json!(said.prompt(&answer.scores, &answer.plain)?);
        lines += &format!("{line}\n");
    }
    tracing::info!("{}: kept {} answers", stage.id, kept.len());
    let path = stage.folder().join(names::SAMPLES);
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}

/// Answers to prompts that ask for high scores.
fn ask(stage: Cx, options: &RicData, said: &Said, statistics: &Statistics) -> Result<Vec<Answer>> {
    let draw = |index: u64, prompt: &Prompt| {
        let mut rng = stage.rng("goals", index);
        let uniform: Vec<f64> = statistics.mean.iter().map(|_| rng.random()).collect();
        said.prompt(&statistics.scores(&goals(statistics, &uniform)), prompt)
    };
    // All scores are written equally long, but for a sign.
    let longest = |prompt: &Prompt| said.prompt(&statistics.scores(&statistics.low), prompt);
    options.source().answers(stage, &Asking { draw: &draw, longest: &longest })
}

/// How scores are written into prompts: as Rewards-in-Context does, or by the conditioner that was asked for.
struct Said {
    by: Box<dyn Conditioner>,
    objectives: Vec<String>,
}

impl Said {
    fn new(session: &Session, options: &RicData, objectives: Vec<String>, statistics: &Statistics) -> Result<Self> {
        let by = match &options.conditioner {
            Some(component) => session.conditioner(component)?,
            None => rewards_in_context::of(statistics.clone()),
        };
        Ok(Self { by, objectives })
    }

    fn prompt(&self, scores: &[f64], prompt: &Prompt) -> Result<Prompt> {
        let said = self.by.with_scores(&self.objectives, scores, prompt)?;
        said.ok_or_else(|| Error::invalid("the conditioner writes weights, not scores"))
    }
}

/// The answers of which some score reaches that score's quantile.
fn best(answers: Vec<Answer>, q: f64) -> Vec<Answer> {
    let objectives = answers.first().map_or(0, |a| a.scores.len());
    let column = |k: usize| answers.iter().map(|a| a.scores[k]).collect::<Vec<f64>>();
    let bars: Vec<f64> = (0..objectives).map(|k| quantile(&column(k), q)).collect();
    answers.into_iter().filter(|a| a.scores.iter().zip(&bars).any(|(s, bar)| s >= bar)).collect()
}

fn read(session: &Session, id: &str) -> Result<Vec<Answer>> {
    let path = samples(session, id).paths.remove(0);
    let path = Path::new(&path);
    let answer = |(line, row)| {
        serde_json::from_value(row).map_err(|e| Error::file(path, format!("line {line} is no ric_data row: {e}")))
    };
    json_lines(path)?.into_iter().map(answer).collect()
}

/// The statistics that an offline stage fitted.
pub fn statistics(session: &Session, id: &str) -> Result<Statistics> {
    if session.stages.options(id).is_none_or(|options| !options.is::<RicData>()) {
        return Err(Error::invalid(format!("\"{id}\" is no ric_data stage, so it has no statistics of scores")));
    }
    let path = session.stage_folder(id).join(names::STATISTICS);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::file(&path, format!("cannot be read ({e}); stage \"{id}\" has not been run")))?;
    serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_any_good_score() {
        let answer = |a: f64, b: f64| Answer {
            plain: Prompt::user("x"),
            completion: String::new(),
            finished: true,
            scores: vec![a, b],
        };
        let all = vec![answer(1.0, 0.0), answer(0.0, 1.0), answer(0.5, 0.5), answer(0.1, 0.2)];
        let kept: Vec<Vec<f64>> = best(all, 0.7).into_iter().map(|a| a.scores).collect();
        assert_eq!(kept, [[1.0, 0.0], [0.0, 1.0]]);
    }
}
