//! A Bradley–Terry reward model from preference pairs: `−log σ(r(x, chosen) − r(x, rejected))`, the score read at the end-of-sequence
//! token. Accuracy and calibration are reported on pairs that it did not train on.

use super::rows::{batch_rows, prompt_limit, say_left_out};
use super::{Makes, Ref, Work, short};
use crate::model::{Model, write_json};
use crate::names;
use crate::plan::{Lora, LoraChoice, ModelRef, Optimizer, Training, lora};
use crate::reward::{Scorer, encode_for_reward};
use crate::session::{Cx, obey};
use crate::tokenizer::Tokenizer;
use crate::train::Trainer;
use crate::train::log::Metrics;
use crate::train::logprob::{Group, to_vec};
use crate::{Error, Result};
use motrain_core::data::{self, DataSpec, Pair, Part};
use motrain_core::loss::sigmoid;
use motrain_core::metrics::stats::mean;
use motrain_core::options::{Checked, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Kind, no_grad};

/// A Bradley–Terry reward model trained from preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    pub model: ModelRef,
    pub data: DataSpec,
    /// Pairs for accuracy and calibration; by default the data's test part.
    #[serde(default)]
    pub heldout: Option<DataSpec>,
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

impl Options for RewardModel {
    fn check(&self) -> Checked {
        match &self.lora {
            Some(lora) if self.layers > 0 && !lora.merge => {
                let what = format!(
                    "is {}, and an adapter is of a whole base; set lora.merge = true, or layers = 0",
                    self.layers
                );
                Err(("layers", what))
            }
            _ => Ok(()),
        }
    }
}

impl Work for RewardModel {
    const KIND: &'static str = "reward_model";
    const REVISION: u32 = 1;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let data = std::iter::once(&mut self.data).chain(&mut self.heldout).map(Ref::Data);
        std::iter::once(Ref::Model(&mut self.model)).chain(data).collect()
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::RewardModel]
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// Tokens of a pair: prompt, chosen, rejected. The answers share the prompt.
type Encoded = (Vec<u32>, Vec<u32>, Vec<u32>);

fn run(stage: Cx, options: &RewardModel) -> Result<()> {
    let session = stage.session;
    let (train, heldout) = read_pairs(options)?;
    let labels = ["reward".to_owned()];
    let headed = |backbone: Model| backbone.into_reward_model(options.layers as i64, &labels, stage.seed("head", 0));
    let (model, tokenizer) = stage.load_trained(&options.model, options.lora.as_ref(), headed)?;
    let max_tokens = options.max_tokens.min(model.config.shape.context as usize);
    let train = encode_all(&tokenizer, &options.data, &train, max_tokens)?;
    let heldout = encode_all(&tokenizer, options.heldout.as_ref().unwrap_or(&options.data), &heldout, max_tokens)?;
    let total = options.train.total_steps(train.len());
    let scorer = Scorer::new(tokenizer.clone(), &model.config)?;
    let mut t = Trainer::start(stage, model, tokenizer, &options.optimizer, total, &options.train)?;
    t.run(|t| {
        let mut batch: Vec<&Encoded> = batch_rows(stage, train.len(), options.train.batch_size, t.state.step)
            .into_iter()
            .map(|i| &train[i])
            .collect();
        batch.sort_by_key(|p| p.0.len() + p.1.len() + p.2.len());
        let (mut losses, mut margins) = (Vec::new(), Vec::new());
        let mut metrics = t.step(batch.chunks(options.train.micro_batch_size), batch.len(), |net, micro| {
            let scores = scorer.values(net, &groups(micro))?.f_view([-1, 2])?;
            let margin = scores.f_select(1, 0)?.f_sub(&scores.f_select(1, 1)?)?;
            let loss = margin.f_log_sigmoid()?.f_neg()?;
            losses.extend(to_vec(&loss)?);
            margins.extend(to_vec(&margin)?);
            Ok(loss.f_sum(Kind::Float)?)
        })?;
        let accuracy = mean(&margins.iter().map(|m| f64::from(u8::from(*m > 0.0))).collect::<Vec<_>>());
        metrics.extend([
            ("loss".into(), mean(&losses)),
            ("rewards/accuracies".into(), accuracy),
            ("rewards/margins".into(), mean(&margins)),
        ]);
        let message = format!("loss {} accuracy {}", short(mean(&losses)), short(accuracy));
        t.finish_step(&metrics, Metrics::new(), message)
    })?;
    let mut margins = Vec::new();
    for chunk in heldout.chunks(options.train.micro_batch_size.max(8)) {
        obey()?;
        let chunk: Vec<&Encoded> = chunk.iter().collect();
        let scores =
            no_grad(|| to_vec(&scorer.values(&t.model.net(session.dtype)?, &groups(&chunk))?.f_reshape([-1])?))?;
        margins.extend(scores.chunks(2).map(|s| s[0] - s[1]));
    }
    let report = quality(&margins);
    tracing::info!(
        "{}: held-out accuracy {} on {} pairs",
        stage.id,
        short(report["accuracy"].as_f64().unwrap_or(0.0)),
        margins.len()
    );
    write_json(&stage.folder().join(names::HELD_OUT), &report)?;
    t.finish()
}

