//! The options of the stages that train on what the current policy answers: `online_preference`, `reinforce`.

use super::drift::Drift;
use super::rows::{Told, plain};
use super::{Makes, Ref, rewards};
use crate::Result;
use crate::memory::{Drawing, Footprint, Known, Part, Trainee, longest_prompt};
use crate::stage::Stage;
use motrain_core::Prompt;
use motrain_core::data::DataOptions;
use motrain_core::normaliser::{NONE, Normaliser};
use motrain_core::options::Checked;
use motrain_core::plan::{
    Component, GenerationConfig, Lora, LoraChoice, ModelRef, Named, Optimizer, StageId, Training, lora, named,
};
use motrain_core::registry::{Kind, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What all online methods have: a policy that answers prompts under sampled weights, is scored, and moves away from a frozen copy of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Online {
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions per prompt, all under the same weights.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
    /// One weight vector for a whole batch instead of one per prompt.
    #[serde(default)]
    pub one_weight_per_batch: bool,
    /// What a completion that was cut at `max_new_tokens` loses of each scaled score, and so of their weighted sum, before it is trained on
    /// (TRL's `missing_eos_penalty`); 0 takes nothing.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub missing_eos_penalty: f64,
    /// How each objective's scores are normalised before they are trained on: a normaliser, or its name alone. Evaluations keep the frozen scale.
    #[serde(default = "nothing", deserialize_with = "named", skip_serializing_if = "is_nothing")]
    #[schemars(with = "Named")]
    pub normalise: Component,
    /// Stop when the KL (nats per completion, over all that were drawn in the last 10 steps) is above this; 0 never stops.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_kl: f64,
    /// A guard against drift of the reward models, by second opinions on objectives.
    #[serde(default, skip_serializing_if = "Drift::is_none")]
    pub drift: Drift,
    /// Steps between evaluations that a weight sampler with feedback is told of; 0 never.
    #[serde(default = "feedback_every")]
    #[schemars(range(max = 1_000_000_000))]
    pub feedback_every: usize,
    /// Training prompts of such an evaluation.
    #[serde(default = "feedback_prompts")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub feedback_prompts: usize,
    /// Whether the reference sees x' (the default) or the plain prompt.
    #[serde(default = "yes")]
    pub reference_sees_weights: bool,
    /// How completions are drawn. Log-probs follow the temperature; `top_k` and `top_p` must keep all.
    #[serde(default)]
    pub generate: GenerationConfig,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Train a low-rank adapter instead of all parameters.
    #[serde(default, deserialize_with = "lora", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LoraChoice")]
    pub lora: Option<Lora>,
}

impl Online {
    pub fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![
            Ref::Model(&mut self.policy),
            Ref::Stage(Makes::Rewards, &mut self.rewards),
            Ref::Component(Kind::Sampler, &mut self.sampler),
            Ref::Component(Kind::Conditioner, &mut self.conditioner),
            Ref::Component(Kind::Normaliser, &mut self.normalise),
            Ref::Data(&mut self.prompts),
        ]
    }

    /// `trained` completions of a prompt are in a step's loss, each in so many `passes` through the policy.
    pub fn footprint(&self, known: &Known, trained: usize, passes: usize) -> Result<Footprint> {
        let machine = known.machine;
        let scorers = rewards::scorers(known, &self.rewards)?;
        let read = known.model(&self.policy)?;
        let count = known.others.objectives(&self.rewards).map_or(1, |names| names.len());
        let policy = Trainee::new(read.clone(), self.lora.as_ref(), &self.optimizer, &self.train, machine)?;
        let policy = policy.with_gains_of(count);
        let mut out = Footprint { makes: Some(policy.makes()), ..Footprint::default() };
        let steering = Told::of(known, &self.rewards, &self.conditioner, Some(&self.sampler));
        let steering = steering.map_err(|what| out.uncounted.push(what)).ok();
        let seen = |prompt: &Prompt| steering.as_ref().map_or_else(|| plain(prompt), |told| told.prompt(prompt));
        let longest =
            longest_prompt(&self.prompts, &read, self.generate.max_new_tokens, &seen)?.longest + policy.room();
        let drawing = Drawing {
            prompts: self.train.batch_size as f64,
            longest,
            completions: self.completions as f64,
            sampling: &self.generate,
        };
        let (held, reference) = (scorers.held(machine), policy.reference());
        let beside = held.clone().and(&reference);
        out.moments("loading reward models", scorers.opening(machine));
        out.moments("loading the policy", policy.opening(&read).into_iter().map(|parts| parts.and(&held)));
        out.moment("drawing", policy.computing().and(&beside).and(&drawing.parts(&read, machine)));
        out.moment("scoring", policy.held().and(&beside).and(&scorers.scoring(&drawing, machine)));
        let targets = (trained * self.generate.max_new_tokens) as f64;
        let update = policy.update(longest + targets, targets);
        let update = update.times(passes, [Part::Activations, Part::Freed, Part::Logits]);
        out.moment("update", update.and(&beside));
        out.moment("optimizer step", policy.stepping().and(&beside));
        out.moments("merging", policy.merging().map(|parts| parts.and(&beside)));
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    pub fn check_among(&self, earlier: &[Stage]) -> Checked {
        self.drift.check_among(&self.rewards, earlier)
    }

    /// Whether scores are trained on as their scale makes them.
    pub fn keeps_scores(&self) -> bool {
        is_nothing(&self.normalise)
    }

    pub fn normaliser(&self, registry: &Registry) -> motrain_core::Result<Box<dyn Normaliser>> {
        registry.normalisers.build(&self.normalise.name, &self.normalise.options)
    }

    pub fn check_with(&self, registry: &Registry) -> Checked {
        // One that cannot be built is refused where components are.
        let least = self.normaliser(registry).map_or(1, |normaliser| normaliser.least());
        if self.completions < least {
            let Component { name, .. } = &self.normalise;
            let what = format!(
                "is \"{name}\", which compares the completions of a prompt, and there is {}; draw more, or take \"running\"",
                self.completions
            );
            return Err(("normalise", what));
        }
        Ok(())
    }

    pub fn check(&self) -> Checked {
        self.lora.iter().try_for_each(|lora| lora.check(true))?;
        let GenerationConfig { temperature, top_k, top_p, .. } = self.generate;
        if temperature == 0.0 {
            let what = "has temperature = 0, which draws always the same completion; training needs one above 0";
            return Err(("generate", what.into()));
        }
        if top_k > 0 || top_p < 1.0 {
            let what = format!(
                "cuts away unlikely tokens (top_k = {top_k}, top_p = {top_p}), but the log-probs that training moves are of all tokens; \
                 set top_k = 0 and top_p = 1, and cut where the policy is evaluated (evaluation_generate of a task)"
            );
            return Err(("generate", what));
        }
        Ok(())
    }
}

fn nothing() -> Component {
    Named::Name(NONE.into()).into()
}

fn is_nothing(normalise: &Component) -> bool {
    normalise.name == NONE
}

fn feedback_every() -> usize {
    25
}

fn feedback_prompts() -> usize {
    16
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use crate::stage::online_preference::OnlinePreference;
    use crate::stage::reinforce::Reinforce;
    use motrain_core::options::parse;
    use serde_json::{Value, json};

    fn refused(changes: Value) -> String {
        let mut options = json!({
            "policy": "p", "prompts": { "paths": ["x.jsonl"] }, "rewards": "r", "sampler": { "name": "fixed" },
            "conditioner": { "name": "none" }, "label": { "name": "weighted_sum" }, "loss": { "name": "dpo" },
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        let said = |e: motrain_core::Error| e.to_string();
        let preference = parse::<OnlinePreference>("online_preference", &options).err().map(said).unwrap_or_default();
        options.as_object_mut().unwrap().retain(|name, _| name != "label" && name != "loss");
        let reinforce = parse::<Reinforce>("reinforce", &options).err().map(said).unwrap_or_default();
        assert_eq!(reinforce, preference.replace("online_preference", "reinforce"));
        preference
    }

    #[test]
    fn training_draws_from_the_whole_distribution() {
        assert_eq!(refused(json!({ "generate": { "temperature": 0.7 } })), "");
        let cut = refused(json!({ "generate": { "top_p": 0.9 } }));
        assert_eq!(
            cut,
            "online_preference: option \"generate\" cuts away unlikely tokens (top_k = 0, top_p = 0.9), but the log-probs that training \
             moves are of all tokens; set top_k = 0 and top_p = 1, and cut where the policy is evaluated (evaluation_generate of a task)"
        );
        assert_eq!(
            refused(json!({ "generate": { "top_k": 40 } })),
            cut.replace("top_k = 0, top_p = 0.9", "top_k = 40, top_p = 1")
        );
        assert!(
            refused(json!({ "generate": { "temperature": 0.0 } }))
                .contains("has temperature = 0, which draws always the same")
        );
        assert!(refused(json!({ "missing_eos_penalty": -1.0 })).contains("\"missing_eos_penalty\" must be"));
    }

    /// Weights that are all the same cannot be contrasted.
    #[test]
    fn a_contrast_needs_weights_that_differ() {
        let refused = |changes: Value| {
            let mut options = json!({
                "policy": "p", "prompts": { "paths": ["x.jsonl"] }, "rewards": "r", "sampler": { "name": "grid" }, "info_nce": 0.01,
                "conditioner": { "name": "none" }, "label": { "name": "weighted_sum" }, "loss": { "name": "dpo" },
            });
            options.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            parse::<OnlinePreference>("online_preference", &options).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let of = ["nothing", "one weight", "a batch of one", "a fixed sampler", "a negative one"];
        let changes = [
            json!({}),
            json!({ "one_weight_per_batch": true }),
            json!({ "train": { "batch_size": 1 } }),
            json!({ "sampler": { "name": "fixed", "options": { "weights": [0.5, 0.5] } } }),
            json!({ "info_nce": -0.1 }),
        ];
        let told = of.iter().zip(changes).map(|(of, changes)| format!("{of}: {}", refused(changes)));
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
    }
}
