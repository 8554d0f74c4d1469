//! Offline preference training: pairs of answers that are there already move the policy by a pairwise loss against the frozen initial policy
//! (DPO, Rafailov et al. 2023). With rewards each pair meets weights: they enter the prompt, the label, or the loss (MODPO, Zhou et al. 2023).

use super::labelled::Counts;
use super::rows::{Told, batch_rows, drawn_weights, plain, prompt_limit, samples, say_left_out, usual_weights, widest};
use super::{Makes, Ref, Work, rewards, short};
use crate::decode::{Completion, Completions};
use crate::memory::{Drawing, Footprint, Known, Trainee, longest_pair};
use crate::plan::{self, Component, GenerationConfig, Lora, LoraChoice, ModelRef, Optimizer, StageId, Training, lora};
use crate::reward::RewardSet;
use crate::session::{Cx, obey};
use crate::steer::{self, Steering};
use crate::tokenizer::Tokenizer;
use crate::train::log::Metrics;
use crate::train::{Drawn, LogProbs, PairStep, TokenPair, Trainer};
use crate::{Error, Result};
use motrain_core::data::{self, DataSpec, Pair, Row};
use motrain_core::label::{Label, LabelRule};
use motrain_core::options::{Checked, Options};
use motrain_core::registry::{self, Registry};
use motrain_core::sampler::WeightSampler;
use motrain_core::{Prompt, Weights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use tch::no_grad;

/// Offline preference training on pairs of answers, of a file or of a `preference_data` stage: DPO, IPO, SLiC, or MODPO with the margins that
/// `rewards` give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    pub policy: ModelRef,
    /// Rows of preference pairs.
    #[serde(default)]
    pub data: Option<DataSpec>,
    /// The id of a `preference_data` stage.
    #[serde(default)]
    pub pairs: Option<StageId>,
    /// The id of a `rewards` stage, which scores both answers of each pair: what margins and labels are made of.
    #[serde(default)]
    pub rewards: Option<StageId>,
    /// With `rewards`: the weights of each pair.
    #[serde(default)]
    pub sampler: Option<Component>,
    /// With `rewards`: how weights enter prompts; without it they do not.
    #[serde(default)]
    pub conditioner: Option<Component>,
    /// With `rewards`: which answer is preferred at a pair's weights; without it the data say.
    #[serde(default)]
    pub label: Option<Component>,
    pub loss: Component,
    /// Whether the reference sees x' (the default) or the plain prompt.
    #[serde(default = "yes")]
    pub reference_sees_weights: bool,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Train a low-rank adapter instead of all parameters.
    #[serde(default, deserialize_with = "lora", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LoraChoice")]
    pub lora: Option<Lora>,
}

fn yes() -> bool {
    true
}

impl Options for Preference {
    fn check(&self) -> Checked {
        self.lora.iter().try_for_each(|lora| lora.check(self.rewards.is_some()))?;
        if self.data.is_some() == self.pairs.is_some() {
            return Err(("data", "or \"pairs\" must be given, and only one of them".into()));
        }
        if self.sampler.is_some() != self.rewards.is_some() {
            return Err(("sampler", "and \"rewards\" go together: weights are of objectives".into()));
        }
        let alone = [("conditioner", &self.conditioner), ("label", &self.label)];
        match alone.into_iter().find(|(_, given)| given.is_some() && self.rewards.is_none()) {
            Some((option, _)) => Err((option, "needs \"rewards\" and \"sampler\", which give it weights".into())),
            None => Ok(()),
        }
    }
}

