//! Answers of a policy with all their scores: what stages draw that write scores or ratings down.

use super::rewards;
use super::rows::load_prompts;
use crate::decode::rollout;
use crate::files::write_json;
use crate::memory::{Drawing, Footprint, Known, longest_prompt};
use crate::names;
use crate::obey;
use crate::session::Cx;
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::data::{DataOptions, Row};
use motrain_core::plan::{GenerationConfig, ModelRef};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Instant;
use tch::no_grad;

/// What is answered, by whom, and what scores the answers.
pub struct Source<'a> {
    pub policy: &'a ModelRef,
    pub prompts: &'a DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: &'a str,
    /// Answers to each prompt.
    pub completions: usize,
    pub generate: &'a GenerationConfig,
}

/// An answer with its scores (scaled, one per objective).
#[derive(Clone, Serialize, Deserialize)]
pub struct Answer {
    pub plain: Prompt,
    pub completion: String,
    pub finished: bool,
    pub scores: Vec<f64>,
}

/// How plain prompts are asked: each draw by its index, and the longest of all.
pub struct Asking<'a> {
    pub draw: &'a dyn Fn(u64, &Prompt) -> Result<Prompt>,
    pub longest: &'a dyn Fn(&Prompt) -> Result<Prompt>,
}

/// What sampling took, in the stage's folder, which is made.
pub fn save_speed(stage: Cx, new_tokens: usize, since: Instant) -> Result<()> {
    let speed = json!({ "new_tokens": new_tokens, "seconds": since.elapsed().as_secs_f64() });
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join(names::SPEED), &speed)
}

/// Prompts whose completions are drawn at once.
const CHUNK: usize = 64;

impl Source<'_> {
    /// Draws answers and keeps those with all their scores; an error where there are none. The stage's folder is made.
    pub fn answers(&self, stage: Cx, asking: &Asking) -> Result<Vec<Answer>> {
        let set = rewards::load(stage.session, self.rewards)?;
        let (policy, text) = stage.load(self.policy)?;
        let context = policy.config.shape.context;
        let rows = load_prompts(self.prompts, &text, self.generate.max_new_tokens, context, asking.longest)?;
        set.check_rows(self.prompts, &rows)?;
        let net = no_grad(|| policy.net(stage.session.dtype))?;
        let wanted: Vec<&Row> = rows.iter().flat_map(|r| std::iter::repeat_n(r, self.completions)).collect();
        let bar = stage.progress(wanted.len());
        let mut out = Vec::new();
        let (mut tokens, clock) = (0, Instant::now());
        for (c, chunk) in wanted.chunks(CHUNK).enumerate() {
            let index = |i: usize| (c * CHUNK + i) as u64;
            let asked = |(i, row): (usize, &&Row)| text.encode_prompt(&(asking.draw)(index(i), &row.prompt)?);
            let prompts = chunk.iter().enumerate().map(asked).collect::<Result<Vec<_>>>()?;
            let drawn = rollout(&net, &text, &prompts, 1, |i, _| stage.seed("sample", index(i)), self.generate)?;
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
        if out.is_empty() {
            return Err(Error::invalid(format!(
                "{}: no answer has all its scores: a reward left out each; one that asks a server says above why",
                stage.id
            )));
        }
        save_speed(stage, tokens, clock)?;
        Ok(out)
    }

    pub fn footprint(&self, known: &Known, longest: &dyn Fn(&Prompt) -> Result<Prompt>) -> Result<Footprint> {
        let (machine, policy) = (known.machine, known.model(self.policy)?);
        let scorers = rewards::scorers(known, self.rewards)?;
        let longest = longest_prompt(self.prompts, &policy, self.generate.max_new_tokens, longest)?.longest;
        let drawing = Drawing { prompts: CHUNK as f64, longest, completions: 1.0, sampling: self.generate };
        let mut out = Footprint { rows: Some((longest, self.generate.max_new_tokens as f64)), ..Footprint::default() };
        out.sampling(&policy, &scorers, &drawing, machine);
        out.uncounted = scorers.uncounted;
        Ok(out)
    }
}
