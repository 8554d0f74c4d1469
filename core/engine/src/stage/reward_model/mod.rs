//! A reward model: a backbone with a new head, whose scores are read at the end of an answer. It learns them from preference pairs (`pairs.rs`) or
//! from ratings (`ratings.rs`). What it is worth is reported on rows that it did not train on.

mod pairs;
mod ratings;
mod report;

use super::ratings::{Ratings, rows};
use super::rows::{batch_rows, prompt_limit, say_left_out};
use super::{Makes, Ref, Trains, Work};
use crate::memory::{Footprint, Known, Shaped, Trainee};
use crate::model::{Labels, Model, Net};
use crate::obey;
use crate::reward::Scorer;
use crate::session::Cx;
use crate::stage::{Stage, objectives};
use crate::tokenizer::Tokenizer;
use crate::train::logprob::{Group, to_vec};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::data::{DataOptions, Part, Place};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Lora, LoraChoice, ModelRef, Optimizer, StageId, Training, lora};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// A reward model: Bradley–Terry from preference pairs, or one label an attribute from ratings of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    pub model: ModelRef,
    /// Rows of pairs or ratings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataOptions>,
    /// The id of a `ratings` stage, of whose conversations a tenth is held out; goes with `attributes`, which are its objectives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings: Option<StageId>,
    /// Rows for the held-out report; by default the data's test part.
    #[serde(default)]
    pub heldout: Option<DataOptions>,
    /// Pairs that more are made of for training: the chosen answer against one to another prompt, and against its own first half. Pairs of another
    /// objective serve too, since nothing else of them is learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrasts: Option<DataOptions>,
    /// Columns of ratings, such as ["helpfulness", "verbosity"]: rows are then answers and their ratings, and the model has a label for each, which
    /// learns it by squared error. Without it rows are preference pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 200)))]
    pub attributes: Option<Vec<String>>,
    /// What pulls the scores of pairs towards 0: the loss has this times (chosen + rejected)² added. 0 leaves them where they are.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1e6))]
    pub center_rewards_coefficient: f64,
    /// Keep only this many of the backbone's first layers; 0 keeps all.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    pub layers: usize,
    /// Tokens of prompt and answer together; a longer prompt loses its beginning.
    #[serde(default = "reward_tokens")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub max_tokens: usize,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Train a low-rank adapter instead of all parameters.
    #[serde(default, deserialize_with = "lora", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LoraChoice")]
    pub lora: Option<Lora>,
}

