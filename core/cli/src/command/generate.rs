//! `motrain generate`: a policy's answers to one prompt.

use crate::components::{self, Plugins};
use crate::config::{self, ConfigArgs};
use crate::out::say;
use crate::{locate, plans};
use anyhow::{Context, Result, bail};
use motrain_core::options::check_value;
use motrain_core::registry::Registry;
use motrain_core::rng::sub_seed;
use motrain_core::{Prompt, Weights};
use motrain_engine::model::Llama;
use motrain_engine::plan::{Component, Sampling};
use motrain_engine::rollout::rollout;
use motrain_engine::steering::Steering;
use motrain_engine::text::Text;
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
}

impl Generate {
    pub fn run(&self) -> Result<()> {
        let config = config::of_plugins(&self.plugins)?;
        let folder = locate::policy(&locate::find(&self.policy));
        let device = device::device(&self.device)?;
        let model = Llama::load(&folder, device)?;
        let text = Text::load(&folder, &model.config)?;
        let mut prompt = Prompt::from_dialogue(&self.prompt);
        if !self.weights.is_empty() {
            let registry = match self.policy.join("plan.json").exists() {
                true => components::from_plan(&plans::saved(&self.policy)?, &self.plugins)?,
                false => components::from_config(&config, &Plugins::read(&config, &self.plugins)?)?,
            };
            prompt = condition(&folder, &registry, Weights::new(self.weights.clone())?, &prompt)?;
        }
        let sampling = self.sampling(&folder)?;
        let seeds = vec![(0..self.n).map(|i| sub_seed(self.seed, "generate", i)).collect()];
        let net = model.net(device::kind("auto", device)?)?;
        for answer in &rollout(&net, &text, &[text.encode_prompt(&prompt)?], &seeds, &sampling)?[0] {
            say!("{}", answer.text);
        }
        Ok(())
    }

    /// As the policy is usually sampled, but for what was asked for.
    fn sampling(&self, folder: &Path) -> Result<Sampling> {
        let usual = generation::sampling(folder)?;
        let sampling = Sampling {
            max_new_tokens: self.max_new_tokens.unwrap_or(usual.max_new_tokens),
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
        };
        check_value("generate", &sampling)?;
        Ok(sampling)
    }
}

/// Writes weights into the prompt with the conditioner that the policy was trained with (steering.json beside the model).
fn condition(folder: &Path, registry: &Registry, weights: Weights, prompt: &Prompt) -> Result<Prompt> {
    let steering = Steering::load(folder)?;
    if steering.objectives.len() != weights.len() {
        bail!(
            "{} weights for {} objectives ({})",
            weights.len(),
            steering.objectives.len(),
            steering.objectives.join(", ")
        );
    }
    let Component { name, options } = &steering.conditioner;
    let conditioner = registry.conditioners.build(name, options);
    let conditioner = conditioner.with_context(|| folder.join("steering.json").display().to_string())?;
    Ok(conditioner.render(&steering.objectives, &weights, prompt)?)
}
