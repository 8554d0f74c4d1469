//! MO-ODPO (paper Algorithm 1) and its relatives. Per prompt: sample weights, write them into the prompt, draw completions from the
//! current policy, score them, label a pair, and move the policy by a pairwise loss against the frozen initial policy.

use super::ai_feedback::Judges;
use super::experience::{Batch, Experience};
use super::labelled::{Counts, choose};
use super::online::Online;
use super::{Makes, Ref, Trains, Work};
use crate::Result;
use crate::memory::{Footprint, Known};
use crate::session::Cx;
use crate::stage::{Stage, objectives};
use crate::train::log::Metrics;
use crate::train::{Drawn, Elsewhere, PairStep, TokenPair};
use motrain_core::label::LabelRule;
use motrain_core::loss::InfoNce;
use motrain_core::options::{Checked, Options};
use motrain_core::plan::Component;
use motrain_core::registry::{self, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// MO-ODPO (paper Algorithm 1) and its relatives: online pairs under sampled weights. Of more than two completions, the pair that the label
/// rule is surest of is trained on: the best against the worst where its labels are hard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlinePreference {
    #[serde(flatten)]
    pub online: Online,
    pub label: Component,
    /// AI feedback: a judge per objective, in order, asked in both orders. Its verdicts take the place of scores where pairs are labelled: 1 for the
    /// answer that it names both times, 0 for the other, ½ each where it names none, less `missing_eos_penalty` for an answer that was cut. Two
    /// completions a prompt; label "weighted_vote" makes a weighted vote of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub judges: Vec<Component>,
    pub loss: Component,
    /// β_w of a term of InfoNCE on top of the loss (MI-EPO): preferred answers become less likely under the weights of other prompts. 0 has none,
    /// and its pass through the policy is left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1000))]
    pub info_nce: f64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Options for OnlinePreference {
    fn check(&self) -> Checked {
        if self.online.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.online.completions)));
        }
        if !self.judges.is_empty() && self.online.completions != 2 {
            let given = self.online.completions;
            return Err(("completions", format!("must be 2 where judges compare them, not {given}")));
        }
        if !self.judges.is_empty() && (self.online.drift.penalty > 0.0 || !self.online.keeps_scores()) {
            let what = "take the place of scores, so that `drift.penalty` and `normalise` would change nothing; leave them out";
            return Err(("judges", what.into()));
        }
        if self.info_nce > 0.0 {
            self.check_contrast().map_err(|why| {
                ("info_nce", format!("contrasts the weights of a batch, and {why}; or leave it at 0"))
            })?;
        }
        self.online.check()
    }
}

impl Work for OnlinePreference {
    const KIND: &'static str = "online_preference";
    const REVISION: u32 = 2;
    const MAKES: &'static [Makes] = &[Makes::Policy];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let own = [
            Ref::Component(registry::Kind::Label, &mut self.label),
            Ref::Component(registry::Kind::Loss, &mut self.loss),
        ];
        let judges = self.judges.iter_mut().map(|judge| Ref::Component(registry::Kind::Judge, judge));
        self.online.refs().into_iter().chain(own).chain(judges).collect()
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let count = objectives(earlier, &self.online.rewards).map(|names| names.len());
        match (self.judges.len(), count) {
            (given @ 1.., Some(count)) if given != count => {
                Err(("judges", format!("has {given} judges for {count} objectives; give one per objective")))
            }
            _ => self.online.check_among(earlier),
        }
    }

    fn check_with(&self, registry: &Registry) -> Checked {
        self.online.check_with(registry)?;
        if self.online.normaliser(registry).is_ok_and(|normaliser| normaliser.is_of_sums()) {
            let name = &self.online.normalise.name;
            let what = format!(
                "is \"{name}\", whose last step is on the advantages of `reinforce`, and pairs have none; take \"group\""
            );
            return Err(("normalise", what));
        }
        // One that cannot be built is refused where components are.
        let loss = registry.losses.build(&self.loss.name, &self.loss.options);
        match loss.is_ok_and(|loss| loss.is_of_one_objective()) {
            true => {
                let name = &self.loss.name;
                let what = format!(
                    "is \"{name}\", for pairs that one objective has labelled, and a rule labels these by all of them: train on a `preference` stage"
                );
                Err(("loss", what))
            }
            false => Ok(()),
        }
    }

    fn trains(&self) -> Option<Trains<'_>> {
        Some(Trains { model: &self.online.policy, lora: self.online.lora.as_ref(), train: &self.online.train })
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let passes = if self.info_nce > 0.0 { 2 } else { 1 };
        let mut out = self.online.footprint(known, 2.min(self.online.completions), passes)?;
        let judge = |judge: &Component| format!("judge \"{}\": what it takes", judge.name);
        out.uncounted.extend(self.judges.iter().map(judge));
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

