//! A steerable policy over a grid of weights on held-out prompts: mean rewards, intervals and metrics, and samples to read.

use super::asked::Asked;
use super::front::Front;
use super::rows::{Told, load_prompts, plain, widest};
use super::{Makes, Ref, Work, rewards};
use crate::decode::rollout;
use crate::files::write_json;
use crate::memory::{Drawing, Footprint, Known, Part, longest_prompt};
use crate::names;
use crate::obey;
use crate::publish::Judged;
use crate::session::Cx;
use crate::stage::{Stage, objectives};
use crate::steer::prompted::Prompted;
use crate::steer::{By, Steer, Steering};
use crate::{Error, Result};
use motrain_core::data::DataOptions;
use motrain_core::metrics::stats::quantile;
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, GenerationConfig, ModelRef, StageId};
use motrain_core::registry::Kind;
use motrain_core::weights::{grid_of, steps_of};
use motrain_core::{Prompt, Weights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Instant;

/// A policy over a grid of weights on prompts that it never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluate {
    /// The method's name in tables and figures.
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    /// What is steered.
    #[serde(flatten)]
    pub by: By,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    pub conditioner: Component,
    /// Distance of neighbouring weights; 0.1 gives the paper's 11 points for two objectives.
    #[serde(default = "tenth")]
    #[schemars(range(min = 1e-5, max = 1))]
    pub step: f64,
    /// Explicit weights instead of a grid.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100_000))]
    pub weights: Option<Vec<Weights>>,
    #[serde(default)]
    pub generate: GenerationConfig,
    /// Answers to each prompt at each weight. Of several, a prompt's scores are their means.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

pub(super) fn tenth() -> f64 {
    0.1
}

impl Options for Evaluate {
    fn check(&self) -> Checked {
        steps_of(self.step).map_err(|what| ("step", what))?;
        self.by.0.check()?;
        let own = self.by.0.own_weights();
        if self.weights.is_some() && own.is_some() {
            return Err(("weights", format!("do not go with \"{}\", which have their own", self.by.0.option())));
        }
        for (option, given) in [("weights", self.weights.clone()), (self.by.0.option(), own)] {
            let given = given.unwrap_or_default();
            if let Some(i) = (1..given.len()).find(|&i| given[..i].contains(&given[i])) {
                return Err((option, format!("have the weights {:?} twice", given[i].values())));
            }
        }
        Ok(())
    }
}

impl Evaluate {
    /// The weights; or the option that gives none for so many objectives, and what is wrong with it.
    pub fn grid(&self, objectives: usize) -> std::result::Result<Vec<Weights>, (&'static str, String)> {
        let by = self.by.meant().map_err(|e| (self.by.0.option(), e.to_string()))?;
        by.0.check_objectives(objectives)?;
        let Some(list) = self.weights.clone().or(by.0.own_weights()) else {
            return grid_of(objectives, self.step).map_err(|what| ("step", what));
        };
        match list.iter().find(|w| w.len() != objectives) {
            Some(odd) => {
                let what = format!("{:?} has {} weights for {objectives} objectives", odd.values(), odd.len());
                Err(("weights", what))
            }
            None => Ok(list),
        }
    }

    /// Whether these weights are among its grid, as far as the stages before it say how many there are.
    pub fn is_done_at(&self, at: &Weights, earlier: &[Stage]) -> bool {
        let Some(names) = objectives(earlier, &self.rewards) else { return true };
        self.grid(names.len()).is_ok_and(|grid| grid.iter().any(|w| w.is_near(at)))
    }
}

impl Work for Evaluate {
    const KIND: &'static str = "evaluate";
    const REVISION: u32 = 2;
    const MAKES: &'static [Makes] = &[Makes::Front];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let models = self.by.0.models().into_iter();
        let own = [
            Ref::Stage(Makes::Rewards, &mut self.rewards),
            Ref::Component(Kind::Conditioner, &mut self.conditioner),
            Ref::Data(&mut self.prompts),
        ];
        models.map(|(_, model)| Ref::Model(model)).chain(own).collect()
    }

    fn common_base(&self) -> Option<&ModelRef> {
        self.by.0.common_base()
    }

    fn adapters_stay(&self) -> bool {
        self.by.0.adapters_stay()
    }

    fn takes_steered(&self) -> bool {
        self.by.0.name() == Prompted::NAME
    }

    fn same_tokens(&self) -> Vec<&ModelRef> {
        self.by.0.same_tokens()
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let machine = known.machine;
        let scorers = rewards::scorers(known, &self.rewards)?;
        let mut by = self.by.0.boxed();
        let models = by.models().into_iter().map(|(_, model)| known.model(model)).collect::<Result<Vec<_>>>()?;
        let Some(policy) = models.first() else { return Ok(Footprint::default()) };
        let mut out = Footprint::default();
        let steering = Told::of(known, &self.rewards, &self.conditioner, None);
        let steering = steering.map_err(|what| out.uncounted.push(what)).ok();
        let seen = |prompt: &Prompt| steering.as_ref().map_or_else(|| plain(prompt), |told| told.prompt(prompt));
        let prompts = longest_prompt(&self.prompts, policy, self.generate.max_new_tokens, &seen)?;
        let drawing = Drawing {
            prompts: prompts.count,
            longest: prompts.longest + policy.room,
            completions: self.completions as f64,
            sampling: &self.generate,
        };
        let (held, steered) = (scorers.held(machine), self.by.0.taken(&models, machine));
        out.moments("loading reward models", scorers.opening(machine));
        out.moments("loading the policy", steered.loading.into_iter().map(|parts| parts.and(&held)));
        let drawn = drawing.parts(policy, machine).times(self.by.0.networks(), [Part::Cache, Part::Logits]);
        out.moment("drawing", steered.held.clone().and(&held).and(&drawn));
        out.moment("scoring", steered.held.and(&held).and(&scorers.scoring(&drawing, machine)));
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let Some(names) = objectives(earlier, &self.rewards) else { return Ok(()) };
        self.grid(names.len()).map(|_| ())
    }

    fn judged(&self) -> Option<Judged<'_>> {
        let Self { by, rewards, conditioner, generate, .. } = self;
        Some(Judged { by, rewards, conditioner, sampling: generate })
    }
}

