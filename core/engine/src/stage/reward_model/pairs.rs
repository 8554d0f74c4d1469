//! Bradley–Terry: `−log σ(r(x, chosen) − r(x, rejected) − m)`, where m is a pair's margin (Touvron et al. 2023), and, where scores are centred,
//! `c·(r(x, chosen) + r(x, rejected))²` (Eisenstein et al. 2023). Only differences of scores are learnt: a constant for each prompt changes
//! nothing but what centring adds. Accuracy and calibration are reported on pairs that were not trained on.

use super::{Encoded, RewardModel, encode_all, report};
use crate::files::write_json;
use crate::names;
use crate::reward::{Scorer, encode_for_reward};
use crate::session::Cx;
use crate::stage::short;
use crate::tokenizer::Tokenizer;
use crate::train::Trainer;
use crate::train::log::Metrics;
use crate::train::logprob::{Group, to_vec};
use crate::{Error, Result};
use motrain_core::data::{self, DataOptions, Pair};
use motrain_core::metrics::stats::mean;
use tch::{Device, Kind, Tensor, no_grad};

/// Held-out pairs that contrasts are made of, at most.
const CONTRASTED: usize = 1000;

pub(super) fn train(stage: Cx, options: &RewardModel, data: &DataOptions) -> Result<()> {
    let session = stage.session;
    let unseen = options.heldout(data)?;
    let (heldout, train) = (data::pairs(&unseen)?, data::pairs(data)?);
    let (model, tokenizer) = options.load(stage)?;
    let max_tokens = options.max_tokens.min(model.config.shape.context as usize);
    let mut train = encoded(&tokenizer, data, &train, max_tokens)?;
    train.extend(made_for_training(options.contrasts.as_ref(), &tokenizer, max_tokens)?);
    let contrasts = contrasted(&tokenizer, &heldout[..heldout.len().min(CONTRASTED)], max_tokens)?;
    let heldout = encoded(&tokenizer, &unseen, &heldout, max_tokens)?;
    let total = options.train.total_steps(train.len());
    let centring = options.center_rewards_coefficient;
    let scorer = Scorer::new(tokenizer.clone(), &model.config)?;
    let mut t = Trainer::start(stage, model, tokenizer, &options.optimizer, total, &options.train)?;
    t.run(|t| {
        let batch = options.batch(stage, &train, t.state.step);
        let mut seen = Seen::default();
        let micros = options.train.micro_batches(&batch, |pair| pair.tokens());
        let mut metrics = t.step(micros, batch.len(), |net, micro| {
            let groups: Vec<Group> = micro.iter().map(|pair| pair.group()).collect();
            let scores = scorer.values(net, &groups)?.f_view([-1, 2])?;
            let loss = losses(&scores, &margins(micro, session.device)?, centring)?;
            seen.add(&loss, &scores)?;
            Ok(loss.f_sum(Kind::Float)?)
        })?;
        let accuracy = report::accuracy(&seen.margins);
        metrics.extend([
            ("loss".into(), mean(&seen.losses)),
            ("rewards/accuracies".into(), accuracy),
            ("rewards/margins".into(), mean(&seen.margins)),
        ]);
        metrics.extend((centring > 0.0).then(|| ("mean_reward".into(), mean(&seen.scores))));
        let message = format!("loss {} accuracy {}", short(mean(&seen.losses)), short(accuracy));
        t.finish_step(&metrics, Metrics::new(), message)
    })?;
    let net = no_grad(|| t.model.net(session.dtype))?;
    let margins = |pairs: &[Encoded<Known>]| {
        let scores = options.scores(&net, &scorer, pairs)?;
        Ok::<Vec<f64>, Error>(scores.chunks(2).map(|pair| pair[0] - pair[1]).collect())
    };
    let kinds = |pairs: &[Encoded<Known>], margins: &[f64]| {
        report::by_kind(pairs.iter().map(|pair| pair.known.kind.as_deref()).zip(margins.iter().copied()))
    };
    let found = margins(&heldout)?;
    let mut report = report::quality(&found);
    report["kinds"] = kinds(&heldout, &found).into();
    report["contrasts"] = kinds(&contrasts, &margins(&contrasts)?).into();
    tracing::info!(
        "{}: held-out accuracy {} on {} pairs",
        stage.id,
        short(report["accuracy"].as_f64().unwrap_or(0.0)),
        heldout.len()
    );
    write_json(&stage.folder().join(names::HELD_OUT), &report)?;
    t.finish()
}

/// Tokens of the longest pair.
pub(super) fn longest(
    data: &DataOptions,
    contrasts: Option<&DataOptions>,
    tokenizer: &Tokenizer,
    max_tokens: usize,
) -> Result<usize> {
    let given = encoded(tokenizer, data, &data::pairs(data)?, max_tokens)?;
    let made = made_for_training(contrasts, tokenizer, max_tokens)?;
    Ok(given.iter().chain(&made).map(Encoded::tokens).max().unwrap_or(0))
}

fn made_for_training(
    of: Option<&DataOptions>,
    tokenizer: &Tokenizer,
    max_tokens: usize,
) -> Result<Vec<Encoded<Known>>> {
    of.map_or(Ok(Vec::new()), |data| contrasted(tokenizer, &data::pairs(data)?, max_tokens))
}