impl OnlinePreference {
    /// What keeps all prompts of a batch at the same weights.
    fn check_contrast(&self) -> std::result::Result<(), &'static str> {
        match &self.online {
            online if online.one_weight_per_batch => {
                Err("one_weight_per_batch gives all prompts the same: set it to false")
            }
            online if online.train.batch_size < 2 => Err("a batch of one prompt has one: raise train.batch_size"),
            online if online.sampler.name == "fixed" => {
                Err("the sampler \"fixed\" draws always the same: take another, such as \"dirichlet\"")
            }
            _ => Ok(()),
        }
    }
}

fn run(stage: Cx, options: &OnlinePreference) -> Result<()> {
    let session = stage.session;
    let rule = session.registry.labels.build(&options.label.name, &options.label.options)?;
    let mut loss = session.registry.losses.build(&options.loss.name, &options.loss.options)?;
    if options.info_nce > 0.0 {
        loss = Box::new(InfoNce::new(loss, options.info_nce));
    }
    let (experience, log_probs, mut t) = Experience::start(stage, &options.online)?;
    let judges = Judges::build(&options.judges, experience.objectives(), session.registry)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        let clock = Instant::now();
        let penalty = options.online.missing_eos_penalty;
        let compared = if judges.is_empty() { vec![] } else { judges.compare(&batch, penalty, &mut metrics)? };
        let elsewhere = if loss.needs_other() { experience.elsewhere(t, &batch)? } else { None };
        let (mut pairs, rest) = label(&batch, elsewhere.as_deref(), rule.as_ref(), &compared, &mut metrics)?;
        timings.insert("components/label/seconds".into(), clock.elapsed().as_secs_f64());

        // One update of the pairwise loss.
        let clock = Instant::now();
        let rest = log_probs.measure(&t.model, session.dtype, rest)?;
        let mut step = PairStep::new(&log_probs, loss.as_ref());
        metrics.extend(step.train(t, &mut pairs)?);
        timings.insert("components/loss/seconds".into(), step.seconds);
        step.moved.extend(rest);
        step.moved.report(&mut metrics);
        if pairs.is_empty() {
            tracing::warn!(
                "step {}: every pair was a tie, identical or without scores; nothing to learn from",
                t.state.step + 1
            );
        }
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());
        experience.finish_step(t, &batch, &metrics, timings)
    })?;
    t.finish()?;
    experience.save_steering()
}

/// A labelled pair of each prompt, by its scores or by what judges said of it, which is known `elsewhere` too if the loss asks for it, and all completions
/// that are in none. What teaches nothing is counted.
fn label<'a>(
    batch: &'a Batch,
    elsewhere: Option<&'a [Elsewhere]>,
    rule: &dyn LabelRule,
    compared: &[[Option<Vec<f64>>; 2]],
    metrics: &mut Metrics,
) -> Result<(Vec<TokenPair<'a>>, Vec<Drawn<'a>>)> {
    let (mut pairs, mut rest, mut counts) = (Vec::new(), Vec::new(), Counts::default());
    for slot in 0..batch.rows.len() {
        let completions = batch.completions.of(slot);
        let scores = compared.get(slot).map_or_else(|| batch.scores_of(slot), |verdicts| verdicts.as_slice());
        let found = counts.add(choose(rule, &batch.weights[slot], completions, scores)?);
        pairs.extend(found.as_ref().map(|pair| TokenPair {
            drawn: batch.drawn(slot, pair.which),
            label: pair.label,
            weights: batch.weights[slot].values(),
            margins: pair.margins.clone(),
            other: elsewhere.map(|prompts| &prompts[slot]),
        }));
        let left = (0..completions.len()).filter(|i| found.as_ref().is_none_or(|pair| !pair.which.contains(i)));
        rest.push(batch.drawn(slot, left));
    }
    counts.report(metrics);
    Ok((pairs, rest))
}
