//! The plan: what a script's value is. Plain data, a graph of stages joined by their ids, checked before any work.

mod check;
mod evaluate;
mod online;
mod samples;
mod shared;
mod train;

pub use evaluate::{Adapters, Compare, Dimension, Evaluate, PolicyAt, Soup, Specialists};
pub use online::{Baseline, Online, OnlinePreference, Reinforce};
pub use samples::{BestOfN, Reward, Rewards, RicData};
pub use shared::{
    Component, ModelRef, Optimizer, OptimizerName, PluginFile, Sampling, Schedule, ScriptSource, Training,
};
pub use train::{InitModel, RewardModel, Sft};

use crate::data::DataSpec;
use crate::error::{Error, Result, did_you_mean};
use crate::options::{parse, schema_of};
use crate::registry::Kind;
use crate::rng::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Seconds after which a call into one of them is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_seconds: Option<f64>,
    /// Only where functions of the script are components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptSource>,
    pub stages: Vec<Stage>,
}

/// A stage's id is the name of its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Stage {
    pub id: String,
    #[serde(flatten)]
    pub work: Work,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Serialize)]
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

/// A kind of stage: its name in scripts and plans, and how its options are read.
pub struct StageKind {
    pub name: &'static str,
    pub schema: fn() -> Value,
    read: fn(&str, &Value) -> Result<Work>,
}

macro_rules! kind {
    ($name:literal, $kind:ident) => {
        StageKind {
            name: $name,
            schema: schema_of::<$kind>,
            read: |owner, options| Ok(Work::$kind(parse(owner, options)?)),
        }
    };
}

pub const KINDS: &[StageKind] = &[
    kind!("init_model", InitModel),
    kind!("sft", Sft),
    kind!("reward_model", RewardModel),
    kind!("rewards", Rewards),
    kind!("best_of_n", BestOfN),
    kind!("ric_data", RicData),
    kind!("online_preference", OnlinePreference),
    kind!("reinforce", Reinforce),
    kind!("soup", Soup),
    kind!("evaluate", Evaluate),
    kind!("compare", Compare),
];

impl Stage {
    /// A stage with checked id and options; errors speak of `kind("id")`, as scripts write it.
    pub fn read(kind: &str, id: &str, options: &Value) -> Result<Self> {
        let Some(found) = KINDS.iter().find(|k| k.name == kind) else {
            let near = did_you_mean(kind, KINDS.iter().map(|k| k.name));
            return Err(Error::Invalid(format!("stage \"{id}\" is of no known kind: \"{kind}\"{near}")));
        };
        if !(1..=100).contains(&id.len()) || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            let id: String = id.chars().take(100).collect();
            let what = format!("{id:?} is no stage id; use up to 100 letters, digits, - and _");
            return Err(Error::Invalid(what));
        }
        Ok(Self { id: id.to_owned(), work: (found.read)(&format!("{kind}(\"{id}\")"), options)? })
    }
}

impl TryFrom<Value> for Stage {
    type Error = Error;

    fn try_from(mut stage: Value) -> Result<Self> {
        let mut text = |key: &str| match stage.as_object_mut().and_then(|s| s.shift_remove(key)) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Error::Invalid(format!("a stage needs \"{key}\", a text"))),
        };
        let (id, kind) = (text("id")?, text("kind")?);
        Self::read(&kind, &id, &stage)
    }
}

/// What a stage leaves for later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    Policy,
    RewardModel,
    Rewards,
    Samples,
    /// Of `ric_data` only.
    ScoredSamples,
    /// Of an offline `ric_data` only.
    Statistics,
    Front,
}

/// What a stage refers to: the plan checks it, orders stages by it, and makes hashes of it.
pub trait Uses {
    fn components(&self) -> Vec<(Kind, &Component)> {
        vec![]
    }

    fn models(&self) -> Vec<&ModelRef> {
        vec![]
    }

    /// Ids of the stages whose results other than models it reads, and what it wants of them.
    fn stages(&self) -> Vec<(Makes, &str)> {
        vec![]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![]
    }

    /// Further files.
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

    pub fn makes(&self) -> &'static [Makes] {
        match self {
            Work::InitModel(_) | Work::Sft(_) | Work::OnlinePreference(_) | Work::Reinforce(_) | Work::Soup(_) => {
                &[Makes::Policy]
            }
            Work::RewardModel(_) => &[Makes::RewardModel],
            Work::Rewards(_) => &[Makes::Rewards],
            Work::BestOfN(_) => &[Makes::Samples],
            Work::RicData(r) if r.goals.is_none() => &[Makes::Samples, Makes::ScoredSamples, Makes::Statistics],
            Work::RicData(_) => &[Makes::Samples, Makes::ScoredSamples],
            Work::Evaluate(_) => &[Makes::Front],
            Work::Compare(_) => &[],
        }
    }

    /// Whether the stage trains a policy, or mixes one.
    pub fn makes_policy(&self) -> bool {
        matches!(self, Work::Sft(_) | Work::OnlinePreference(_) | Work::Reinforce(_) | Work::Soup(_))
    }

    /// The components that the stage uses.
    pub fn components(&self) -> Vec<(Kind, &Component)> {
        self.uses().components()
    }

    /// The stages that this one needs.
    pub fn needs(&self) -> Vec<&str> {
        self.wants().into_iter().map(|(_, id)| id).collect()
    }

    /// The stages that this one needs, with what they must make; plugins may take what they like.
    fn wants(&self) -> Vec<(Option<Makes>, &str)> {
        let models = self.uses().models().into_iter().filter_map(|m| match m {
            ModelRef::Stage { stage } => Some((Some(Makes::Policy), stage.as_str())),
            ModelRef::Path(_) => None,
        });
        let stages = self.uses().stages().into_iter().map(|(makes, id)| (Some(makes), id));
        let inner = self.components().into_iter().flat_map(|(_, c)| {
            let makes = match c.name.as_str() {
                "reward_model" => Some(Makes::RewardModel),
                "rewards_in_context" => Some(Makes::Statistics),
                _ => None,
            };
            stage_refs(&c.options).into_iter().map(move |id| (makes, id))
        });
        models.chain(stages).chain(inner).collect()
    }

    /// Files and folders that the stage reads.
    pub fn inputs(&self) -> Vec<&str> {
        self.folders().into_iter().chain(self.files()).collect()
    }

    /// Model folders that the stage reads.
    fn folders(&self) -> Vec<&str> {
        let models = self.uses().models().into_iter().filter_map(|m| match m {
            ModelRef::Path(path) => Some(path.as_str()),
            ModelRef::Stage { .. } => None,
        });
        let scorers = self.components().into_iter().filter(|(_, c)| c.name == "reward_model");
        models.chain(scorers.filter_map(|(_, c)| c.options.get("model")?.as_str())).collect()
    }

    /// Files that the stage reads.
    fn files(&self) -> Vec<&str> {
        let data = self.uses().data().into_iter().flat_map(|d| &d.paths).map(String::as_str);
        data.chain(self.uses().files()).collect()
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