fn reward_tokens() -> usize {
    512
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Options for RewardModel {
    fn check(&self) -> Checked {
        self.lora.iter().try_for_each(|lora| lora.check(false))?;
        if self.data.is_some() == self.ratings.is_some() {
            return Err(("data", "or \"ratings\" must be given, and only one of them".into()));
        }
        if self.ratings.is_some() && self.attributes.is_none() {
            return Err(("ratings", "are learnt label by label; name the objectives as \"attributes\"".into()));
        }
        if let Some(lora) = &self.lora
            && self.layers > 0
            && !lora.merge
        {
            let what =
                format!("is {}, and an adapter is of a whole base; set lora.merge = true, or layers = 0", self.layers);
            return Err(("layers", what));
        }
        let Some(attributes) = &self.attributes else { return Ok(()) };
        if self.contrasts.is_some() {
            return Err(("contrasts", "are pairs, and attributes are learnt from ratings: leave out either".into()));
        }
        if let Some((_, twice)) = attributes.iter().enumerate().find(|(i, name)| attributes[..*i].contains(name)) {
            return Err(("attributes", format!("name \"{twice}\" twice; a label is trained by one column")));
        }
        if self.center_rewards_coefficient > 0.0 {
            let what = "is for pairs, whose scores may lie anywhere; ratings say where theirs lie: leave it out, or attributes";
            return Err(("center_rewards_coefficient", what.into()));
        }
        Ok(())
    }
}

impl Work for RewardModel {
    const KIND: &'static str = "reward_model";
    const REVISION: u32 = 4;
    const MAKES: &'static [Makes] = &[Makes::RewardModel];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let data = self.data.iter_mut().chain(&mut self.heldout).chain(&mut self.contrasts).map(Ref::Data);
        let ratings = self.ratings.iter_mut().map(|id| Ref::Stage(Makes::Ratings, id));
        std::iter::once(Ref::Model(&mut self.model)).chain(data).chain(ratings).collect()
    }

    fn trains(&self) -> Option<Trains<'_>> {
        Some(Trains { model: &self.model, lora: self.lora.as_ref(), train: &self.train })
    }

    fn takes_scored(&self) -> bool {
        true
    }

    fn labels(&self) -> Option<Labels> {
        Some(self.head())
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let read = known.model(&self.model)?;
        let mut config = read.config.clone();
        config.into_reward_model(self.layers as i64, self.head());
        let made = Shaped::made(config, None, Some(&read));
        let model = Trainee::new(made, self.lora.as_ref(), &self.optimizer, &self.train, known.machine)?;
        let max_tokens = self.max_tokens.min(read.config.shape.context as usize);
        let longest = match (read.tokenizer()?, &self.data, &self.attributes) {
            (_, None, _) => {
                let (prompt, answer) = self.ratings.as_ref().and_then(|id| known.rows(id)).unwrap_or_default();
                max_tokens.min((prompt + answer) as usize)
            }
            (None, _, None) => 2 * max_tokens,
            (None, _, Some(_)) => max_tokens,
            (Some(tokenizer), Some(data), None) => {
                pairs::longest(data, self.contrasts.as_ref(), &tokenizer, max_tokens)?
            }
            (Some(tokenizer), Some(data), Some(names)) => ratings::longest(data, &tokenizer, names, max_tokens)?,
        };
        let mut out = Footprint { makes: Some(model.makes()), ..Footprint::default() };
        out.moments("loading the model", model.opening(&read));
        out.moment("update", model.update(longest as f64, 0.0));
        out.moment("optimizer step", model.stepping());
        out.moments("merging", model.merging());
        Ok(out)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let rated = self.ratings.as_ref().and_then(|id| earlier.iter().find(|s| *s.id == **id));
        let rated = rated.and_then(|stage| stage.work.downcast_ref::<Ratings>());
        let Some(names) = rated.and_then(|made| objectives(earlier, &made.rewards)) else { return Ok(()) };
        match self.attributes.iter().flatten().find(|attribute| !names.contains(attribute)) {
            None => Ok(()),
            Some(odd) => Err((
                "attributes",
                format!("name \"{odd}\", of which there are no ratings; there are {}", names.join(", ")),
            )),
        }
    }

    fn run(&self, stage: Cx) -> Result<()> {
        let data = match (&self.data, &self.ratings) {
            (Some(data), _) => data.clone(),
            (None, made) => rows(stage.session, made.as_deref().unwrap_or_default())?,
        };
        match &self.attributes {
            None => pairs::train(stage, self, &data),
            Some(attributes) => ratings::train(stage, self, &data, attributes),
        }
    }
}

impl RewardModel {
    fn head(&self) -> Labels {
        self.attributes.as_deref().map_or_else(Labels::reward, Labels::ratings)
    }

    /// Rows that no training row shares a conversation with.
    fn heldout(&self, data: &DataOptions) -> Result<DataOptions> {
        match &self.heldout {
            Some(heldout) => Ok(heldout.clone()),
            None if data.part == Part::Train => Ok(DataOptions { part: Part::Test, limit: None, ..data.clone() }),
            None => Err(Error::invalid("reward_model: give `heldout` data, or set the data's part to \"train\"")),
        }
    }

    /// The backbone with its new head.
    fn load(&self, stage: Cx) -> Result<(Model, Tokenizer)> {
        let headed =
            |backbone: Model| backbone.into_reward_model(self.layers as i64, self.head(), stage.seed("head", 0));
        stage.load_trained(&self.model, self.lora.as_ref(), 0, headed)
    }

    /// The rows of a step, the shortest first.
    fn batch<'a, T>(&self, stage: Cx, rows: &'a [Encoded<T>], step: usize) -> Vec<&'a Encoded<T>> {
        let drawn = batch_rows(stage, rows.len(), self.train.batch_size, step);
        let mut batch: Vec<_> = drawn.into_iter().map(|i| &rows[i]).collect();
        batch.sort_by_key(|row| row.tokens());
        batch
    }

    /// Scores of all answers in order, each a number for each label.
    fn scores<T>(&self, net: &Net, scorer: &Scorer, rows: &[Encoded<T>]) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        let at_once = Training { micro_batch_size: self.train.micro_batch_size.max(8), ..self.train.clone() };
        for chunk in at_once.micro_batches(rows, Encoded::tokens) {
            obey()?;
            let groups: Vec<Group> = chunk.iter().map(Encoded::group).collect();
            all.extend(no_grad(|| to_vec(&scorer.values(net, &groups)?.f_reshape([-1])?))?);
        }
        Ok(all)
    }
}

