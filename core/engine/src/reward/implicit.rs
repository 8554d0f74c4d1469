//! The reward that a policy's training has put into it (Rafailov et al. 2023): `β·(log π(y|x) − log π₀(y|x))` of a policy and of the one that it
//! began at. MODPO takes its margins from policies trained by DPO on the other objectives.

use crate::device;
use crate::model::tokenizer_folder;
use crate::model::{Model, Net};
use crate::obey;
use crate::steer::is_one_model;
use crate::tokenizer::Tokenizer;
use crate::train::logprob::{Group, pack, to_vec_unchecked};
use crate::{Error, Result};
use motrain_core::options::Options;
use motrain_core::plan::ModelRef;
use motrain_core::registry::{Entry, Kind as ComponentKind, Registry};
use motrain_core::reward::{RewardSource, Sample};
use motrain_core::stop;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::Path;
use std::sync::Mutex;
use tch::{Device, Kind, no_grad};

/// Its name in scripts.
pub const NAME: &str = "implicit";
/// The options that name models.
pub const MODELS: [&str; 2] = ["policy", "reference"];

/// Options of the `implicit` reward.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Implicit {
    /// A policy that preferences have trained: a model folder, a PEFT folder, or a stage.
    pub policy: ModelRef,
    /// The policy that it began at.
    pub reference: ModelRef,
    /// The KL coefficient that it was trained with.
    #[serde(default = "beta")]
    #[schemars(range(min = 1e-6, max = 1000))]
    pub beta: f64,
    /// Answers scored at once.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: usize,
}

fn beta() -> f64 {
    0.1
}

fn batch_size() -> usize {
    32
}

impl Options for Implicit {}

/// Adds the component to a registry.
pub fn register(registry: &mut Registry, device_name: &str, dtype: &str) -> Result<()> {
    let (device_name, dtype) = (device_name.to_owned(), dtype.to_owned());
    let build = move |options: Implicit| -> motrain_core::Result<Box<dyn RewardSource>> {
        let load = || -> Result<Source> {
            let device = device::device(&device_name)?;
            Source::load(&options, device, device::dtype(&dtype, device)?)
        };
        Ok(Box::new(load().map_err(|e| stop::or(motrain_core::Error::Invalid(e.to_string())))?))
    };
    let summary = "what training has taught a policy: β times its log-ratio to the one that it began at";
    Ok(registry.rewards.add(Entry::heavy(ComponentKind::Reward, NAME, summary, build))?)
}

struct Source {
    // libtorch tensors may move between threads but not be shared.
    nets: Mutex<[Net; 2]>,
    tokenizer: Tokenizer,
    beta: f64,
    batch_size: usize,
    context: usize,
}

impl Source {
    fn load(options: &Implicit, device: Device, dtype: Kind) -> Result<Self> {
        let folder = |model: &ModelRef| match model {
            ModelRef::Path(path) => Ok(Path::new(path).to_owned()),
            ModelRef::Stage { .. } => Err(Error::invalid("the stage of a policy of this reward has not run")),
        };
        let (policy, reference) = (folder(&options.policy)?, folder(&options.reference)?);
        let open = |folder: &Path| -> Result<(Net, Tokenizer)> {
            is_one_model(folder)?;
            let model = Model::open(folder, device, dtype)?;
            if model.config.head.scores() {
                return Err(Error::file(folder, "is a classifier, not a policy"));
            }
            let tokenizer = Tokenizer::load(&tokenizer_folder(folder)?, &model.config)?;
            Ok((no_grad(|| model.net(dtype))?, tokenizer))
        };
        let ((net, tokenizer), (base, other)) = (open(&policy)?, open(&reference)?);
        if let Some(what) = tokenizer.mismatch(&other) {
            return Err(Error::file(&policy, format!("cannot have begun at {}: {what}", reference.display())));
        }
        let context = net.config.shape.context.min(base.config.shape.context) as usize;
        let Implicit { beta, batch_size, .. } = *options;
        Ok(Self { nets: Mutex::new([net, base]), tokenizer, beta, batch_size: batch_size.max(1), context })
    }

    fn scores(&self, [policy, reference]: &[Net; 2], batch: &[Sample]) -> Result<Vec<f64>> {
        let encode = |s: &Sample| {
            let (prompt, answer) = self.tokenizer.encode_answer(s.prompt, s.completion, s.finished)?;
            match prompt.len() + answer.len() > self.context {
                false => Ok((prompt, answer)),
                true => Err(Error::invalid(format!(
                    "a prompt of {} tokens and an answer of {} do not fit the policy's context of {}",
                    prompt.len(),
                    answer.len(),
                    self.context
                ))),
            }
        };
        let encoded = batch.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        order.sort_by_key(|&i| encoded[i].0.len() + encoded[i].1.len());
        let mut scores = vec![0.0; batch.len()];
        for chunk in order.chunks(self.batch_size) {
            obey()?;
            let group = |&i: &usize| Group { prompt: &encoded[i].0, completions: vec![&encoded[i].1] };
            let packed = pack(&chunk.iter().map(group).collect::<Vec<_>>(), self.tokenizer.pad, policy.device())?;
            let sums = |net: &Net| no_grad(|| to_vec_unchecked(&packed.sums(&packed.token_log_probs(net, 1.0)?)?));
            for ((&i, own), base) in chunk.iter().zip(sums(policy)?).zip(sums(reference)?) {
                scores[i] = self.beta * (own - base);
            }
        }
        Ok(scores)
    }
}

impl RewardSource for Source {
    fn beside_others(&self) -> bool {
        false
    }

    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        let nets = self.nets.lock().map_err(|_| "an earlier call failed".to_owned())?;
        self.scores(&nets, batch).map_err(|e| e.to_string())
    }
}
