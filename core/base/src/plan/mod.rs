//! The plan: what a script's value is. Plain data, a graph of stages joined by their ids, checked before any work.

mod evaluate;
mod online;
mod samples;
mod shared;
mod train;

pub use evaluate::{Adapters, Compare, Dimension, Evaluate, PolicyAt, Soup, Specialists};
pub use online::{Baseline, Online, OnlinePreference, Reinforce};
pub use samples::{BestOfN, Reward, Rewards, RicData};
pub use shared::{Component, ModelRef, Optimizer, PluginFile, Sampling, ScriptSource, Training};
pub use train::{InitModel, RewardModel, Sft};

use crate::data::DataSpec;
use crate::error::{Error, Result};
use crate::registry::{Kind, Registry};
use crate::rng::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub seed: u64,
    /// "cpu", "cuda" or "cuda:N".
    pub device: String,
    /// Compute type: "auto", "f32" or "bf16"; master weights are always f32.
    pub dtype: String,
    /// The libraries whose components the plan uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginFile>,
    /// Only where functions of the script are components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptSource>,
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub id: String,
    #[serde(flatten)]
    pub work: Work,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    InitModel(InitModel),
    Sft(Sft),
    RewardModel(RewardModel),
    Rewards(Rewards),
    BestOfN(BestOfN),
    RicData(RicData),
    OnlinePreference(OnlinePreference),
    Reinforce(Reinforce),
    Soup(Soup),
    Evaluate(Evaluate),
    Compare(Compare),
}

/// What a stage refers to: the plan checks it, orders stages by it, and makes hashes of it.
pub trait Uses {
    fn components(&self) -> Vec<(Kind, &Component)> {
        vec![]
    }

    fn models(&self) -> Vec<&ModelRef> {
        vec![]
    }

    /// Ids of the stages whose results other than models it reads.
    fn stages(&self) -> Vec<&str> {
        vec![]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![]
    }

    /// Further files and folders.
    fn files(&self) -> Vec<&str> {
        vec![]
    }
}

impl Work {
    fn uses(&self) -> &dyn Uses {
        match self {
            Work::InitModel(s) => s,
            Work::Sft(s) => s,
            Work::RewardModel(s) => s,
            Work::Rewards(s) => s,
            Work::BestOfN(s) => s,
            Work::RicData(s) => s,
            Work::OnlinePreference(s) => s,
            Work::Reinforce(s) => s,
            Work::Soup(s) => s,
            Work::Evaluate(s) => s,
            Work::Compare(s) => s,
        }
    }

    /// Whether the stage makes a policy.
    pub fn makes_policy(&self) -> bool {
        matches!(self, Work::Sft(_) | Work::OnlinePreference(_) | Work::Reinforce(_) | Work::Soup(_))
    }

    /// The components that the stage uses.
    pub fn components(&self) -> Vec<(Kind, &Component)> {
        self.uses().components()
    }

    /// The stages that this one needs.
    pub fn needs(&self) -> Vec<&str> {
        let models = self.uses().models().into_iter().filter_map(|m| match m {
            ModelRef::Stage { stage } => Some(stage.as_str()),
            ModelRef::Path(_) => None,
        });
        let inner = self.components().into_iter().flat_map(|(_, c)| stage_refs(&c.options));
        models.chain(self.uses().stages()).chain(inner).collect()
    }

    /// Files and folders that the stage reads.
    pub fn inputs(&self) -> Vec<&str> {
        let models = self.uses().models().into_iter().filter_map(|m| match m {
            ModelRef::Path(path) => Some(path.as_str()),
            ModelRef::Stage { .. } => None,
        });
        let data = self.uses().data().into_iter().flat_map(|d| &d.paths).map(String::as_str);
        models.chain(data).chain(self.uses().files()).collect()
    }
}

/// The ids in `{"stage": id}` values of a component's options.
fn stage_refs(options: &Value) -> Vec<&str> {
    match options {
        Value::Object(map) => match map.get("stage") {
            Some(Value::String(id)) if map.len() == 1 => vec![id],
            _ => map.values().flat_map(stage_refs).collect(),
        },
        Value::Array(list) => list.iter().flat_map(stage_refs).collect(),
        _ => vec![],
    }
}

impl Plan {
    /// Checks that stages refer to earlier ones and that every component exists and takes its options.
    pub fn check(&self, registry: &Registry) -> Result<()> {
        let mut seen: Vec<&Stage> = Vec::new();
        for stage in &self.stages {
            if seen.iter().any(|s| s.id == stage.id) {
                return Err(Error::Invalid(format!("two stages are called \"{}\"; rename one", stage.id)));
            }
            for id in stage.work.needs() {
                if !seen.iter().any(|s| s.id == id) {
                    return Err(Error::Invalid(format!(
                        "stage \"{}\" needs \"{id}\", which is no earlier stage",
                        stage.id
                    )));
                }
            }
            check_components(&stage.work, registry)?;
            seen.push(stage);
        }
        Ok(())
    }

