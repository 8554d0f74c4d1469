//! Demonstrations by selection: several completions of each plain prompt, and for each of some drawn weights the best of them by
//! weighted score, under the conditioned prompt. Fine-tuned on them, a policy reads weights before it is trained online.

use super::{SAMPLES, load_prompts, plain, rewards};
use crate::rollout::rollout;
use crate::session::{Stage, obey};
use crate::{Error, Result};
use motrain_core::data::Row;
use motrain_core::plan::BestOfN;
use serde_json::json;
use tch::no_grad;

/// Raised when this stage's results change.
pub const REVISION: u32 = 1;

/// Prompts whose completions are drawn at once.
const CHUNK: usize = 16;

pub fn run(stage: Stage, spec: &BestOfN) -> Result<()> {
    let session = stage.session;
    let sampler = session.registry.samplers.build(&spec.sampler.name, &spec.sampler.options)?;
    let conditioner = session.conditioner(&spec.conditioner)?;
    let set = rewards::load(session, &spec.rewards)?;
    let objectives = set.objectives();
    let (policy, text) = stage.load(&spec.policy)?;
    let rows = load_prompts(&spec.prompts, &text, spec.generate.max_new_tokens, policy.config.context, &plain)?;
    set.check_rows(&spec.prompts, &rows)?;
    let net = no_grad(|| policy.net(session.kind))?;
    let bar = stage.progress(rows.len());
    let mut lines = String::new();
    for (c, chunk) in rows.chunks(CHUNK).enumerate() {
        let prompts = chunk.iter().map(|r| text.encode_prompt(&r.prompt)).collect::<Result<Vec<_>>>()?;
        let seed = |slot: usize, i: usize| stage.seed("sample", ((c * CHUNK + slot) * spec.completions + i) as u64);
        let seeds: Vec<Vec<u64>> =
            (0..chunk.len()).map(|slot| (0..spec.completions).map(|i| seed(slot, i)).collect()).collect();
        let drawn = rollout(&net, &text, &prompts, &seeds, &spec.generate)?;
        let flat_rows: Vec<&Row> = chunk.iter().flat_map(|r| std::iter::repeat_n(r, spec.completions)).collect();
        let flat: Vec<_> = drawn.iter().flatten().collect();
        let scores = set.score(&flat_rows, &flat)?.objectives;
        for (slot, row) in chunk.iter().enumerate() {
            let first = slot * spec.completions;
            let scored: Vec<usize> = (0..spec.completions).filter(|i| scores[first + i].is_some()).collect();
            let own: Vec<Vec<f64>> = scored.iter().filter_map(|i| scores[first + i].clone()).collect();
            if own.is_empty() {
                continue;
            }
            for w in 0..spec.weights {
                let index = ((c * CHUNK + slot) * spec.weights + w) as u64;
                let weights = sampler.sample(objectives.len(), index, &mut stage.rng("weights", index))?;
                let better = |a: usize, b: usize| if weights.dot(&own[b]) > weights.dot(&own[a]) { b } else { a };
                let best = (1..own.len()).fold(0, better);
                let chosen = &drawn[slot][scored[best]];
                let line = json!({
                    "prompt": conditioner.render(&objectives, &weights, &row.prompt)?,
                    "completion": chosen.text,
                    "finished": chosen.finished,
                    "weights": weights,
                    "scores": own[best],
                });
                lines += &format!("{line}\n");
            }
        }
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    bar.finish();
    let path = stage.folder().join(SAMPLES);
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&path, e))?;
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}