/// A row as tokens: a prompt, the answers that share it, and what is known of them.
struct Encoded<T> {
    prompt: Vec<u32>,
    answers: Vec<Vec<u32>>,
    known: T,
}

impl<T> Encoded<T> {
    fn tokens(&self) -> usize {
        self.prompt.len() + self.answers.iter().map(Vec::len).sum::<usize>()
    }

    fn group(&self) -> Group<'_> {
        Group { prompt: &self.prompt, completions: self.answers.iter().map(Vec::as_slice).collect() }
    }
}

/// The rows as tokens. Says how many lose a part of their prompt to `max_tokens`, and leaves out those that would lose all of it.
fn encode_all<R, T>(
    tokenizer: &Tokenizer,
    options: &DataOptions,
    rows: &[R],
    about: fn(&R) -> (&Prompt, Place),
    max_tokens: usize,
    encode: impl Fn(&R) -> Result<Encoded<T>>,
) -> Result<Vec<Encoded<T>>> {
    let (mut out, mut cut, mut long, mut long_prompts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        obey()?;
        let (prompt, place) = about(row);
        let at = |e: Error| e.at(place.of(options));
        let whole = tokenizer.encode_prompt(prompt).map_err(at)?.len();
        let encoded = encode(row).map_err(at)?;
        let left = encoded.prompt.len();
        if options.max_prompt_tokens.is_some_and(|max| whole > max) {
            long_prompts.push(place);
        } else if left < whole && left <= 1 {
            long.push(place);
        } else {
            cut.extend((left < whole).then_some(place));
            out.push(encoded);
        }
    }
    say_left_out(options, out.len() + long.len(), &long_prompts, &prompt_limit(options))?;
    say_left_out(options, out.len(), &long, &format!("whose answers alone are longer than max_tokens = {max_tokens}"))?;
    if let Some(first) = cut.first() {
        let (count, of, first) = (cut.len(), out.len(), first.of(options));
        tracing::warn!(
            "{count} of {of} rows are longer than max_tokens = {max_tokens}: the beginning of their prompts is cut (the first is {first})"
        );
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use serde_json::Value;
    use std::path::Path;
    use tch::{Kind, Tensor};

    /// A case of tests/goldens/reward_losses.json.
    pub struct Golden(pub Value);

    impl Golden {
        pub fn cases(kind: &str) -> Vec<Self> {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/reward_losses.json");
            let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            let cases: Vec<Self> = all[kind].as_array().unwrap().iter().cloned().map(Self).collect();
            assert!(cases.len() > 2);
            cases
        }

        pub fn number(&self, name: &str) -> f64 {
            self.0[name].as_f64().unwrap()
        }

        pub fn tensor(&self, name: &str) -> Tensor {
            fn flat(value: &Value) -> Vec<f32> {
                let one = || vec![value.as_f64().unwrap() as f32];
                value.as_array().map_or_else(one, |list| list.iter().flat_map(flat).collect())
            }
            let list = self.0[name].as_array().unwrap();
            Tensor::from_slice(&flat(&self.0[name])).view([list.len() as i64, -1]).squeeze_dim(-1)
        }

        /// Of losses and of the gradient of their sum, that of the mean over `count`.
        pub fn compare(&self, losses: &Tensor, gradient: &Tensor, count: f64) {
            let mean = f64::try_from(losses.sum(Kind::Double)).unwrap() / count;
            assert!((mean - self.number("loss")).abs() < 1e-5 * (1.0 + mean), "{}: a loss of {mean}", self.0);
            let gap = (gradient / count - self.tensor("gradient").view_as(gradient)).abs().max();
            let gap = f64::try_from(gap.to_kind(Kind::Double)).unwrap();
            assert!(gap < 1e-6, "{}: a gradient that is {gap} away", self.0);
        }
    }

    pub fn gradient(scores: &Tensor, losses: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let scores = scores.copy().set_requires_grad(true);
        losses(&scores).sum(Kind::Float).backward();
        scores.grad()
    }
}
