//! What must hold of a plan before any work, wherever it comes from: a script, a run folder, the command line.

use super::{Component, Plan, Stage};
use super::{objectives, stage_refs};
use crate::names;
use crate::stage::Makes;
use motrain_core::error::{Error, Result, did_you_mean};
use motrain_core::registry::{Kind, Registry};
use motrain_core::rng::rng;
use motrain_core::{Prompt, Weights};
use std::path::Path;

const STAGES: usize = 10_000;
/// Draws of a sampler that losses are asked about.
const TRIED: u64 = 64;

impl Plan {
    /// Checks every value, reference and component; the error lists all faults.
    pub fn check(&self, registry: &Registry) -> Result<()> {
        let mut faults: Vec<Error> = self.check_machine().err().into_iter().collect();
        if self.stages.len() > STAGES {
            faults.push(Error::Invalid(format!("{} stages are too many; at most {STAGES}", self.stages.len())));
        }
        for (at, stage) in self.stages.iter().enumerate().take(STAGES) {
            let checks = stage.check_values().and_then(|()| self.check_references(&self.stages[..at], stage));
            faults.extend(checks.and_then(|()| self.try_components(stage, registry)).err());
        }
        Error::all(faults)
    }

    /// Device and compute type, which no script gives.
    pub fn check_machine(&self) -> Result<()> {
        let number = self
            .device
            .strip_prefix("cuda:")
            .map(|n| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
        let mut faults = Vec::new();
        if !number.unwrap_or(["cpu", "cuda"].contains(&self.device.as_str())) {
            faults.push(odd_word("device", &self.device, &["cpu", "cuda", "cuda:1"]));
        }
        if !["auto", "f32", "bf16"].contains(&self.dtype.as_str()) {
            faults.push(odd_word("dtype", &self.dtype, &["auto", "f32", "bf16"]));
        }
        Error::all(faults)
    }

    /// Appends a stage that fits those before it.
    pub fn add(&mut self, stage: Stage) -> Result<()> {
        self.check_references(&self.stages, &stage)?;
        self.stages.push(stage);
        Ok(())
    }

    /// Inputs that are not there, a line each.
    pub fn missing_inputs(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stage in &self.stages {
            let models = stage.folders(&self.plugins).into_iter().filter_map(|path| match Path::new(&path) {
                folder
                    if ["config.json", "adapter_config.json", names::STEERING]
                        .iter()
                        .any(|f| folder.join(f).is_file()) =>
                {
                    None
                }
                folder if folder.is_dir() => {
                    Some(format!("model {path} is no Hugging Face folder: it has no config.json"))
                }
                file if file.exists() => Some(format!(
                    "model {path} is a file, not a Hugging Face folder (`motrain import` makes one of a GGUF file)"
                )),
                _ => Some(format!("model {path} does not exist")),
            });
            let files = stage.files().into_iter().filter_map(|path| match Path::new(&path) {
                file if file.is_dir() => Some(format!("{path} is a folder, not a file")),
                file if file.exists() => None,
                _ => Some(format!("{path} does not exist")),
            });
            lines.extend(models.chain(files).map(|what| format!("stage \"{}\": {what}", stage.id)));
        }
        lines.dedup();
        lines
    }

    fn check_references(&self, earlier: &[Stage], stage: &Stage) -> Result<()> {
        let id = &stage.id;
        if earlier.iter().any(|s| s.id == *id) {
            return Err(Error::Invalid(format!("there is a stage \"{id}\" already; give this one another id")));
        }
        let mut faults = Vec::new();
        for (makes, needed) in stage.wants() {
            let found = earlier.iter().find(|s| s.id == needed);
            let what = match (found, makes) {
                (None, _) => format!("needs \"{needed}\", which is no earlier stage"),
                (Some(found), Some(Makes::Policy)) if is_scored(found) && stage.work.takes_scored() => continue,
                (Some(found), Some(makes)) if !found.work.makes().contains(&makes) => {
                    format!("refers to \"{needed}\", which makes no {}", makes.words())
                }
                (Some(found), Some(Makes::Policy)) if is_steered(found) && !stage.work.takes_steered() => format!(
                    "takes \"{needed}\" for one model, and its policy is steered by its parameters; evaluate it as a policy, or train one \
                     without `lora.gains` and `lora.soft_tokens`"
                ),
                _ => continue,
            };
            faults.push(Error::Invalid(format!("stage \"{id}\" {what}")));
        }
        for (needed, epoch) in stage.kept() {
            let trains = earlier.iter().find(|s| s.id == needed).and_then(|s| s.work.trains());
            if trains.is_none_or(|trains| !trains.train.keep.contains(&epoch)) {
                faults.push(Error::Invalid(format!(
                    "stage \"{id}\" takes \"{needed}\" after {epoch} epochs, which it does not keep; add {epoch} to its `train.keep`"
                )));
            }
        }
        faults.extend(stage.void_data().into_iter().map(Error::Invalid));
        Error::all(faults)?;
        let kept = stage.work.trains().map_or(Ok(()), |trains| trains.train.check_kept());
        kept.and_then(|()| stage.work.check_among(earlier)).map_err(|(option, what)| Error::BadOption {
            owner: format!("stage \"{id}\""),
            option: option.into(),
            what,
        })
    }

    /// Builds what is light, and lets it do its work once on as many objectives as there are.
    fn try_components(&self, stage: &Stage, registry: &Registry) -> Result<()> {
        let mut faults = Vec::new();
        let objectives = stage.rewards().and_then(|id| objectives(&self.stages, &id));
        for (kind, component) in stage.components() {
            let tried = || {
                registry.check(kind, &component.name, &component.options)?;
                match (&objectives, stage_refs(&component.options).is_empty()) {
                    (Some(names), true) => try_out(registry, kind, &component, names),
                    _ => Ok(()),
                }
            };
            faults.extend(tried().err().map(|e| Error::Invalid(format!("stage \"{}\": {e}", stage.id))));
        }
        if let Some(names) = &objectives {
            let tried = try_losses(registry, &stage.components(), names.len(), self.seed);
            faults.extend(tried.err().map(|e| Error::Invalid(format!("stage \"{}\": {e}", stage.id))));
        }
        faults.extend(stage.check_with(registry).err());
        Error::all(faults)
    }
}

fn is_scored(stage: &Stage) -> bool {
    stage.work.makes().contains(&Makes::RewardModel)
}

/// Whether the policy that a stage trains is steered by its parameters.
fn is_steered(stage: &Stage) -> bool {
    stage.work.trains().is_some_and(|trains| trains.lora.is_some_and(crate::plan::Lora::is_steered))
}

impl Stage {
    /// Whether the values make sense, also of a stage that was made or changed in Rust.
    fn check_values(&self) -> Result<()> {
        let json = serde_json::to_value(self).map_err(|e| Error::Invalid(format!("stage \"{}\": {e}", self.id)))?;
        Stage::try_from(json).map(|_| ())
    }
}

/// Whether the losses of a stage have a value at the weights that its sampler will draw.
fn try_losses(registry: &Registry, components: &[(Kind, Component)], objectives: usize, seed: u64) -> Result<()> {
    let of = |wanted: Kind| components.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, component)| component);
    let built = |c: &Component| registry.losses.build(&c.name, &c.options).ok();
    let losses: Vec<_> = of(Kind::Loss).filter_map(built).collect();
    for Component { name, options } in of(Kind::Sampler) {
        let Some(sampler) = registry.samplers.build(name, options).ok() else { continue };
        for i in 0..TRIED {
            // What a sampler cannot do is said where it is tried.
            let Ok(weights) = sampler.sample(objectives, i, &mut rng(seed, "weights", i)) else { break };
            losses.iter().try_for_each(|loss| loss.check_weights(&weights)).map_err(Error::Invalid)?;
        }
    }
    Ok(())
}

