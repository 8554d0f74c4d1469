//! `motrain generate`: a policy's answers to one prompt.

use super::Profile;
use crate::components::{self, Plugins};
use crate::config::{self, ConfigArgs};
use crate::out::say;
use crate::{locate, plans};
use anyhow::Result;
use motrain_core::options::check_value;
use motrain_core::rng::sub_seed;
use motrain_core::{Prompt, Weights};
use motrain_engine::decode::rollout;
use motrain_engine::names;
use motrain_engine::plan::GenerationConfig;
use motrain_engine::steer::{Opened, Route};
use motrain_engine::{device, generation};
use std::path::{Path, PathBuf};

/// Answer a prompt with a policy, at given weights
#[derive(clap::Args)]
pub struct Generate {
    /// A model folder, or a run folder with policy/ in it
    policy: PathBuf,
    #[arg(long)]
    prompt: String,
    /// One weight per objective, for example 0.8,0.2; without them the prompt goes in as it is
    #[arg(long, value_delimiter = ',')]
    weights: Vec<f64>,
    /// Number of answers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    n: u64,
    /// [default: of the policy's generation_config.json, else 128]
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// [default: of the policy's generation_config.json, else 1]
    #[arg(long)]
    temperature: Option<f64>,
    /// [default: of the policy's generation_config.json, else 0, all]
    #[arg(long)]
    top_k: Option<usize>,
    /// [default: of the policy's generation_config.json, else 1, all]
    #[arg(long)]
    top_p: Option<f64>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "cpu")]
    device: String,
    #[command(flatten)]
    plugins: ConfigArgs,
    #[command(flatten)]
    pub(super) profile: Profile,
}

impl Generate {
    pub fn run(&self) -> Result<()> {
        let config = config::of_plugins(&self.plugins)?;
        let folder = locate::policy(&locate::find(&self.policy)?);
        let device = device::device(&self.device)?;
        let opened = Opened::load(&folder, device, device::dtype("auto", device)?)?;
        let (mut prompt, mut route) = (Prompt::from_dialogue(&self.prompt), Route::Same);
        if !self.weights.is_empty() {
            let registry = match self.policy.join(names::PLAN).exists() {
                true => components::from_plan(&plans::saved(&self.policy)?, &self.plugins)?,
                false => components::from_config(&config, &Plugins::read(&config, &self.plugins)?)?,
            };
            let weights = Weights::new(self.weights.clone())?;
            prompt = opened.steering(&registry, &weights)?.prompt(&weights, &prompt)?;
            route = opened.policy.route(&weights)?;
        }
        let sampling = self.sampling(&folder)?;
        let (decoder, prompts) = (opened.policy.decoder(&[route])?, [opened.tokenizer.encode_prompt(&prompt)?]);
        let seed = |_, i: usize| sub_seed(self.seed, "generate", i as u64);
        for answer in rollout(decoder.as_ref(), &opened.tokenizer, &prompts, self.n as usize, seed, &sampling)? {
            say!("{}", answer.text);
        }
        Ok(())
    }

    /// As the policy is usually sampled, but for what was asked for.
    fn sampling(&self, folder: &Path) -> Result<GenerationConfig> {
        let usual = generation::sampling(folder)?;
        let sampling = GenerationConfig {
            max_new_tokens: self.max_new_tokens.unwrap_or(usual.max_new_tokens),
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
        };
        check_value("generate", &sampling)?;
        Ok(sampling)
    }
}