impl Work for Preference {
    const KIND: &'static str = "preference";
    const REVISION: u32 = 1;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let components = [
            (registry::Kind::Sampler, &mut self.sampler),
            (registry::Kind::Conditioner, &mut self.conditioner),
            (registry::Kind::Label, &mut self.label),
        ];
        let components = components.into_iter().filter_map(|(kind, c)| Some(Ref::Component(kind, c.as_mut()?)));
        std::iter::once(Ref::Model(&mut self.policy))
            .chain(self.data.iter_mut().map(Ref::Data))
            .chain(self.pairs.iter_mut().map(|id| Ref::Stage(Makes::Pairs, id)))
            .chain(self.rewards.iter_mut().map(|id| Ref::Stage(Makes::Rewards, id)))
            .chain(components)
            .chain(std::iter::once(Ref::Component(registry::Kind::Loss, &mut self.loss)))
            .collect()
    }

    fn check_with(&self, registry: &Registry) -> Checked {
        // One that cannot be built is refused where components are.
        let loss = registry.losses.build(&self.loss.name, &self.loss.options);
        if !loss.is_ok_and(|loss| loss.is_of_one_objective()) {
            return Ok(());
        }
        let name = &self.loss.name;
        match (&self.rewards, &self.label) {
            (None, _) => Err((
                "rewards",
                format!("are needed by the loss \"{name}\": the other objectives' scores; give them, and a sampler"),
            )),
            (_, Some(_)) => {
                let what = format!(
                    "is not for the loss \"{name}\", whose pairs one objective has labelled: a rule would count the others twice; leave it out"
                );
                Err(("label", what))
            }
            _ => Ok(()),
        }
    }

    fn trains(&self) -> Option<(&ModelRef, Option<&Lora>)> {
        Some((&self.policy, self.lora.as_ref()))
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::Policy]
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let machine = known.machine;
        let scorers = self.rewards.as_ref().map(|id| rewards::scorers(known, id)).transpose()?.unwrap_or_default();
        let read = known.model(&self.policy)?;
        let count =
            self.rewards.as_ref().and_then(|id| plan::objectives(&known.plan.stages, id)).map_or(1, |o| o.len());
        let policy = Trainee::new(read.clone(), self.lora.as_ref(), &self.optimizer, &self.train, machine)?;
        let policy = policy.with_gains_of(count);
        let mut out = Footprint { makes: Some(policy.makes()), ..Footprint::default() };
        let told = self.rewards.as_ref().zip(self.conditioner.as_ref());
        let told = told.map(|(id, conditioner)| Told::of(known, id, conditioner, self.sampler.as_ref())).transpose();
        let told = told.map_err(|what| out.uncounted.push(what)).ok().flatten();
        let seen = |prompt: &Prompt| told.as_ref().map_or_else(|| plain(prompt), |told| told.prompt(prompt));
        let (prompt, answer) = match (&self.data, &self.pairs) {
            (Some(data), _) => longest_pair(data, &read, &seen)?,
            (None, made) => made.as_ref().and_then(|id| known.rows(id)).unwrap_or_default(),
        };
        let sampling = GenerationConfig { max_new_tokens: answer as usize, ..GenerationConfig::default() };
        let prompts = self.train.batch_size as f64;
        let scored = Drawing { prompts, longest: prompt, completions: 2.0, sampling: &sampling };
        let held = scorers.held(machine);
        let beside = held.clone().and(&policy.reference());
        out.moments("loading reward models", scorers.opening(machine));
        out.moments("loading the policy", policy.opening(&read).into_iter().map(|parts| parts.and(&held)));
        out.moment("scoring", policy.held().and(&beside).and(&scorers.scoring(&scored, machine)));
        out.moment("update", policy.update(prompt + 2.0 * answer, 2.0 * answer).and(&beside));
        out.moment("optimizer step", policy.stepping().and(&beside));
        out.moments("merging", policy.merging().map(|parts| parts.and(&beside)));
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// What gives pairs weights, and what comes of them.
struct Weighing {
    set: RewardSet,
    sampler: Box<dyn WeightSampler>,
    steering: Steering,
    rule: Option<Box<dyn LabelRule>>,
    /// Scaled scores of both answers, by pair: they do not depend on weights, so each pair is scored once.
    scores: HashMap<usize, Both>,
}

/// Scaled scores of a pair's answers, one per objective.
type Both = [Option<Vec<f64>>; 2];

/// A pair as the policy sees it in a step.
struct Slot {
    conditioned: Vec<u32>,
    plain: Vec<u32>,
    answers: [Vec<u32>; 2],
    label: f64,
    weights: Vec<f64>,
    margins: Vec<f64>,
}

