//! A reward model as reward source. Text is rendered and tokenized again by the reward model's own template and tokenizer.

use super::reading::{Reading, ReadingOptions};
use crate::device;
use crate::model::{Adapter, Config, Head, Labels, Model, Net, PACKED, tokenizer_folder};
use crate::obey;
use crate::tokenizer::{self, Tokenizer};
use crate::train::logprob::{Group, pack, to_vec_unchecked};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::options::{Checked, Options};
use motrain_core::plan::ModelRef;
use motrain_core::registry::{Entry, Kind as ComponentKind, Registry};
use motrain_core::reward::{RewardSource, Sample};
use motrain_core::stop;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::sync::Mutex;
use tch::{Device, Kind, Tensor, no_grad};

/// Options of the `reward_model` reward.
#[derive(Deserialize, JsonSchema)]
pub struct RewardModelOptions {
    /// A Hugging Face folder of a sequence classifier (any family), of LlamaForScore (Beaver) or of LlamaForRewardModelWithGating (ArmoRM), or
    /// a `reward_model` stage.
    pub model: ModelRef,
    #[serde(flatten)]
    pub reading: ReadingOptions,
    /// The chat template (Jinja) of a folder that has none, or another than the folder's: the form that the model was trained on. "plain"
    /// joins the turns by line breaks, and ends finished answers by the end-of-sequence token.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100_000))]
    pub template: Option<String>,
    /// Tokens of prompt and answer together; a longer prompt loses its beginning.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub max_tokens: usize,
    /// Prompts scored at once, each with up to eight of its completions.
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

const PLAIN: &str = "plain";

impl Options for RewardModelOptions {
    fn check(&self) -> Checked {
        self.reading.check()?;
        match self.template.as_deref().filter(|t| *t != PLAIN) {
            Some(template) => tokenizer::check_template(template).map_err(|what| ("template", what)),
            None => Ok(()),
        }
    }
}

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
    let summary = "a reward model, or another classifier of sequences, from a Hugging Face folder";
    Ok(registry.rewards.add(Entry::heavy(ComponentKind::Reward, "reward_model", summary, build))?)
}

/// Whether the folder of a `reward_model`'s options, if it is there, is one that can score, and says in which form it reads text: what can be
/// known before any work.
pub fn check_folder(options: &Value) -> std::result::Result<(), String> {
    let options: RewardModelOptions = serde_json::from_value(options.clone()).map_err(|e| e.to_string())?;
    let ModelRef::Path(path) = &options.model else { return Ok(()) };
    let folder = Path::new(path);
    if !Adapter::is_one(folder) && !folder.join("config.json").is_file() {
        return Ok(());
    }
    let at = |what: String| format!("{path} {what}");
    reading(&options, &Config::of(folder).map_err(|e| e.to_string())?).map_err(at)?;
    let has_template = || tokenizer_folder(folder).and_then(|text| tokenizer::has_template(&text));
    if options.template.is_none() && !has_template().map_err(|e| e.to_string())? {
        return Err(at("has no chat template, so that it does not say in which form it reads prompt and answer: give the form that it \
                       was trained on as `template` (docs/models.md has some), or \"plain\""
            .into()));
    }
    Ok(())
}

/// Whether the model that a stage is to make, of whose labels `labels_of` knows, can score as a `reward_model`'s options say.
pub fn check_made(options: &Value, labels_of: impl Fn(&str) -> Option<Labels>) -> std::result::Result<(), String> {
    let options: RewardModelOptions = serde_json::from_value(options.clone()).map_err(|e| e.to_string())?;
    let ModelRef::Stage { stage, .. } = &options.model else { return Ok(()) };
    let Some(labels) = labels_of(stage) else { return Ok(()) };
    Reading::of(&options.reading, Head::Score, &labels).map(|_| ()).map_err(|what| format!("stage \"{stage}\" {what}"))
}

fn reading(options: &RewardModelOptions, config: &Config) -> std::result::Result<Reading, String> {
    if !config.head.scores() {
        return Err("is a language model, not a sequence-classification folder; train a reward model first".into());
    }
    Reading::of(&options.reading, config.head, &config.labelled())
}

/// A loaded reward model.
pub struct ModelSource {
    // libtorch tensors may move between threads but not be shared.
    net: Mutex<Net>,
    scorer: Scorer,
    reading: Reading,
    max_tokens: usize,
    batch_size: usize,
}

