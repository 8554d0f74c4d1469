//! Rewards-in-Context (Yang et al. 2024): rows for fine-tuning whose prompts name the scores that the answers got. The offline stage
//! answers plain prompts, keeps all, and fits the scores' statistics. An online round asks for high scores, keeps the answers of which
//! some score is among the best, and mixes in good rows of earlier stages.

use super::rows::{load_prompts, plain, samples};
use super::{Makes, Ref, Work, rewards};
use crate::decode::rollout;
use crate::memory::{Drawing, Footprint, Known, longest_prompt};
use crate::model::write_json;
use crate::names;
use crate::plan::{GenerationConfig, ModelRef, StageId};
use crate::session::{Cx, Session, obey};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::conditioner::rewards_in_context::{Statistics, goals, with_scores};
use motrain_core::data::{DataSpec, Row, json_lines};
use motrain_core::metrics::stats::quantile;
use motrain_core::options::{Checked, Options};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tch::no_grad;

/// Rewards-in-Context: answers of a policy, under the scores that they got. Without `goals`, the offline stage: answers to plain prompts, of
/// which all are kept, and the statistics of their scores. With `goals`, an online round: answers to prompts that ask for high
/// scores, of which the good ones are kept, beside good ones of earlier rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RicData {
    pub policy: ModelRef,
    pub prompts: DataSpec,
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

impl Work for RicData {
    const KIND: &'static str = "ric_data";
    const REVISION: u32 = 1;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let goals = self.goals.iter_mut().map(|id| Ref::Stage(Makes::Statistics, id));
        let mix = self.mix.iter_mut().map(|id| Ref::Stage(Makes::ScoredSamples, id));
        let own = [Ref::Model(&mut self.policy), Ref::Stage(Makes::Rewards, &mut self.rewards)];
        own.into_iter().chain(goals).chain(mix).chain([Ref::Data(&mut self.prompts)]).collect()
    }

    fn makes(&self) -> &'static [Makes] {
        match self.goals {
            None => &[Makes::Samples, Makes::ScoredSamples, Makes::Statistics],
            Some(_) => &[Makes::Samples, Makes::ScoredSamples],
        }
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let (machine, policy) = (known.machine, known.model(&self.policy)?);
        let scorers = rewards::scorers(known, &self.rewards)?;
        let longest = longest_prompt(&self.prompts, &policy, self.generate.max_new_tokens, &plain)?.longest;
        let drawing = Drawing { prompts: CHUNK as f64, longest, completions: 1.0, sampling: &self.generate };
        let mut out = Footprint { rows: Some((longest, self.generate.max_new_tokens as f64)), ..Footprint::default() };
        out.sampling(&policy, &scorers, &drawing, machine);
        out.uncounted = scorers.uncounted;
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    /// The statistics themselves.
    fn value(&self, session: &Session, id: &str) -> Result<Value> {
        Ok(json!(statistics(session, id)?))
    }
}

/// Prompts whose completions are drawn at once.
const CHUNK: usize = 64;

/// An answer with its scores (scaled, one per objective). As a line of the samples file it also has `prompt`, x with the scores in it.
#[derive(Clone, Serialize, Deserialize)]
struct Answer {
    plain: Prompt,
    completion: String,
    finished: bool,
    scores: Vec<f64>,
}

fn run(stage: Cx, options: &RicData) -> Result<()> {
    let session = stage.session;
    let goals = options.goals.as_deref().map(|id| statistics(session, id)).transpose()?;
    let drawn = draw(stage, options, goals.as_ref())?;
    if drawn.is_empty() {
        return Err(Error::invalid("ric_data: no answer has all its scores; see the warnings of the rewards above"));
    }
    let (statistics, kept) = match goals {
        None => {
            let columns: Vec<Vec<f64>> =
                (0..drawn[0].scores.len()).map(|k| drawn.iter().map(|a| a.scores[k]).collect()).collect();
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
    let mut lines = String::new();
    for answer in &kept {
        let mut line = json!(answer);
        line["prompt"] = json!(with_scores(&answer.plain, &statistics.normalise(&answer.scores))?);
        lines += &format!("{line}\n");
    }
    tracing::info!("{}: kept {} answers", stage.id, kept.len());
    let path = stage.folder().join(names::SAMPLES);
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}

/// Answers with all their scores, to plain prompts or to prompts that ask for high scores.
fn draw(stage: Cx, options: &RicData, ask: Option<&Statistics>) -> Result<Vec<Answer>> {
    let session = stage.session;
    let set = rewards::load(session, &options.rewards)?;
    let objectives = set.objectives().len();
    let (policy, text) = stage.load(&options.policy)?;
    // All scores are written with one decimal, so that any will show the length.
    let seen = |prompt: &Prompt| match ask {
        Some(statistics) => Ok(with_scores(prompt, &statistics.low)?),
        None => plain(prompt),
    };
    let rows =
        load_prompts(&options.prompts, &text, options.generate.max_new_tokens, policy.config.shape.context, &seen)?;
    set.check_rows(&options.prompts, &rows)?;
    let net = no_grad(|| policy.net(session.dtype))?;
    let wanted: Vec<&Row> = rows.iter().flat_map(|r| std::iter::repeat_n(r, options.completions)).collect();
    let bar = stage.progress(wanted.len());
    let mut out = Vec::new();
    let (mut tokens, clock) = (0, Instant::now());
    for (c, chunk) in wanted.chunks(CHUNK).enumerate() {
        let index = |i: usize| (c * CHUNK + i) as u64;
        let prompt = |(i, row): (usize, &&Row)| {
            let Some(statistics) = ask else { return text.encode_prompt(&row.prompt) };
            let mut rng = stage.rng("goals", index(i));
            let uniform: Vec<f64> = (0..objectives).map(|_| rng.random()).collect();
            text.encode_prompt(&with_scores(&row.prompt, &goals(statistics, &uniform))?)
        };
        let prompts = chunk.iter().enumerate().map(prompt).collect::<Result<Vec<_>>>()?;
        let drawn = rollout(&net, &text, &prompts, 1, |i, _| stage.seed("sample", index(i)), &options.generate)?;
        tokens += drawn.tokens();
        let scores = set.score(chunk, &drawn)?.objectives;
        for ((row, completion), scores) in chunk.iter().zip(drawn).zip(scores) {
            let Some(scores) = scores else { continue };
            let (plain, finished) = (row.prompt.clone(), completion.finished);
            out.push(Answer { plain, completion: completion.text, finished, scores });
        }
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    bar.finish();
    let speed = json!({ "new_tokens": tokens, "seconds": clock.elapsed().as_secs_f64() });
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join(names::SPEED), &speed)?;
    Ok(out)
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
    if session.plan.stage(id).is_none_or(|s| s.work.downcast_ref::<RicData>().is_none()) {
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
