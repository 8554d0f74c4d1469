//! Offline preference training: pairs of answers that are there already move the policy by a pairwise loss against the frozen initial policy
//! (DPO, Rafailov et al. 2023). With rewards each pair meets weights: they enter the prompt, the label, or the loss (MODPO, Zhou et al. 2023).

mod weighing;

use super::rows::{Told, batch_rows, plain, samples};
use super::{Makes, Ref, Trains, Work, rewards, short};
use crate::Result;
use crate::memory::{Drawing, Footprint, Known, Trainee, longest_pair};
use crate::publish;
use crate::session::Cx;
use crate::train::log::Metrics;
use crate::train::{LogProbs, PairStep, Trainer};
use motrain_core::Prompt;
use motrain_core::data::{DataOptions, Pair};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, GenerationConfig, Lora, LoraChoice, ModelRef, Optimizer, StageId, Training, lora};
use motrain_core::registry::{self, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::no_grad;
use weighing::{Slot, Weighing, fitting, row};

/// Offline preference training on pairs of answers, of a file or of a `preference_data` stage: DPO, IPO, SLiC, or MODPO with the margins that
/// `rewards` give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    pub policy: ModelRef,
    /// Rows of preference pairs.
    #[serde(default)]
    pub data: Option<DataOptions>,
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
    const MAKES: &'static [Makes] = &[Makes::Policy];

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

    fn trains(&self) -> Option<Trains<'_>> {
        Some(Trains { model: &self.policy, lora: self.lora.as_ref(), train: &self.train })
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let machine = known.machine;
        let scorers = self.rewards.as_ref().map(|id| rewards::scorers(known, id)).transpose()?.unwrap_or_default();
        let read = known.model(&self.policy)?;
        let count = self.rewards.as_ref().and_then(|id| known.others.objectives(id)).map_or(1, |o| o.len());
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
        out.moment("update", policy.update(policy.room() + prompt + 2.0 * answer, 2.0 * answer).and(&beside));
        out.moment("optimizer step", policy.stepping().and(&beside));
        out.moments("merging", policy.merging().map(|parts| parts.and(&beside)));
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

impl Preference {
    /// By default weights do not enter prompts.
    fn weights_by(&self) -> Component {
        let none = || Component { name: "none".into(), options: Value::Object(Default::default()) };
        self.conditioner.clone().unwrap_or_else(none)
    }
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
    let pairs = fitting(&data, &tokenizer, policy.context(), weighing.as_ref(), session.stages.seed())?;
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
        let (gained, room) = (t.model.blocks() > 0, t.model.soft_tokens());
        metrics.extend(update.train(t, &mut slots.iter().map(|slot| slot.pair(gained, room)).collect::<Vec<_>>())?);
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
            publish::save(stage, objectives, &options.weights_by(), options.lora.as_ref())
        }
        None => Ok(()),
    }
}