/// A call of a sampler, a conditioner at corners and halves of the simplex, or a label rule.
fn try_out(registry: &Registry, kind: Kind, component: &Component, objectives: &[String]) -> Result<()> {
    let Component { name, options } = component;
    let places = Weights::grid(objectives.len(), 2);
    match kind {
        Kind::Sampler => {
            registry.samplers.build(name, options)?.sample(objectives.len(), 0, &mut rng(0, "check", 0)).map(|_| ())
        }
        Kind::Conditioner => {
            let built = registry.conditioners.build(name, options)?;
            places.iter().try_for_each(|w| built.render(objectives, w, &Prompt::user("Hello")).map(|_| ()))
        }
        Kind::Label => {
            let (low, high) = (vec![0.0; objectives.len()], vec![1.0; objectives.len()]);
            registry.labels.build(name, options)?.label(&places[0], &low, &high).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn odd_word(key: &str, word: &str, known: &[&str]) -> Error {
    let near = did_you_mean(word, known.iter().copied());
    let known: Vec<String> = known.iter().map(|k| format!("\"{k}\"")).collect();
    Error::Invalid(format!("{key} is {word:?}; it can be {}{near}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::evaluate::Evaluate;
    use serde_json::{Value, json};

    fn stages() -> Vec<Value> {
        let prompts = json!({"paths": ["p"]});
        vec![
            json!({"id": "rm", "kind": "reward_model", "model": "base", "data": {"paths": ["pairs"]}}),
            json!({"id": "rewards", "kind": "rewards", "policy": "base", "prompts": prompts, "sources": [
                {"name": "Short", "source": {"name": "length", "options": {"target": 3}}},
                {"name": "Long", "source": {"name": "length"}},
            ]}),
            json!({"id": "eval", "kind": "evaluate", "name": "start", "policy": "base", "prompts": prompts,
                   "rewards": "rewards", "conditioner": {"name": "none"}}),
            json!({"id": "again", "kind": "evaluate", "name": "again", "policy": "base", "prompts": prompts,
                   "rewards": "rewards", "conditioner": {"name": "weight_prefix"}}),
            json!({"id": "compare", "kind": "compare", "method": "again", "against": ["eval"], "dimensions": [
                {"name": "Short", "weights": [0.8, 0.2], "judge": {"name": "gold", "options": {"score": "hh_helpful"}}},
                {"name": "Long", "weights": [0.2, 0.8], "judge": {"name": "gold", "options": {"score": "hh_helpful"}}},
            ]}),
        ]
    }

    /// What reading and checking the plan says, with the value at `pointer` of the stages changed.
    fn said(pointer: &str, value: Value) -> String {
        let mut all = Value::Array(stages());
        if !pointer.is_empty() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            all.pointer_mut(parent).unwrap()[key] = value;
        }
        said_of(all)
    }

    fn said_of(all: Value) -> String {
        let plan = json!({"name": "t", "seed": 1, "device": "cpu", "dtype": "auto", "stages": all});
        let checked = serde_json::from_value::<Plan>(plan).map_err(|e| e.to_string());
        let mut registry = Registry::builtin();
        motrain_tasks::register(&mut registry).unwrap();
        let checked = checked.and_then(|p| p.check(&registry).map_err(|e| e.to_string()));
        checked.err().unwrap_or_default()
    }

    #[test]
    fn references_are_to_earlier_stages_that_make_what_is_wanted() {
        assert_eq!(said("", Value::Null), "");
        let refused = [
            ("/2/rewards", json!("later"), "stage \"eval\" needs \"later\", which is no earlier stage"),
            (
                "/2/rewards",
                json!("rm"),
                "stage \"eval\" refers to \"rm\", which makes no rewards; name a rewards stage",
            ),
            ("/2/policy", json!({"stage": "rm"}), "stage \"eval\" refers to \"rm\", which makes no policy"),
            ("/4/against", json!(["rewards"]), "stage \"compare\" refers to \"rewards\", which makes no front"),
            ("/3/id", json!("eval"), "there is a stage \"eval\" already; give this one another id"),
            ("/3/weights", json!([[1.0]]), "option \"weights\" [1.0] has 1 weights for 2 objectives"),
            ("/3/step", json!(1e-5), "option \"step\" is 0.00001, a grid of more than 100000 points for 2 objectives"),
            (
                "/3/prompts/limit",
                json!(9),
                "option \"against\" names \"eval\", whose prompts are not those of \"again\"",
            ),
            ("/3/step", json!(0.25), "option \"dimensions\" hold [0.8, 0.2], at which \"again\" is not evaluated"),
            (
                "/3/conditioner",
                json!({"name": "instructions", "options": {"sentences": {"Short": ["a", "b"]}}}),
                "stage \"again\": conditioner \"instructions\": option \"sentences\" has none for \"Long\"",
            ),
            (
                "/2/prompts",
                json!({"paths": ["p"], "part": "test", "test_share": 0.0}),
                "the test part of p is empty, since test_share is 0",
            ),
        ];
        for (pointer, value, expected) in refused {
            let message = said(pointer, value);
            assert!(message.contains(expected), "{pointer}: {message}");
        }
    }

    #[test]
    fn a_reward_model_may_begin_with_the_layers_of_another() {
        let of_another =
            json!({"id": "more", "kind": "reward_model", "model": {"stage": "rm"}, "data": {"paths": ["pairs"]}});
        let with = |stage: Value| said_of(json!([&stages()[..1], &[stage], &stages()[1..]].concat()));
        assert_eq!(with(of_another), "");
        let tuned = json!({"id": "tuned", "kind": "sft", "model": {"stage": "rm"}, "data": {"paths": ["rows"]}});
        let message = with(tuned);
        assert!(message.contains("stage \"tuned\" refers to \"rm\", which makes no policy"), "{message}");
    }

    #[test]
    fn a_stage_id_is_a_plain_name() {
        for id in ["", ".", "..", "../../escaped", "/etc", "a/b", "a\\b", "a\nb", "a.b", "ä", &"a".repeat(101)] {
            let message = said("/0/id", json!(id));
            assert!(message.contains("is no stage id; use up to 100 letters, digits, - and _"), "{id}: {message}");
        }
        let message = said("/0/kind", json!("reward_modle"));
        assert_eq!(message, "stage \"rm\" is of no known kind: \"reward_modle\"; did you mean \"reward_model\"?");
    }

    #[test]
    fn devices_and_types_are_known() {
        let check = |device: &str, dtype: &str| {
            let plan = json!({"name": "t", "seed": 1, "device": device, "dtype": dtype, "stages": []});
            let plan: Plan = serde_json::from_value(plan).unwrap();
            plan.check_machine().err().map(|e| e.to_string()).unwrap_or_default()
        };
        for device in ["cpu", "cuda", "cuda:0", "cuda:7"] {
            assert_eq!(check(device, "bf16"), "");
        }
        for device in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:9999"] {
            assert!(check(device, "auto").starts_with(&format!("device is {device:?}; it can be")), "{device}");
        }
        let both = check("cpuu", "fp16");
        assert_eq!(
            both,
            "device is \"cpuu\"; it can be \"cpu\", \"cuda\", \"cuda:1\"; did you mean \"cpu\"?\n\
             dtype is \"fp16\"; it can be \"auto\", \"f32\", \"bf16\"; did you mean \"bf16\"?"
        );
    }

    #[test]
    fn values_changed_in_rust_are_checked_too() {
        let plan = json!({"name": "t", "seed": 1, "device": "cpu", "dtype": "auto", "stages": stages()});
        let mut plan: Plan = serde_json::from_value(plan).unwrap();
        plan.stages[2].change::<Evaluate>(|e| (e.generate.temperature, e.prompts.limit) = (f64::NAN, Some(0)));
        let message = plan.check(&Registry::builtin()).unwrap_err().to_string();
        assert!(
            message.contains("evaluate(\"eval\"): option \"generate.temperature\" must be a number, not null"),
            "{message}"
        );
        assert!(
            message.contains("evaluate(\"eval\"): option \"prompts.limit\" must be at least 1, not 0"),
            "{message}"
        );
    }
}
