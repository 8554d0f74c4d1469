//! REINFORCE. Each completion's return is its weighted reward minus the KL to the initial policy (summed over the completion); by how much it
//! was better than expected, which is for an advantage to say, moves the log-prob of the whole completion.

use super::experience::{Batch, Experience};
use super::online::Online;
use super::{Makes, Ref, Trains, Work};
use crate::Result;
use crate::memory::{Footprint, Known};
use crate::model::Net;
use crate::session::Cx;
use crate::stage::{Stage, objectives};
use crate::train::log::Metrics;
use crate::train::logprob::to_vec;
use crate::train::{Drawn, LogProbs, Moved, surrogate};
use motrain_core::Weights;
use motrain_core::advantage::{Advantage, Answers};
use motrain_core::metrics::stats::{mean, std};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, Named, named};
use motrain_core::registry::{Kind, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Instant;
use tch::Tensor;

/// REINFORCE on the weighted sum of rewards minus a KL penalty: P-MORL with sampled weights in the prompt, MORLHF and specialists with
/// fixed weights and no conditioner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reinforce {
    #[serde(flatten)]
    pub online: Online,
    /// What a return is compared with: an advantage, or its name alone.
    #[serde(default = "value", deserialize_with = "named")]
    #[schemars(with = "Named")]
    pub baseline: Component,
    /// The `rate` of the baseline "value", where that does not say it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub value_rate: Option<f64>,
    /// The ideal point z of the scaled scores, one number per objective, out of reach of all of them: with it the reward is Tchebycheff's,
    /// min(0, min wₖ·(Rₖ − zₖ)), instead of Σ wₖRₖ. It reaches trade-offs where the front is not convex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(range(min = -1e6, max = 1e6)))]
    pub ideal: Option<Vec<f64>>,
    /// Weight of the KL to the initial policy (nats, summed over a completion) in the reward: what β is to `online_preference`.
    #[serde(default = "kl")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub kl: f64,
}

fn value() -> Component {
    Named::Name("value".into()).into()
}

fn kl() -> f64 {
    0.01
}

impl Options for Reinforce {
    fn check(&self) -> Checked {
        if self.ideal.is_some() && !self.online.keeps_scores() {
            let what = "is of the scaled scores, and `normalise` makes others of them; leave one of them out";
            return Err(("ideal", what.into()));
        }
        self.online.check()
    }
}

impl Work for Reinforce {
    const KIND: &'static str = "reinforce";
    const REVISION: u32 = 3;
    const MAKES: &'static [Makes] = &[Makes::Policy];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let own = Ref::Component(Kind::Advantage, &mut self.baseline);
        self.online.refs().into_iter().chain([own]).collect()
    }

    fn trains(&self) -> Option<Trains<'_>> {
        Some(Trains { model: &self.online.policy, lora: self.online.lora.as_ref(), train: &self.online.train })
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let count = objectives(earlier, &self.online.rewards).map(|names| names.len());
        match (self.ideal.as_ref().map(Vec::len), count) {
            (Some(given), Some(count)) if given != count => {
                Err(("ideal", format!("has {given} numbers for {count} objectives; give one per objective")))
            }
            _ => self.online.check_among(earlier),
        }
    }

    fn check_with(&self, registry: &Registry) -> Checked {
        self.online.check_with(registry)?;
        let of_sums = self.online.normaliser(registry).is_ok_and(|normaliser| normaliser.is_of_sums());
        if of_sums && self.baseline.name == "grpo" && self.baseline.options["scale"] != false {
            let what = format!(
                "is \"{}\", whose last step the advantage \"grpo\" undoes, as it divides by the prompt's deviation again; set its `scale` to false",
                self.online.normalise.name
            );
            return Err(("normalise", what));
        }
        // One that cannot be built is refused where components are.
        let least = self.advantage(registry).map_or(1, |advantage| advantage.least());
        let (name, given) = (&self.baseline.name, self.online.completions);
        if given < least {
            return Err(("completions", format!("must be at least {least} for the advantage \"{name}\", not {given}")));
        }
        Ok(())
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        self.online.footprint(known, self.online.completions, 1)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

impl Reinforce {
    fn advantage(&self, registry: &Registry) -> Result<Box<dyn Advantage>> {
        let Component { name, mut options } = self.baseline.clone();
        if let (Some(rate), "value", Value::Object(given)) = (self.value_rate, name.as_str(), &mut options) {
            given.entry("rate").or_insert(json!(rate));
        }
        Ok(registry.advantages.build(&name, &options)?)
    }
}

fn run(stage: Cx, options: &Reinforce) -> Result<()> {
    let (experience, log_probs, mut t) = Experience::start(stage, &options.online)?;
    let mut advantage = options.advantage(stage.session.registry)?;
    advantage.restore(&t.state.kept)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        // One update of the policy gradient.
        let clock = Instant::now();
        let (mut scored, rest) = scored(&batch, advantage.least(), options.ideal.as_deref());
        experience.normalise_sums(scored.iter_mut().flat_map(|s| &mut s.rewards));
        scored.sort_by_key(|s| s.drawn.length());
        let rest = log_probs.measure(&t.model, stage.session.dtype, rest)?;
        let rewards: Vec<f64> = scored.iter().flat_map(|s| s.rewards.iter().copied()).collect();
        let gradient =
            Gradient { log_probs: &log_probs, advantage: advantage.as_ref(), kl: options.kl, rewards: &rewards };
        let mut done = Done::default();
        let micros = log_probs.train.micro_batches(&scored, |s| s.drawn.length());
        metrics.extend(t.step(micros, rewards.len(), |net, micro| gradient.sum(net, micro, &mut done))?);
        done.moved.extend(rest);
        done.report(&mut metrics);
        if scored.is_empty() {
            tracing::warn!("step {}: no prompt has enough scores; nothing to learn from", t.state.step + 1);
        }
        metrics.extend(advantage.learn(&done.answers));
        t.state.kept = advantage.state();
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());
        experience.finish_step(t, &batch, &metrics, timings)
    })?;
    t.finish()?;
    experience.save_steering()
}

