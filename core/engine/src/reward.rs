//! Reward models as a reward source, and the set of rewards that a stage scores with.

use crate::decode::{Completion, Completions};
use crate::device;
use crate::model::{Config, Head, Model, Net};
use crate::plan::ModelRef;
use crate::session::obey;
use crate::stage::rewards::Rewards;
use crate::tokenizer::Tokenizer;
use crate::train::log::Metrics;
use crate::train::logprob::{Group, pack, to_vec_unchecked};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::data::{DataSpec, Row};
use motrain_core::options::Options;
use motrain_core::registry::{Entry, Kind as ComponentKind, Registry};
use motrain_core::reward::{RewardSource, Sample, score_checked};
use motrain_core::scale::Scale;
use motrain_core::stop;
use schemars::JsonSchema;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;
use tch::{Device, Kind, Tensor, no_grad};

/// Options of the `reward_model` reward.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModelOptions {
    /// A Hugging Face sequence-classification folder with one label, or a `reward_model` stage.
    pub model: ModelRef,
    /// Tokens of prompt and answer together; a longer prompt loses its beginning.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub max_tokens: usize,
    /// Prompts scored at once.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: usize,
}

fn max_tokens() -> usize {
    512
}

fn batch_size() -> usize {
    32
}

impl Options for RewardModelOptions {}

/// Adds the components that need libtorch to a registry.
pub fn register(registry: &mut Registry, device_name: &str, dtype: &str) -> Result<()> {
    let (device_name, dtype) = (device_name.to_owned(), dtype.to_owned());
    let build = move |options: RewardModelOptions| -> motrain_core::Result<Box<dyn RewardSource>> {
        let load = || -> Result<ModelSource> {
            let ModelRef::Path(path) = &options.model else {
                return Err(Error::invalid("the stage of this reward model has not run"));
            };
            let device = device::device(&device_name)?;
            ModelSource::load(Path::new(path), device, device::dtype(&dtype, device)?, &options)
        };
        Ok(Box::new(load().map_err(|e| stop::or(motrain_core::Error::Invalid(e.to_string())))?))
    };
    let summary = "a Bradley-Terry reward model from a Hugging Face sequence-classification folder";
    Ok(registry.rewards.add(Entry::heavy(ComponentKind::Reward, "reward_model", summary, build))?)
}

/// A loaded reward model.
pub struct ModelSource {
    // libtorch tensors may move between threads but not be shared.
    net: Mutex<Net>,
    tokenizer: Tokenizer,
    max_tokens: usize,
    batch_size: usize,
}

impl ModelSource {
    fn load(folder: &Path, device: Device, dtype: Kind, options: &RewardModelOptions) -> Result<Self> {
        let config = Config::load(folder)?;
        if config.head != Head::Score {
            return Err(Error::file(
                folder,
                "is a language model, not a sequence-classification folder; train a reward model first",
            ));
        }
        if config.labels.len() != 1 {
            let what =
                format!("has {} labels ({}); a reward model has one", config.labels.len(), config.labels.join(", "));
            return Err(Error::file(folder, what));
        }
        let tokenizer = Tokenizer::load(folder, &config)?;
        let max_tokens = options.max_tokens.min(config.shape.context as usize);
        let net = Mutex::new(no_grad(|| Model::load(folder, device)?.net(dtype))?);
        Ok(Self { net, tokenizer, max_tokens, batch_size: options.batch_size.max(1) })
    }
}

impl RewardSource for ModelSource {
    fn beside_others(&self) -> bool {
        false
    }

    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        let net = self.net.lock().map_err(|_| "an earlier call failed".to_owned())?;
        score_batch(&net, &self.tokenizer, self.max_tokens, self.batch_size, batch).map_err(|e| e.to_string())
    }
}

/// Tokens of a prompt and an answer (its text, and whether it is finished). To fit, the prompt loses its beginning; an answer that is too long
/// alone loses its end, so that it ends in no end-of-sequence token, as one that its policy did not finish.
pub fn encode_for_reward(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    (answer, finished): (&str, bool),
    max_tokens: usize,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut prompt, mut answer) = tokenizer.encode_conversation(prompt, answer, finished)?;
    answer.truncate(max_tokens.saturating_sub(1).max(1));
    let room = max_tokens.saturating_sub(answer.len()).max(1);
    if prompt.len() > room {
        prompt.drain(..prompt.len() - room);
    }
    Ok((prompt, answer))
}

fn score_batch(net: &Net, tokenizer: &Tokenizer, max_tokens: usize, rows: usize, batch: &[Sample]) -> Result<Vec<f64>> {
    let encode = |s: &Sample| {
        obey()?;
        encode_for_reward(tokenizer, s.prompt, (s.completion, s.finished), max_tokens)
    };
    let encoded: Vec<(Vec<u32>, Vec<u32>)> = batch.iter().map(encode).collect::<Result<_>>()?;
    // Neighbouring completions of one prompt share it.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, (prompt, _)) in encoded.iter().enumerate() {
        match groups.last_mut() {
            Some(g) if encoded[g[0]].0 == *prompt => g.push(i),
            _ => groups.push(vec![i]),
        }
    }
    groups.sort_by_key(|g| encoded[g[0]].0.len());
    let mut scores = vec![0.0; batch.len()];
    for chunk in groups.chunks(rows) {
        obey()?;
        let packed: Vec<Group> = chunk
            .iter()
            .map(|g| Group {
                prompt: &encoded[g[0]].0,
                completions: g.iter().map(|&i| encoded[i].1.as_slice()).collect(),
            })
            .collect();
        // The reward set names prompt and completion of a score that is not finite.
        let values = no_grad(|| to_vec_unchecked(&scores_of(net, &packed, tokenizer.pad)?))?;
        for (&i, value) in chunk.iter().flatten().zip(values) {
            scores[i] = value;
        }
    }
    Ok(scores)
}