/// Times that serving is measured, after once to warm up.
const MEASURED: usize = 5;

fn run(stage: Cx, options: &Evaluate) -> Result<()> {
    let session = stage.session;
    let set = rewards::load(session, &options.rewards)?;
    let objectives = set.objectives();
    let steering = Steering { objectives, conditioner: session.conditioner(&options.conditioner)? };
    let objectives = &steering.objectives;
    let grid = options.grid(objectives.len()).map_err(|(option, what)| Error::invalid(format!("{option} {what}")))?;
    let by = options.by.meant_in(|model| Some(session.model_folder(model)))?;
    let (policy, tokenizer) = by.0.load(&session.loader())?;
    let wide = widest(&steering, grid.clone(), &tokenizer)?;
    let seen = |prompt: &Prompt| steering.prompt(&wide, prompt);
    let rows = load_prompts(&options.prompts, &tokenizer, options.generate.max_new_tokens, policy.context(), &seen)?;
    set.check_rows(&options.prompts, &rows)?;
    let asked = Asked { policy: policy.as_ref(), tokenizer: &tokenizer, steering: &steering, rows: &rows, set: &set };
    let bar = stage.progress(grid.len());
    let mut front = Front::default();
    let (mut tokens, clock) = (0, Instant::now());
    for (at, weights) in grid.iter().enumerate() {
        let seed = |i: usize, n: usize| session.seed("evaluation", ((n * grid.len() + at) * rows.len() + i) as u64);
        let (answers, scores) = asked.answer(weights, (options.completions, &options.generate), seed)?;
        tokens += answers.tokens();
        front.add(weights, &rows, &answers, scores);
        bar.set_position(at as u64 + 1);
        bar.set_message(format!("weights {:?}", weights.values()));
        obey()?;
    }
    bar.finish();
    let seconds = clock.elapsed().as_secs_f64();
    let serving = serving(stage, &asked, &grid, &options.generate)?;
    front.save(stage, &options.name, objectives)?;
    let speed = json!({ "new_tokens": tokens, "seconds": seconds, "serving": serving });
    write_json(&stage.folder().join(names::SPEED), &speed)
}

/// How fast queries are answered of which each brings its own weights: together where the same parameters answer, one by one where they are
/// others. The median time of several, since whatever else the machine does falls on some of them.
fn serving(stage: Cx, asked: &Asked, grid: &[Weights], sampling: &GenerationConfig) -> Result<Value> {
    let prompt = |(i, w): (usize, &Weights)| asked.encode(w, &asked.rows[i % asked.rows.len()]);
    let prompts = grid.iter().enumerate().map(prompt).collect::<Result<Vec<_>>>()?;
    let routes = grid.iter().map(|weights| asked.policy.route(weights)).collect::<Result<Vec<_>>>()?;
    let answer_all = || -> Result<(usize, usize)> {
        let (mut tokens, mut parameters, mut first) = (0, 0, 0);
        for together in routes.chunk_by(|a, b| asked.policy.together(a, b)) {
            let decoder = asked.policy.decoder(together)?;
            let some = &prompts[first..first + together.len()];
            let seed = |i: usize, _| stage.seed("serving", (first + i) as u64);
            tokens += rollout(decoder.as_ref(), asked.tokenizer, some, 1, seed, sampling)?.tokens();
            parameters = decoder.parameter_count();
            first += together.len();
        }
        Ok((tokens, parameters))
    };
    let (tokens, parameters) = answer_all()?;
    let mut measured = Vec::new();
    for _ in 0..MEASURED {
        let clock = Instant::now();
        answer_all()?;
        measured.push(clock.elapsed().as_secs_f64());
        obey()?;
    }
    Ok(json!({
        "queries": grid.len(),
        "new_tokens": tokens,
        "seconds": quantile(&measured, 0.5),
        "measured": measured,
        "parameters": parameters,
    }))
}