/// Training pairs, and pairs that no training pair shares a conversation with.
fn read_pairs(options: &RewardModel) -> Result<(Vec<Pair>, Vec<Pair>)> {
    let heldout = match &options.heldout {
        Some(heldout) => data::pairs(heldout)?,
        None if options.data.part == Part::Train => {
            data::pairs(&DataSpec { part: Part::Test, limit: None, ..options.data.clone() })?
        }
        None => return Err(Error::invalid("reward_model: give `heldout` data, or set the data's part to \"train\"")),
    };
    Ok((data::pairs(&options.data)?, heldout))
}

/// The pairs as tokens. Says how many lose a part of their prompt to `max_tokens`, and leaves out those that would lose all of it.
fn encode_all(tokenizer: &Tokenizer, options: &DataSpec, pairs: &[Pair], max_tokens: usize) -> Result<Vec<Encoded>> {
    let (mut out, mut cut, mut long, mut long_prompts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in pairs {
        obey()?;
        let at = |e: Error| e.at(pair.place.of(options));
        let whole = tokenizer.encode_prompt(&pair.prompt).map_err(at)?.len();
        let encoded = encode(tokenizer, pair, max_tokens).map_err(at)?;
        let left = encoded.0.len();
        if options.max_prompt_tokens.is_some_and(|max| whole > max) {
            long_prompts.push(pair.place);
        } else if left < whole && left <= 1 {
            long.push(pair.place);
        } else {
            cut.extend((left < whole).then_some(pair.place));
            out.push(encoded);
        }
    }
    say_left_out(options, out.len() + long.len(), &long_prompts, &prompt_limit(options))?;
    say_left_out(options, out.len(), &long, &format!("whose answers alone are longer than max_tokens = {max_tokens}"))?;
    if let Some(first) = cut.first() {
        let (count, of, first) = (cut.len(), out.len(), first.of(options));
        tracing::warn!(
            "{count} of {of} pairs are longer than max_tokens = {max_tokens}: the beginning of their prompts is cut (the first is {first})"
        );
    }
    Ok(out)
}

fn encode(tokenizer: &Tokenizer, pair: &Pair, max_tokens: usize) -> Result<Encoded> {
    let (one, mut chosen) = encode_for_reward(tokenizer, &pair.prompt, (&pair.chosen, true), max_tokens)?;
    let (other, mut rejected) = encode_for_reward(tokenizer, &pair.prompt, (&pair.rejected, true), max_tokens)?;
    let (shorter, longer, behind) =
        if other.len() < one.len() { (other, one, &mut chosen) } else { (one, other, &mut rejected) };
    // Cut at its beginning, the shorter prompt ends the longer one. Else a token of the answer reaches into the prompt.
    if !longer.ends_with(&shorter) {
        behind.splice(..0, longer[shorter.len()..].iter().copied());
    }
    Ok((shorter, chosen, rejected))
}

fn groups<'a>(pairs: &[&'a Encoded]) -> Vec<Group<'a>> {
    pairs.iter().map(|(prompt, chosen, rejected)| Group { prompt, completions: vec![chosen, rejected] }).collect()
}

/// Accuracy, mean loss and expected calibration error (10 equal bins of the predicted probability, folded to [0.5, 1]).
fn quality(margins: &[f64]) -> serde_json::Value {
    let n = margins.len().max(1) as f64;
    let right = |m: &f64| f64::from(u8::from(*m > 0.0));
    let accuracy = margins.iter().map(right).sum::<f64>() / n;
    let loss = margins.iter().map(|m| motrain_core::loss::neg_log_sigmoid(*m)).sum::<f64>() / n;
    let mut bins = vec![(0.0, 0.0, 0usize); 10];
    for m in margins {
        let confidence = sigmoid(m.abs());
        let bin = &mut bins[(((confidence - 0.5) * 20.0) as usize).min(9)];
        *bin = (bin.0 + confidence, bin.1 + right(m), bin.2 + 1);
    }
    let error = bins.iter().filter(|b| b.2 > 0).map(|b| (b.0 - b.1).abs()).sum::<f64>() / n;
    let table: Vec<_> = bins
        .iter()
        .filter(|b| b.2 > 0)
        .map(|b| json!({"confidence": b.0 / b.2 as f64, "accuracy": b.1 / b.2 as f64, "pairs": b.2}))
        .collect();
    json!({
        "accuracy": accuracy,
        "accuracy_std_error": (accuracy * (1.0 - accuracy) / n).sqrt(),
        "loss": loss,
        "calibration_error": error,
        "calibration": table,
        "pairs": margins.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_known_margins() {
        let report = quality(&[2.0, 2.0, 2.0, -2.0]);
        assert_eq!(report["accuracy"], 0.75);
        let confidence = sigmoid(2.0);
        assert!((report["calibration_error"].as_f64().unwrap() - (confidence - 0.75)).abs() < 1e-12);
    }
}