/// Scores of the groups' completions in order, `[completions]`; differentiable.
pub fn scores_of(net: &Net, groups: &[Group], pad: u32) -> Result<Tensor> {
    pack(groups, pad, net.device())?.scores(net)
}

/// The rewards of an experiment, ready to score.
pub struct RewardSet {
    sources: Vec<(String, bool, Box<dyn RewardSource>)>,
    scales: BTreeMap<String, Scale>,
    spent: RefCell<Metrics>,
}

/// Scores of a batch of completions, one entry per completion; `None` where a source left one out.
pub struct Scores {
    /// Scaled scores, one per objective.
    pub objectives: Vec<Option<Vec<f64>>>,
    /// Raw scores of every reward by name.
    pub raw: RawScores,
}

impl Scores {
    /// Takes `penalty` off every scaled score of the completions that their policy did not finish, as TRL does of their one score: weights add
    /// up to 1, so a weighted score loses as much.
    pub fn penalise_cut(&mut self, completions: &[Completion], penalty: f64) {
        let cut = self.objectives.iter_mut().zip(completions).filter(|(_, c)| !c.finished);
        cut.flat_map(|(scores, _)| scores.iter_mut().flatten()).for_each(|score| *score -= penalty);
    }
}

pub type RawScores = BTreeMap<String, Vec<Option<f64>>>;

/// The scores that there are.
pub fn known(scores: &[Option<f64>]) -> Vec<f64> {
    scores.iter().flatten().copied().collect()
}

impl RewardSet {
    /// Builds the sources of a `rewards` stage; `resolve` turns stage references in options into folders.
    pub fn build(
        spec: &Rewards,
        registry: &Registry,
        resolve: impl Fn(&serde_json::Value) -> Result<serde_json::Value>,
        scales: BTreeMap<String, Scale>,
    ) -> Result<Self> {
        let sources = spec
            .sources
            .iter()
            .map(|s| {
                let built = registry.rewards.build(&s.source.name, &resolve(&s.source.options)?)?;
                Ok((s.name.clone(), s.watch, built))
            })
            .collect::<Result<_>>()?;
        Ok(Self { sources, scales, spent: RefCell::default() })
    }

    /// Refuses rows that a source cannot score, before any answer to them is drawn.
    pub fn check_rows(&self, spec: &DataSpec, rows: &[Row]) -> Result<()> {
        for (row, (name, _, source)) in rows.iter().flat_map(|row| self.sources.iter().map(move |s| (row, s))) {
            let placed = |what| Error::invalid(format!("{}: reward \"{name}\": {what}", row.place.of(spec)));
            source.check_row(&row.columns).map_err(placed)?;
        }
        Ok(())
    }

    pub fn objectives(&self) -> Vec<String> {
        self.sources.iter().filter(|(_, watch, _)| !watch).map(|(name, ..)| name.clone()).collect()
    }

    pub fn watched(&self) -> Vec<String> {
        self.sources.iter().filter(|(_, watch, _)| *watch).map(|(name, ..)| name.clone()).collect()
    }

    /// Seconds that each reward took since the last call, as `rewards/<name>/seconds`.
    pub fn take_seconds(&self) -> Metrics {
        self.spent.take()
    }

    /// Raw scores by reward, each source called once, those that can beside each other. The samples carry plain prompts.
    pub fn score_raw(&self, samples: &[Sample]) -> Result<RawScores> {
        let score = |name: &str, source: &dyn RewardSource| {
            let clock = Instant::now();
            let scores = score_checked(name, source, samples);
            (scores, clock.elapsed().as_secs_f64())
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = self
                .sources
                .iter()
                .map(|(name, _, source)| {
                    let source = source.as_ref();
                    source.beside_others().then(|| scope.spawn(move || score(name, source)))
                })
                .collect();
            started
                .into_iter()
                .zip(&self.sources)
                .map(|(thread, (name, _, source))| match thread {
                    None => Ok(score(name, source.as_ref())),
                    Some(thread) => thread.join(),
                })
                .collect()
        });
        let mut out = RawScores::new();
        for ((name, ..), result) in self.sources.iter().zip(results) {
            let (scores, seconds) = result
                .map_err(|_| Error::invalid(format!("reward \"{name}\" failed inside motrain; please report it")))?;
            *self.spent.borrow_mut().entry(format!("rewards/{name}/seconds")).or_default() += seconds;
            out.insert(name.clone(), scores?);
        }
        Ok(out)
    }

    /// Scores the completions of `rows`.
    pub fn score(&self, rows: &[&Row], completions: &Completions) -> Result<Scores> {
        let samples: Vec<Sample> = completions.with(rows).map(|(row, c)| c.sample(row)).collect();
        let raw = self.score_raw(&samples)?;
        let mut objectives = vec![Some(Vec::new()); samples.len()];
        for name in self.objectives() {
            let scale =
                self.scales.get(&name).ok_or_else(|| Error::invalid(format!("reward \"{name}\" has no scale")))?;
            for (scores, value) in objectives.iter_mut().zip(&raw[&name]) {
                match (&mut *scores, value) {
                    (Some(scores), Some(value)) => scores.push(scale.apply(*value)),
                    _ => *scores = None,
                }
            }
        }
        Ok(Scores { objectives, raw })
    }
}