/// The scored completions of a prompt, and their weighted rewards.
struct Scored<'a> {
    drawn: Drawn<'a>,
    rewards: Vec<f64>,
}

/// The completions that have all scores, of prompts with at least so many of them; and all others.
fn scored<'a>(batch: &'a Batch, least: usize, ideal: Option<&[f64]>) -> (Vec<Scored<'a>>, Vec<Drawn<'a>>) {
    let (mut out, mut rest) = (Vec::new(), Vec::new());
    for slot in 0..batch.rows.len() {
        let scores = batch.scores_of(slot);
        let (mut with, mut without): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(|&i| scores[i].is_some());
        if with.len() < least {
            without.append(&mut with);
        }
        if !with.is_empty() {
            let rewards =
                with.iter().flat_map(|&i| &scores[i]).map(|s| scalar(&batch.weights[slot], s, ideal)).collect();
            out.push(Scored { drawn: batch.drawn(slot, with), rewards });
        }
        rest.push(batch.drawn(slot, without));
    }
    (out, rest)
}

/// One reward of all objectives' scores.
fn scalar(weights: &Weights, scores: &[f64], ideal: Option<&[f64]>) -> f64 {
    let Some(ideal) = ideal else { return weights.dot(scores) };
    // An objective that is at its ideal asks for nothing more, and one without weight for nothing at all.
    let gaps = weights.values().iter().zip(scores).zip(ideal).map(|((w, score), z)| w * (score - z));
    gaps.fold(0.0, f64::min)
}

/// What a step's gradient is made of.
struct Gradient<'a> {
    log_probs: &'a LogProbs,
    advantage: &'a dyn Advantage,
    kl: f64,
    /// Of all completions of the step.
    rewards: &'a [f64],
}

/// What the micro-batches of a step add up to.
#[derive(Default)]
struct Done {
    moved: Moved,
    answers: Vec<Answers>,
    advantages: Vec<f64>,
    tokens: usize,
}

impl Gradient<'_> {
    /// What has the gradient of `−Σ A·log π`.
    fn sum(&self, net: &Net, micro: &[Scored], done: &mut Done) -> Result<Tensor> {
        let drawn: Vec<&Drawn> = micro.iter().map(|s| &s.drawn).collect();
        let reference = self.log_probs.reference(&drawn)?;
        let (told, states) = match self.advantage.reads_states() {
            true => self.log_probs.policy_and_states(net, &drawn)?,
            false => (self.log_probs.policy(net, &drawn)?, vec![vec![]; micro.len()]),
        };
        let policy = to_vec(&told.sums)?;
        done.moved.add(&policy, &reference);
        done.moved.add_drawing(&drawn, &told)?;
        let mut log_ratios = policy.iter().zip(&reference).map(|(p, r)| p - r);
        let mut derivatives = Vec::new();
        for (scored, state) in micro.iter().zip(states) {
            let rewards = scored.rewards.clone();
            let returns = rewards.iter().zip(&mut log_ratios).map(|(r, d)| r - self.kl * d).collect();
            let answers = Answers { rewards, returns, state };
            let advantages = self.advantage.advantages(&answers, self.rewards)?;
            derivatives.extend(advantages.iter().map(|a| -a));
            done.advantages.extend(advantages);
            done.answers.push(answers);
            done.tokens += scored.drawn.trained();
        }
        surrogate(&told.sums, &derivatives)
    }
}

