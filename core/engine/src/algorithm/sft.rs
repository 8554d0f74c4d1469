//! Supervised fine-tuning: mean cross-entropy of the completions' tokens, prompts masked.

use super::{batch_rows, short};
use crate::Result;
use crate::log::Metrics;
use crate::logprob::{Group, pack};
use crate::session::{Stage, Trainer};
use motrain_core::data;
use motrain_core::plan::{Prefix, Sft};
use motrain_core::{Prompt, Result as CoreResult};
use rand::Rng;
use tch::Kind;

pub fn run(stage: Stage, spec: &Sft) -> Result<()> {
    let session = stage.session;
    let rows = data::completions(&spec.data)?;
    let (model, text) = stage.load(&spec.model)?;
    let total = spec.train.total_steps(rows.len());
    let mut t = Trainer::start(stage, model, text, &spec.optimizer, total, spec.train.checkpoint_every)?;
    while t.running() {
        let step = t.state.step;
        let mut examples = Vec::new();
        for (slot, i) in batch_rows(stage, rows.len(), spec.train.batch_size, step).into_iter().enumerate() {
            let index = (step * spec.train.batch_size + slot) as u64;
            let prompt = match &spec.prefix {
                Some(prefix) => with_prefix(stage, prefix, &rows[i].0, index)?,
                None => rows[i].0.clone(),
            };
            examples.push((t.text.encode_prompt(&prompt)?, t.text.encode_completion(&rows[i].1)?));
        }
        examples.sort_by_key(|(p, c)| p.len() + c.len());
        let tokens: usize = examples.iter().map(|(_, c)| c.len()).sum();
        let mut loss_sum = 0.0;
        for micro in examples.chunks(spec.train.micro_batch_size) {
            let groups: Vec<Group> =
                micro.iter().map(|(p, c)| Group { prompt: p, completions: vec![c.as_slice()] }).collect();
            let packed = pack(&groups, t.text.pad, session.device)?;
            let net = t.model.net(session.kind)?;
            let loss = packed.token_log_probs(&net)?.f_sum(Kind::Float)?.f_div_scalar(-(tokens as f64))?;
            loss.f_backward()?;
            loss_sum += f64::try_from(&loss)?;
        }
        let mut metrics = Metrics::from([("loss".into(), loss_sum)]);
        t.update(&mut metrics)?;
        t.finish_step(&metrics, Metrics::new(), format!("loss {}", short(loss_sum)))?;
    }
    t.finish()
}

/// With the configured probability, the prompt under random weights.
fn with_prefix(stage: Stage, prefix: &Prefix, prompt: &Prompt, index: u64) -> CoreResult<Prompt> {
    let mut rng = stage.rng("prefix", index);
    if rng.random::<f64>() >= prefix.share {
        return Ok(prompt.clone());
    }
    let registry = stage.session.registry;
    let sampler = registry.samplers.build(&prefix.sampler.name, &prefix.sampler.options)?;
    let conditioner = registry.conditioners.build(&prefix.conditioner.name, &prefix.conditioner.options)?;
    let weights = sampler.sample(prefix.objectives.len(), index, &mut rng)?;
    conditioner.render(&prefix.objectives, &weights, prompt)
}