/// One number per pair of a step; of `scores` two.
#[derive(Default)]
struct Seen {
    losses: Vec<f64>,
    margins: Vec<f64>,
    scores: Vec<f64>,
}

impl Seen {
    fn add(&mut self, losses: &Tensor, scores: &Tensor) -> Result<()> {
        self.losses.extend(to_vec(losses)?);
        self.margins.extend(to_vec(&scores.f_select(1, 0)?.f_sub(&scores.f_select(1, 1)?)?)?);
        self.scores.extend(to_vec(&scores.f_reshape([-1])?)?);
        Ok(())
    }
}

/// The loss of each pair; `scores` are `[pairs, 2]`, the better answer's first, `margins` `[pairs]`.
fn losses(scores: &Tensor, margins: &Tensor, centring: f64) -> Result<Tensor> {
    let (chosen, rejected) = (scores.f_select(1, 0)?, scores.f_select(1, 1)?);
    let loss = chosen.f_sub(&rejected)?.f_sub(margins)?.f_log_sigmoid()?.f_neg()?;
    if centring == 0.0 {
        return Ok(loss);
    }
    Ok(loss.f_add(&chosen.f_add(&rejected)?.f_square()?.f_mul_scalar(centring)?)?)
}

fn margins(pairs: &[&Encoded<Known>], device: Device) -> Result<Tensor> {
    let margins: Vec<f32> = pairs.iter().map(|pair| pair.known.margin as f32).collect();
    Ok(Tensor::f_from_slice(&margins)?.f_to_device(device)?)
}

/// The pairs as tokens, with their margins.
fn encoded(
    tokenizer: &Tokenizer,
    options: &DataOptions,
    pairs: &[Pair],
    max_tokens: usize,
) -> Result<Vec<Encoded<Known>>> {
    encode_all(
        tokenizer,
        options,
        pairs,
        |pair| (&pair.prompt, pair.place),
        max_tokens,
        |pair| encode(tokenizer, pair, max_tokens),
    )
}

/// Contrasts made of the pairs, without those that `max_tokens` leaves no prompt.
fn contrasted(tokenizer: &Tokenizer, pairs: &[Pair], max_tokens: usize) -> Result<Vec<Encoded<Known>>> {
    let all = report::contrasts(pairs);
    let all = all.iter().map(|pair| encode(tokenizer, pair, max_tokens)).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|row| row.prompt.len() > 1).collect())
}

fn encode(tokenizer: &Tokenizer, pair: &Pair, max_tokens: usize) -> Result<Encoded<Known>> {
    let (one, mut chosen) = encode_for_reward(tokenizer, &pair.prompt, (&pair.chosen, pair.finished[0]), max_tokens)?;
    let (other, mut rejected) =
        encode_for_reward(tokenizer, &pair.prompt, (&pair.rejected, pair.finished[1]), max_tokens)?;
    let (shorter, longer, behind) =
        if other.len() < one.len() { (other, one, &mut chosen) } else { (one, other, &mut rejected) };
    // Cut at its beginning, the shorter prompt ends the longer one. Else a token of the answer reaches into the prompt.
    if !longer.ends_with(&shorter) {
        behind.splice(..0, longer[shorter.len()..].iter().copied());
    }
    Ok(Encoded { prompt: shorter, answers: vec![chosen, rejected], known: Known::of(pair) })
}

/// What is known of a pair beside its tokens.
struct Known {
    margin: f64,
    kind: Option<String>,
}

impl Known {
    fn of(pair: &Pair) -> Self {
        Self { margin: pair.margin, kind: report::kind(pair) }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::stage::reward_model::tests::{Golden, gradient};

    /// Of each case of reward_losses.json.
    #[test]
    fn losses_and_gradients_are_those_of_the_equations() {
        for case in Golden::cases("pairs") {
            let margins = case.tensor("margins");
            let loss = |scores: &Tensor| losses(scores, &margins, case.number("center_rewards_coefficient")).unwrap();
            let (scores, count) = (case.tensor("scores"), margins.numel() as f64);
            case.compare(&loss(&scores), &gradient(&scores, &loss), count);
        }
    }

    /// What all answers to a prompt share is nothing that pairs tell, unless scores are centred.
    #[test]
    fn a_constant_for_each_prompt_changes_no_loss() {
        let scores = Tensor::from_slice(&[0.5f32, -1.25, 2.0, 2.5, -3.0, 0.75]).view([3, 2]);
        let margins = Tensor::from_slice(&[0.0f32, 1.0, -0.5]);
        let shifted = &scores + Tensor::from_slice(&[8.0f32, -4.0, 16.0]).unsqueeze(1);
        let of = |scores: &Tensor, centring: f64| to_vec(&losses(scores, &margins, centring).unwrap()).unwrap();
        assert_eq!(of(&scores, 0.0), of(&shifted, 0.0));
        let moved = |i: usize| of(&shifted, 0.01)[i] - of(&scores, 0.01)[i];
        assert!((0..3).all(|i| moved(i).abs() > 0.05), "centring tells constants apart");
    }
}