impl Done {
    /// TRL's names; all values are of the policy that drew the completions.
    fn report(&self, metrics: &mut Metrics) {
        self.moved.report(metrics);
        if self.answers.is_empty() {
            return;
        }
        let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
        let returns: Vec<f64> = self.answers.iter().flat_map(|a| a.returns.iter().copied()).collect();
        put("objective/rlhf_reward", mean(&returns));
        put("advantages/mean", mean(&self.advantages));
        put("advantages/std", std(&self.advantages));
        put("tokens/trained", self.tokens as f64);
        // Prompts whose completions all score alike: comparing these with each other teaches nothing.
        let alike = |a: &Answers| f64::from(u8::from(a.rewards.iter().all(|r| *r == a.rewards[0])));
        put("frac_reward_zero_std", mean(&self.answers.iter().map(alike).collect::<Vec<_>>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(more: Value) -> motrain_core::Result<Reinforce> {
        let mut options = json!({
            "policy": "p", "prompts": { "paths": ["x.jsonl"] }, "rewards": "r", "sampler": { "name": "fixed" },
            "conditioner": { "name": "none" },
        });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Ok(Stage::read("reinforce", "s", &options)?.work.downcast_ref::<Reinforce>().unwrap().clone())
    }

    #[test]
    fn a_baseline_is_a_component_or_its_name() {
        let of = |more: Value| json!(stage(more).unwrap().baseline);
        assert_eq!(of(json!({})), json!({ "name": "value", "options": {} }));
        for given in [json!("rloo"), json!({ "name": "rloo" }), json!({ "name": "rloo", "options": {} })] {
            assert_eq!(of(json!({ "baseline": given })), json!({ "name": "rloo", "options": {} }));
        }
        let refused = |more: Value| stage(more).unwrap_err().to_string();
        assert_eq!(
            refused(json!({ "baseline": { "name": "rloo", "option": {} } })),
            "reinforce(\"s\") has no option \"baseline.option\"; did you mean \"options\"?"
        );
        assert_eq!(
            refused(json!({ "baseline": 1 })),
            "reinforce(\"s\"): option \"baseline\" must be text or a map, not 1"
        );
    }

    /// What plans of before have.
    #[test]
    fn a_value_rate_beside_the_baseline_is_its_rate() {
        let registry = Registry::builtin();
        let learnt = |more: Value| {
            let mut head = stage(more).unwrap().advantage(&registry).unwrap();
            let step = |worth: f64| Answers { rewards: vec![worth], returns: vec![worth], state: vec![1.0, worth] };
            head.learn(&[step(0.2), step(0.9)]);
            head.state()
        };
        let before = learnt(json!({ "baseline": "value", "value_rate": 0.1 }));
        assert_eq!(before, learnt(json!({ "baseline": { "name": "value", "options": { "rate": 0.1 } } })));
        assert_eq!(before, learnt(json!({ "value_rate": 0.1 })));
        assert_ne!(before, learnt(json!({})));
        assert!(stage(json!({ "baseline": "rloo", "value_rate": 0.5 })).unwrap().advantage(&registry).is_ok());
    }

    #[test]
    fn an_advantage_that_compares_needs_two_completions() {
        let registry = Registry::builtin();
        let said = |name: &str, completions: usize| {
            stage(json!({ "baseline": name, "completions": completions })).unwrap().check_with(&registry)
        };
        for name in ["rloo", "grpo"] {
            assert_eq!(said(name, 2), Ok(()));
            let (option, what) = said(name, 1).unwrap_err();
            assert_eq!(
                (option, what),
                ("completions", format!("must be at least 2 for the advantage \"{name}\", not 1"))
            );
        }
        assert_eq!(said("value", 1), Ok(()));
    }

    #[test]
    fn tchebycheff_takes_the_worst_objective_from_the_ideal_point() {
        let weights = Weights::new(vec![0.25, 0.75]).unwrap();
        assert_eq!(scalar(&weights, &[0.8, 0.4], None), 0.5);
        let at = |scores: &[f64]| scalar(&weights, scores, Some(&[1.0, 1.2]));
        assert!((at(&[0.8, 0.4]) - 0.75 * -0.8).abs() < 1e-12);
        assert!((at(&[-3.0, 1.0]) - 0.25 * -4.0).abs() < 1e-12);
        // Better where it is worst, whatever it loses elsewhere above that.
        assert!(at(&[0.0, 0.5]) > at(&[1.0, 0.4]));
        // What is beyond its ideal counts no more.
        assert_eq!(at(&[2.0, 0.5]), at(&[1.0, 0.5]));
        assert_eq!(scalar(&Weights::new(vec![1.0, 0.0]).unwrap(), &[0.5, -9.0], Some(&[1.0, 1.0])), -0.5);
    }
}