fn run(stage: Cx, options: &Preference) -> Result<()> {
    let session = stage.session;
    let loss = session.registry.losses.build(&options.loss.name, &options.loss.options)?;
    let mut weighing = options.rewards.as_ref().map(|id| Weighing::build(stage, options, id)).transpose()?;
    let data = match (&options.data, &options.pairs) {
        (Some(data), _) => data.clone(),
        (None, made) => samples(session, made.as_deref().unwrap_or_default()),
    };
    let objectives = weighing.as_ref().map_or(0, |weighing| weighing.steering.objectives.len());
    let (policy, tokenizer) = stage.load_trained(&options.policy, options.lora.as_ref(), objectives, Ok)?;
    let pairs = fitting(&data, &tokenizer, policy.config.shape.context, weighing.as_ref(), session.plan.seed)?;
    if let Some(weighing) = &weighing {
        weighing.set.check_rows(&data, &pairs.iter().map(row).collect::<Vec<_>>())?;
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.margin != 0.0) {
        tracing::warn!(
            "{}: the column \"margin\" is not used here; reward_model stages learn from it",
            pair.place.of(&data)
        );
    }
    let log_probs = LogProbs {
        reference: no_grad(|| policy.reference(session.dtype))?,
        temperature: 1.0,
        reference_sees_weights: options.reference_sees_weights,
        train: options.train.clone(),
        pad: tokenizer.pad,
    };
    let total = options.train.total_steps(pairs.len());
    let mut t = Trainer::start(stage, policy, tokenizer, &options.optimizer, total, &options.train)?;
    t.run(|t| {
        let step = t.state.step;
        let batch = batch_rows(stage, pairs.len(), options.train.batch_size, step);
        let batch: Vec<(usize, &Pair)> = batch.into_iter().map(|i| (i, &pairs[i])).collect();
        let mut metrics = Metrics::new();
        let slots = match &mut weighing {
            Some(weighing) => weighing.slots(stage, &t.tokenizer, &batch, step, &mut metrics)?,
            None => batch.iter().map(|(_, pair)| Slot::plain(&t.tokenizer, pair)).collect::<Result<_>>()?,
        };
        let mut update = PairStep::new(&log_probs, loss.as_ref());
        let gained = t.model.blocks() > 0;
        metrics.extend(update.train(t, &mut slots.iter().map(|slot| slot.pair(gained)).collect::<Vec<_>>())?);
        if slots.is_empty() {
            tracing::warn!("step {}: every pair was a tie or without scores; nothing to learn from", step + 1);
        }
        let told = |name: &str| metrics.get(name).map_or("–".into(), |value| short(*value));
        let message = format!("loss {} accuracy {}", told("loss"), told("rewards/accuracies"));
        t.finish_step(&metrics, Metrics::new(), message)
    })?;
    t.finish()?;
    match &weighing {
        Some(weighing) => {
            let objectives = weighing.steering.objectives.clone();
            steer::save(stage, objectives, &conditioner(options), options.lora.as_ref())
        }
        None => Ok(()),
    }
}

/// By default weights do not enter prompts.
fn conditioner(options: &Preference) -> Component {
    options
        .conditioner
        .clone()
        .unwrap_or_else(|| Component { name: "none".into(), options: Value::Object(Default::default()) })
}

impl Weighing {
    fn build(stage: Cx, options: &Preference, rewards: &StageId) -> Result<Self> {
        let session = stage.session;
        let set = rewards::load(session, rewards)?;
        let Some(Component { name, options: own }) = &options.sampler else {
            return Err(Error::invalid("preference: \"rewards\" need a \"sampler\""));
        };
        let rule = options.label.as_ref().map(|c| session.registry.labels.build(&c.name, &c.options)).transpose()?;
        let steering =
            Steering { objectives: set.objectives(), conditioner: session.conditioner(&conditioner(options))? };
        let sampler = session.registry.samplers.build(name, own)?;
        Ok(Self { set, sampler, steering, rule, scores: HashMap::new() })
    }

    /// Pairs under sampled weights, scored and labelled. What teaches nothing is left out and counted.
    fn slots(
        &mut self,
        stage: Cx,
        tokenizer: &Tokenizer,
        batch: &[(usize, &Pair)],
        step: usize,
        metrics: &mut Metrics,
    ) -> Result<Vec<Slot>> {
        self.score(batch)?;
        let (mut slots, mut counts) = (Vec::new(), Counts::default());
        for (slot, (which, pair)) in batch.iter().enumerate() {
            let index = (step * batch.len() + slot) as u64;
            let objectives = self.steering.objectives.len();
            let weights = self.sampler.sample(objectives, index, &mut stage.session.rng("weights", index))?;
            let Some([Some(first), Some(second)]) = self.scores.get(which) else {
                counts.unscored += 1;
                continue;
            };
            let label = match &self.rule {
                Some(rule) => rule.label(&weights, first, second)?,
                None => Label::First(1.0),
            };
            let Label::First(label) = label else {
                counts.ties += 1;
                continue;
            };
            slots.push(Slot {
                label,
                margins: first.iter().zip(second).map(|(a, b)| a - b).collect(),
                weights: weights.values().to_vec(),
                ..Slot::of(tokenizer, pair, &self.steering.prompt(&weights, &pair.prompt)?)?
            });
        }
        counts.report(metrics);
        Ok(slots)
    }