/// What turns text into a network's input.
pub struct Scorer {
    pub tokenizer: Tokenizer,
    /// Of a gated model: the tokens that lie before an answer.
    opening: Option<Vec<u32>>,
}

impl Scorer {
    pub fn new(tokenizer: Tokenizer, config: &Config) -> Result<Self> {
        let opening = matches!(config.head, Head::Gated(_)).then(|| tokenizer.opening()).transpose()?;
        Ok(Self { tokenizer, opening })
    }

    /// Numbers of the groups' completions in order, `[completions, values]`: one for each label, and the gated sum of a model that has a gate.
    pub fn values(&self, net: &Net, groups: &[Group]) -> Result<Tensor> {
        let packed = pack(groups, self.tokenizer.pad, net.device())?;
        match &self.opening {
            Some(opening) => packed.gated_scores(net, opening),
            None => packed.scores(net),
        }
    }
}

impl ModelSource {
    fn load(folder: &Path, device: Device, dtype: Kind, options: &RewardModelOptions) -> Result<Self> {
        let at = |what: String| Error::file(folder, what);
        // What cannot be read is refused before the weights are.
        reading(options, &Config::of(folder)?).map_err(at)?;
        let model = Model::open(folder, device, dtype)?;
        let config = model.config.clone();
        let reading = reading(options, &config).map_err(at)?;
        if config.head.is_cost() && !reading.turns_around() {
            tracing::warn!(
                "{}: is a cost model (score_type = \"cost\"), whose scores are better when lower; `scale: -1` makes a reward of it",
                folder.display()
            );
        }
        let mut tokenizer = Tokenizer::load(&tokenizer_folder(folder)?, &config)?;
        match options.template.as_deref() {
            Some(template) => {
                tokenizer = tokenizer.with_template(Some(template).filter(|t| *t != PLAIN)).map_err(at)?
            }
            // One that a stage made reads text as it was trained.
            None => tokenizer.tell_form(folder),
        }
        let max_tokens = options.max_tokens.min(config.shape.context as usize);
        let scorer = Scorer::new(tokenizer, &config).map_err(|e| at(e.to_string()))?;
        let net = Mutex::new(no_grad(|| model.net(dtype))?);
        Ok(Self { net, scorer, reading, max_tokens, batch_size: options.batch_size.max(1) })
    }

    fn scores(&self, net: &Net, batch: &[Sample]) -> Result<Vec<f64>> {
        let encode = |s: &Sample| {
            obey()?;
            encode_for_reward(&self.scorer.tokenizer, s.prompt, (s.completion, s.finished), self.max_tokens)
        };
        let encoded: Vec<(Vec<u32>, Vec<u32>)> = batch.iter().map(encode).collect::<Result<_>>()?;
        // Neighbouring completions of one prompt share it.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, (prompt, _)) in encoded.iter().enumerate() {
            match groups.last_mut() {
                Some(g) if g.len() < PACKED && encoded[g[0]].0 == *prompt => g.push(i),
                _ => groups.push(vec![i]),
            }
        }
        groups.sort_by_key(|g| encoded[g[0]].0.len());
        let mut scores = vec![0.0; batch.len()];
        for chunk in groups.chunks(self.batch_size) {
            obey()?;
            let packed: Vec<Group> = chunk
                .iter()
                .map(|g| Group {
                    prompt: &encoded[g[0]].0,
                    completions: g.iter().map(|&i| encoded[i].1.as_slice()).collect(),
                })
                .collect();
            let values = no_grad(|| self.scorer.values(net, &packed))?;
            let width = values.size2()?.1 as usize;
            // The reward set names prompt and completion of a score that is not finite.
            let values = to_vec_unchecked(&values.f_reshape([-1])?)?;
            for (&i, values) in chunk.iter().flatten().zip(values.chunks(width)) {
                scores[i] = self.reading.score(values);
            }
        }
        Ok(scores)
    }
}

impl RewardSource for ModelSource {
    fn beside_others(&self) -> bool {
        false
    }

    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        let net = self.net.lock().map_err(|_| "an earlier call failed".to_owned())?;
        self.scores(&net, batch).map_err(|e| e.to_string())
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
