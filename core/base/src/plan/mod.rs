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
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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
    /// Where relative paths begin: the working directory in which the plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
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

    /// The paths of all files and folders: of models, data and the further ones.
    fn paths_mut(&mut self) -> Vec<&mut String> {
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

    /// The paths of what the stage reads.
    pub fn paths_mut(&mut self) -> Vec<&mut String> {
        match self {
            Work::InitModel(s) => s.paths_mut(),
            Work::Sft(s) => s.paths_mut(),
            Work::RewardModel(s) => s.paths_mut(),
            Work::Rewards(s) => s.paths_mut(),
            Work::BestOfN(s) => s.paths_mut(),
            Work::RicData(s) => s.paths_mut(),
            Work::OnlinePreference(s) => s.paths_mut(),
            Work::Reinforce(s) => s.paths_mut(),
            Work::Soup(s) => s.paths_mut(),
            Work::Evaluate(s) => s.paths_mut(),
            Work::Compare(s) => s.paths_mut(),
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
    /// The plan as it is read in another working directory: its relative paths then lead from where it was made or, where nothing lies
    /// there any more, from `here`.
    pub fn read_in(mut self, here: &Path) -> Self {
        let Some(home) = self.directory.clone().map(PathBuf::from).filter(|home| home != here) else { return self };
        for path in self.stages.iter_mut().flat_map(|s| s.work.paths_mut()) {
            let (there, beside) = (home.join(&*path), here.join(&*path));
            let found = if !there.exists() && beside.exists() { beside } else { there };
            *path = found.to_string_lossy().into_owned();
        }
        self
    }

    /// The stages that these need, directly or through others, and these.
    pub fn behind<'a>(&'a self, ids: &'a [String]) -> BTreeSet<&'a str> {
        let mut all: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        for stage in self.stages.iter().rev() {
            if all.contains(stage.id.as_str()) {
                all.extend(stage.work.needs());
            }
        }
        all
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
        let own = self.plugins.iter().filter(move |p| p.components.iter().any(|c| used.contains(c)));
        own.flat_map(|p| std::iter::once(&p.sha256).chain(p.needs.values())).cloned()
    }

    /// A hash per stage over its options, in which each path stands for what is there (`fingerprint`), the revision of the code that it runs
    /// through, the libraries of its components, the seed, the device, the compute type, and the hashes of the stages it needs: equal
    /// hashes mean that a finished stage can be reused.
    pub fn hashes<R: Serialize>(
        &self,
        fingerprint: impl Fn(&str) -> Result<String>,
        revision: impl Fn(&Work) -> R,
    ) -> Result<BTreeMap<String, String>> {
        let mut hashes: BTreeMap<String, String> = BTreeMap::new();
        for stage in &self.stages {
            let needed: Vec<&String> = stage.work.needs().iter().filter_map(|id| hashes.get(*id)).collect();
            let mut read = stage.clone();
            for path in read.work.paths_mut() {
                *path = fingerprint(path)?;
            }
            let libraries: Vec<String> = self.libraries(&stage.work).collect();
            let all = (read, revision(&stage.work), self.seed, &self.dtype, &self.device, needed, libraries);
            hashes.insert(stage.id.clone(), sha256_hex(serde_json::json!(all).to_string().as_bytes()));
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
    fn a_hash_follows_options_inputs_code_and_needs() {
        let contents = |path: &str| Ok(format!("contents of {path}"));
        let hashes = |plan: &Plan| plan.hashes(contents, |_| 1).unwrap();
        let before = hashes(&plan());
        assert_eq!(before, hashes(&plan()));
        let mut changed = plan();
        let Work::Rewards(r) = &mut changed.stages[1].work else { panic!() };
        r.samples = 7;
        let after = hashes(&changed);
        assert_eq!(before["rm"], after["rm"]);
        assert_ne!(before["rewards"], after["rewards"]);
        assert_ne!(before["eval"], after["eval"]);
        let other = plan().hashes(|p| Ok(format!("new {p}")), |_| 1).unwrap();
        assert_ne!(before["rm"], other["rm"]);
        let revised = plan().hashes(contents, |w| u32::from(matches!(w, Work::Evaluate(_)))).unwrap();
        assert_ne!(before["eval"], revised["eval"]);
    }

    #[test]
    fn relative_paths_lead_from_where_the_plan_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let (made, here) = (folder.path().join("made"), folder.path().join("here"));
        for file in [made.join("base"), made.join("p"), here.join("p"), here.join("pairs")] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let plan = Plan { directory: Some(made.to_string_lossy().into_owned()), ..plan() };
        assert_eq!(plan.clone().read_in(&made), plan);
        let read = plan.read_in(&here);
        let inputs: Vec<&str> = read.stages.iter().flat_map(|s| s.work.inputs()).collect();
        let (base, p, pairs) = (made.join("base"), made.join("p"), here.join("pairs"));
        assert_eq!(inputs, [&base, &pairs, &base, &p, &base, &p].map(|p| p.to_str().unwrap()));
    }

    #[test]
    fn behind_an_evaluation_are_the_stages_that_it_needs() {
        assert_eq!(plan().behind(&["eval".to_owned()]), BTreeSet::from(["eval", "rewards"]));
        assert_eq!(plan().behind(&["rm".to_owned()]), BTreeSet::from(["rm"]));
    }

    /// Every path that a stage reads is one that its hash looks behind.
    #[test]
    fn a_hash_does_not_follow_where_inputs_lie() {
        let all = json!({
            "name": "t", "seed": 1, "device": "cpu", "dtype": "auto",
            "stages": [
                {"id": "a", "kind": "init_model", "corpus": ["x/c"], "vocab_size": 260, "hidden_size": 8, "intermediate_size": 8,
                 "layers": 1, "heads": 1, "kv_heads": 1, "context": 8},
                {"id": "b", "kind": "sft", "model": "x/m", "data": {"paths": ["x/d"]}},
                {"id": "c", "kind": "reward_model", "model": "x/m", "data": {"paths": ["x/d"]}, "heldout": {"paths": ["x/h"]}},
                {"id": "d", "kind": "rewards", "policy": "x/m", "prompts": {"paths": ["x/p"]},
                 "sources": [{"name": "R", "source": {"name": "reward_model", "options": {"model": "x/r"}}}]},
                {"id": "e", "kind": "best_of_n", "policy": "x/m", "prompts": {"paths": ["x/p"]}, "rewards": "d",
                 "sampler": {"name": "grid"}, "conditioner": {"name": "none"}},
                {"id": "f", "kind": "ric_data", "policy": "x/m", "prompts": {"paths": ["x/p"]}, "rewards": "d"},
                {"id": "g", "kind": "online_preference", "policy": "x/m", "prompts": {"paths": ["x/p"]}, "rewards": "d",
                 "sampler": {"name": "grid"}, "conditioner": {"name": "none"}, "label": {"name": "weighted_sum"}, "loss": {"name": "dpo"}},
                {"id": "h", "kind": "reinforce", "policy": "x/m", "prompts": {"paths": ["x/p"]}, "rewards": "d",
                 "sampler": {"name": "grid"}, "conditioner": {"name": "none"}},
                {"id": "i", "kind": "soup", "of": {"base": "x/m", "parts": ["x/s"]}, "weights": [1.0]},
                {"id": "j", "kind": "evaluate", "name": "n", "policy": "x/m", "prompts": {"paths": ["x/p"]}, "rewards": "d",
                 "conditioner": {"name": "none"}},
                {"id": "k", "kind": "evaluate", "name": "n", "soup": {"base": "x/m", "parts": ["x/s"]},
                 "prompts": {"paths": ["x/p"]}, "rewards": "d", "conditioner": {"name": "none"}},
                {"id": "l", "kind": "evaluate", "name": "n", "policies": [{"weights": [0.5, 0.5], "policy": "x/s"}],
                 "prompts": {"paths": ["x/p"]}, "rewards": "d", "conditioner": {"name": "none"}}
            ]
        });
        let plan = |text: String| serde_json::from_str::<Plan>(&text).unwrap();
        let (here, there) = (plan(all.to_string()), plan(all.to_string().replace("x/", "/else/where/")));
        let contents = |path: &str| Ok(path.rsplit('/').next().unwrap_or_default().to_owned());
        assert_eq!(here.hashes(contents, |_| 1).unwrap(), there.hashes(contents, |_| 1).unwrap());
        for stage in &here.stages {
            let (mut same, mut inputs) = (stage.work.clone(), stage.work.inputs());
            let mut paths: Vec<String> = same.paths_mut().into_iter().map(|p| p.clone()).collect();
            paths.sort();
            inputs.sort();
            assert_eq!(paths, inputs, "{}", stage.id);
        }
    }
}