    /// Scores those pairs that have not been scored.
    fn score(&mut self, batch: &[(usize, &Pair)]) -> Result<()> {
        let new: Vec<&(usize, &Pair)> = batch.iter().filter(|(which, _)| !self.scores.contains_key(which)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = new.iter().map(|(_, pair)| row(pair)).collect();
        let answers = new.iter().flat_map(|(_, pair)| {
            let texts = [&pair.chosen, &pair.rejected].into_iter().zip(pair.finished);
            texts.map(|(text, finished)| Completion { tokens: vec![], text: text.clone(), finished })
        });
        let answers = Completions::new(2, answers.collect());
        let scores = self.set.score(&rows.iter().collect::<Vec<_>>(), &answers)?.objectives;
        let both = scores.chunks(2).map(|both| [both[0].clone(), both[1].clone()]);
        self.scores.extend(new.iter().map(|(which, _)| *which).zip(both));
        Ok(())
    }
}

/// The pair as rewards see the row of a prompt.
fn row(pair: &Pair) -> Row {
    Row { prompt: pair.prompt.clone(), columns: pair.columns.clone(), place: pair.place }
}

impl Slot {
    fn of(tokenizer: &Tokenizer, pair: &Pair, conditioned: &Prompt) -> Result<Self> {
        let (prompt, chosen) = tokenizer.encode_answer(conditioned, &pair.chosen, pair.finished[0])?;
        let (_, rejected) = tokenizer.encode_answer(conditioned, &pair.rejected, pair.finished[1])?;
        let plain = tokenizer.encode_prompt(&pair.prompt)?;
        let answers = [chosen, rejected];
        Ok(Self { conditioned: prompt, plain, answers, label: 1.0, weights: vec![], margins: vec![] })
    }

    /// Without weights.
    fn plain(tokenizer: &Tokenizer, pair: &Pair) -> Result<Self> {
        Self::of(tokenizer, pair, &pair.prompt)
    }

    fn pair(&self, gained: bool) -> TokenPair<'_> {
        let gains = if gained { self.weights.as_slice() } else { &[] };
        let completions = self.answers.iter().map(Vec::as_slice).collect();
        TokenPair {
            drawn: Drawn { gains, conditioned: &self.conditioned, plain: &self.plain, completions },
            label: self.label,
            weights: &self.weights,
            margins: self.margins.clone(),
            other: None,
        }
    }
}

/// The pairs that the model's context holds at all weights that come, and whose answers are there.
fn fitting(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    context: i64,
    weighing: Option<&Weighing>,
    seed: u64,
) -> Result<Vec<Pair>> {
    let wide = weighing.map(|w| -> Result<Weights> {
        let objectives = w.steering.objectives.len();
        let mut tried = usual_weights(objectives);
        tried.extend(drawn_weights(w.sampler.as_ref(), objectives, seed)?);
        widest(&w.steering, tried, tokenizer)
    });
    let wide = wide.transpose()?;
    let (mut kept, mut long_prompts, mut long, mut empty) = (vec![], vec![], vec![], vec![]);
    for pair in data::pairs(spec)? {
        obey()?;
        let at = |e: Error| e.at(pair.place.of(spec));
        let seen = match weighing.zip(wide.as_ref()) {
            Some((weighing, wide)) => weighing.steering.prompt(wide, &pair.prompt).map_err(at)?,
            None => pair.prompt.clone(),
        };
        let Slot { conditioned, plain, answers, .. } = Slot::of(tokenizer, &pair, &seen).map_err(at)?;
        let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
        if spec.max_prompt_tokens.is_some_and(|max| plain.len() > max) {
            long_prompts.push(pair.place);
        } else if conditioned.len() + longest > context as usize {
            long.push(pair.place);
        } else if answers.iter().any(Vec::is_empty) {
            empty.push(pair.place);
        } else {
            kept.push(pair);
        }
    }
    let all = kept.len() + long.len() + empty.len();
    say_left_out(spec, all, &long_prompts, &prompt_limit(spec))?;
    say_left_out(spec, all - long.len(), &long, &format!("longer than the model's context of {context} tokens"))?;
    say_left_out(spec, kept.len(), &empty, "with an answer that has no tokens")?;
    Ok(kept)
}
