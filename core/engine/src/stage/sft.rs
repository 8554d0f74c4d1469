//! Supervised fine-tuning: mean cross-entropy of the completions' tokens, prompts masked.

use super::rows::{batch_rows, prompt_limit, samples, say_left_out};
use super::{Makes, Ref, Trains, Work, rewards, short};
use crate::memory::{Footprint, Known, Trainee, longest_row};
use crate::obey;
use crate::publish;
use crate::session::Cx;
use crate::tokenizer::{Tokenizer, Turn};
use crate::train::Trainer;
use crate::train::log::Metrics;
use crate::train::logprob::{Group, pack};
use crate::{Error, Result};
use motrain_core::data::{self, DataOptions};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, Lora, LoraChoice, ModelRef, Optimizer, StageId, Training, lora};
use motrain_core::registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;

/// Supervised fine-tuning on `{"prompt", "completion"}` rows or conversations, or on what a `best_of_n` or `ric_data` stage kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    pub model: ModelRef,
    #[serde(default)]
    pub data: Option<DataOptions>,
    /// The id of a `best_of_n` or `ric_data` stage.
    #[serde(default)]
    pub samples: Option<StageId>,
    /// What the policy learns to be steered by, if the rows have it in their prompts; saved beside it.
    #[serde(default)]
    pub conditioner: Option<Component>,
    /// With `conditioner`, the id of the `rewards` stage that names the objectives.
    #[serde(default)]
    pub rewards: Option<StageId>,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Train a low-rank adapter instead of all parameters.
    #[serde(default, deserialize_with = "lora", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LoraChoice")]
    pub lora: Option<Lora>,
}

impl Options for Sft {
    fn check(&self) -> Checked {
        if self.conditioner.is_some() != self.rewards.is_some() {
            return Err(("conditioner", "and \"rewards\" go together".into()));
        }
        self.lora.iter().try_for_each(|lora| lora.check(false))?;
        match (&self.data, &self.samples) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(("data", "or \"samples\" must be given, and only one of them".into())),
        }
    }
}

impl Work for Sft {
    const KIND: &'static str = "sft";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Policy];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let samples = self.samples.iter_mut().map(|id| Ref::Stage(Makes::Samples, id));
        let rewards = self.rewards.iter_mut().map(|id| Ref::Stage(Makes::Rewards, id));
        let conditioner = self.conditioner.iter_mut().map(|c| Ref::Component(registry::Kind::Conditioner, c));
        let data = self.data.iter_mut().map(Ref::Data);
        std::iter::once(Ref::Model(&mut self.model))
            .chain(samples)
            .chain(rewards)
            .chain(conditioner)
            .chain(data)
            .collect()
    }

    fn trains(&self) -> Option<Trains<'_>> {
        Some(Trains { model: &self.model, lora: self.lora.as_ref(), train: &self.train })
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let read = known.model(&self.model)?;
        let policy = Trainee::new(read.clone(), self.lora.as_ref(), &self.optimizer, &self.train, known.machine)?;
        let mut out = Footprint { makes: Some(policy.makes()), ..Footprint::default() };
        let (prompt, answer) = match (&self.data, &self.samples) {
            (Some(data), _) => longest_row(data, &read)?,
            (None, kept) => kept.as_ref().and_then(|id| known.rows(id)).unwrap_or_default(),
        };
        out.moments("loading the model", policy.opening(&read));
        out.moment("update", policy.update(prompt + answer, answer));
        out.moment("optimizer step", policy.stepping());
        out.moments("merging", policy.merging());
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

fn run(stage: Cx, options: &Sft) -> Result<()> {
    let session = stage.session;
    let data = match (&options.data, &options.samples) {
        (Some(data), _) => data.clone(),
        (None, kept) => samples(session, kept.as_deref().unwrap_or_default()),
    };
    let (model, tokenizer) = stage.load_trained(&options.model, options.lora.as_ref(), 0, Ok)?;
    let rows = encode(&data, &tokenizer, model.config.shape.context)?;
    let total = options.train.total_steps(rows.len());
    let mut t = Trainer::start(stage, model, tokenizer, &options.optimizer, total, &options.train)?;
    t.run(|t| {
        let drawn = batch_rows(stage, rows.len(), options.train.batch_size, t.state.step);
        let mut examples: Vec<&Turn> = drawn.into_iter().map(|i| &rows[i]).collect();
        // Words that the tokenizer drops leave nothing to learn.
        examples.retain(|(_, c)| !c.is_empty());
        examples.sort_by_key(|(p, c)| p.len() + c.len());
        let tokens: usize = examples.iter().map(|(_, c)| c.len()).sum();
        let pad = t.tokenizer.pad;
        let micros = options.train.micro_batches(&examples, |(p, c)| p.len() + c.len());
        let update = t.step(micros, tokens, |net, micro| {
            let groups: Vec<Group> =
                micro.iter().map(|(p, c)| Group { prompt: p, completions: vec![c.as_slice()] }).collect();
            let log_probs = pack(&groups, pad, session.device)?.token_log_probs(net, 1.0)?;
            Ok(log_probs.f_sum(Kind::Float)?.f_neg()?)
        })?;
        let message = update.get("loss").map_or("nothing to learn".into(), |loss| format!("loss {}", short(*loss)));
        let mut metrics = Metrics::from([("tokens/trained".into(), tokens as f64)]);
        metrics.extend(update);
        t.finish_step(&metrics, Metrics::new(), message)
    })?;
    t.finish()?;
    match (&options.conditioner, &options.rewards) {
        (Some(conditioner), Some(id)) => {
            publish::save(stage, rewards::of(session, id)?.objectives(), conditioner, None)
        }
        _ => Ok(()),
    }
}

/// The demonstrations as tokens. What the model's context cannot hold is left out: cut, it would teach to end in the middle.
fn encode(options: &DataOptions, tokenizer: &Tokenizer, context: i64) -> Result<Vec<Turn>> {
    let (mut rows, mut long_prompts, mut long) = (Vec::new(), Vec::new(), Vec::new());
    for row in data::completions(options)? {
        obey()?;
        let at = |e: Error| e.at(row.place.of(options));
        let (prompt, completion) = tokenizer.encode_answer(&row.prompt, &row.completion, row.finished).map_err(at)?;
        if options.max_prompt_tokens.is_some_and(|max| prompt.len() > max) {
            long_prompts.push(row.place);
        } else if prompt.len() + completion.len() > context as usize {
            long.push(row.place);
        } else {
            rows.push((prompt, completion));
        }
    }
    let kept = rows.len();
    say_left_out(options, kept + long.len(), &long_prompts, &prompt_limit(options))?;
    let why = format!("longer than the model's context of {context} tokens");
    say_left_out(options, kept, &long, &why)?;
    Ok(rows)
}