    pub fn stage(&self, id: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.id == id)
    }

    /// Those of `loaded` that hold a component of some stage.
    pub fn needed_plugins(&self, loaded: &[PluginFile]) -> Vec<PluginFile> {
        let everywhere = self.stages.iter().flat_map(|s| s.work.components());
        let used: Vec<String> = everywhere.map(|(kind, c)| format!("{} {}", kind.name(), c.name)).collect();
        loaded.iter().filter(|p| p.components.iter().any(|c| used.contains(c))).cloned().collect()
    }

    /// Hashes of the libraries that hold components of `work`.
    fn libraries(&self, work: &Work) -> impl Iterator<Item = String> {
        let used: Vec<String> =
            work.components().into_iter().map(|(kind, c)| format!("{} {}", kind.name(), c.name)).collect();
        self.plugins.iter().filter(move |p| p.components.iter().any(|c| used.contains(c))).map(|p| p.sha256.clone())
    }

    /// A hash per stage over its options, its inputs' contents (`fingerprint` of a path), the libraries of its components, the seed, the compute type and the hashes
    /// of the stages it needs: equal hashes mean that a finished stage can be reused.
    pub fn hashes(&self, fingerprint: impl Fn(&str) -> Result<String>) -> Result<BTreeMap<String, String>> {
        let mut hashes: BTreeMap<String, String> = BTreeMap::new();
        for stage in &self.stages {
            let inputs: Vec<String> = stage.work.inputs().into_iter().map(&fingerprint).collect::<Result<_>>()?;
            let needed: Vec<&String> = stage.work.needs().iter().filter_map(|id| hashes.get(*id)).collect();
            let mut text = serde_json::json!([stage, self.seed, self.dtype, self.device, inputs, needed]).to_string();
            text.extend(self.libraries(&stage.work));
            hashes.insert(stage.id.clone(), sha256_hex(text.as_bytes()));
        }
        Ok(hashes)
    }
}

fn check_components(work: &Work, registry: &Registry) -> Result<()> {
    if let Work::Rewards(r) = work {
        if r.objectives().is_empty() {
            return Err(Error::Invalid("rewards: at least one must be an objective (not only watched)".into()));
        }
        for (i, source) in r.sources.iter().enumerate() {
            if r.sources[..i].iter().any(|s| s.name == source.name) {
                return Err(Error::Invalid(format!("two rewards are called \"{}\"; rename one", source.name)));
            }
        }
    }
    work.components().into_iter().try_for_each(|(kind, c)| registry.check(kind, &c.name, &c.options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Plan {
        serde_json::from_value(json!({
            "name": "t", "seed": 1, "device": "cpu", "dtype": "auto",
            "stages": [
                {"id": "rm", "kind": "reward_model", "model": "base", "data": {"paths": ["pairs"]}},
                {"id": "rewards", "kind": "rewards", "policy": "base", "prompts": {"paths": ["p"]},
                 "sources": [{"name": "Short", "source": {"name": "length", "options": {"target": 3}}}]},
                {"id": "eval", "kind": "evaluate", "name": "start", "policy": "base", "prompts": {"paths": ["p"]},
                 "rewards": "rewards", "conditioner": {"name": "none"}}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn checks_references_and_components() {
        let registry = Registry::builtin();
        plan().check(&registry).unwrap();
        let mut wrong = plan();
        wrong.stages.swap(1, 2);
        assert_eq!(
            wrong.check(&registry).unwrap_err().to_string(),
            "stage \"eval\" needs \"rewards\", which is no earlier stage"
        );
    }

    #[test]
    fn a_hash_follows_options_inputs_and_needs() {
        let contents = |path: &str| Ok(format!("contents of {path}"));
        let before = plan().hashes(contents).unwrap();
        assert_eq!(before, plan().hashes(contents).unwrap());
        let mut changed = plan();
        let Work::Rewards(r) = &mut changed.stages[1].work else { panic!() };
        r.samples = 7;
        let after = changed.hashes(contents).unwrap();
        assert_eq!(before["rm"], after["rm"]);
        assert_ne!(before["rewards"], after["rewards"]);
        assert_ne!(before["eval"], after["eval"]);
        let other = plan().hashes(|p| Ok(format!("new {p}"))).unwrap();
        assert_ne!(before["rm"], other["rm"]);
    }
}
