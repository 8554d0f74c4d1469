//! Supervised fine-tuning: mean cross-entropy of the completions' tokens, prompts masked.

use super::{batch_rows, samples, short};
use crate::Result;
use crate::log::Metrics;
use crate::logprob::{Group, pack};
use crate::session::{Stage, Trainer};
use crate::steering;
use motrain_core::data;
use motrain_core::plan::Sft;
use tch::Kind;

pub fn run(stage: Stage, spec: &Sft) -> Result<()> {
    let session = stage.session;
    let rows = match (&spec.data, &spec.samples) {
        (Some(data), _) => data::completions(data)?,
        (None, kept) => data::completions(&samples(session, kept.as_deref().unwrap_or_default()))?,
    };
    let (model, text) = stage.load(&spec.model)?;
    let total = spec.train.total_steps(rows.len());
    let mut t = Trainer::start(stage, model, text, &spec.optimizer, total, spec.train.checkpoint_every)?;
    while t.running() {
        let mut examples = Vec::new();
        for i in batch_rows(stage, rows.len(), spec.train.batch_size, t.state.step) {
            let mut completion = t.text.encode_completion(&rows[i].completion)?;
            if !rows[i].finished {
                completion.pop();
            }
            examples.push((t.text.encode_prompt(&rows[i].prompt)?, completion));
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
        let mut metrics = Metrics::from([("loss".into(), loss_sum), ("tokens/trained".into(), tokens as f64)]);
        t.update(&mut metrics)?;
        t.finish_step(&metrics, Metrics::new(), format!("loss {}", short(loss_sum)))?;
    }
    t.finish()?;
    match (&spec.conditioner, &spec.rewards) {
        (Some(conditioner), Some(id)) => steering::save(stage, session.rewards(id)?.objectives(), conditioner),
        _ => Ok(()),
    }
}
