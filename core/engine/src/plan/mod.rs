//! The plan: what a script's value is. Plain data, a graph of stages joined by their ids, checked before any work.

mod check;
mod memory;
mod models;

pub use crate::others::{stage_ref, stage_refs};
pub use crate::stage::{Stage, objectives};
pub use motrain_core::plan::{
    Component, Gains, GenerationConfig, Lora, LoraChoice, ModelRef, Named, Optimizer, OptimizerName, PluginFile,
    Schedule, ScriptSource, StageId, Targets, Training, lora, named,
};

use crate::Result as Engine;
use crate::others::Others;
use crate::session::{Session, Stages};
use crate::stage::AnyWork;
use motrain_core::error::Result;
use motrain_core::rng::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::any::Any;
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

impl Others for Plan {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn ids(&self) -> Vec<&str> {
        self.stages.iter().map(|stage| stage.id.as_str()).collect()
    }

    fn options(&self, id: &str) -> Option<&dyn Any> {
        self.stage(id).map(|stage| stage.work.as_ref() as &dyn Any)
    }

    fn objectives(&self, id: &str) -> Option<Vec<String>> {
        objectives(&self.stages, id)
    }

    fn has_in_a_plugin(&self, component: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.components.iter().any(|own| own == component))
    }
}

impl Stages for Plan {
    fn value(&self, session: &Session, id: &str) -> Option<Engine<Value>> {
        self.stage(id).map(|stage| stage.work.value(session, id))
    }
}

impl Plan {
    /// The plan as it is read in another working directory: its relative paths then lead from where it was made or, where nothing lies
    /// there any more, from `here`.
    pub fn read_in(mut self, here: &Path) -> Self {
        let Some(home) = self.directory.clone().map(PathBuf::from).filter(|home| home != here) else { return self };
        for path in self.stages.iter_mut().flat_map(|stage| stage.paths_mut(&self.plugins)) {
            let (there, beside) = (home.join(&*path), here.join(&*path));
            let found = if !there.exists() && beside.exists() { beside } else { there };
            *path = found.to_string_lossy().into_owned();
        }
        self
    }

    /// The stages that these need, directly or through others, and these.
    pub fn behind(&self, ids: &[String]) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = ids.iter().cloned().collect();
        for stage in self.stages.iter().rev() {
            if all.contains(&stage.id) {
                all.extend(stage.needs());
            }
        }
        all
    }

    /// Files and folders that its stages read.
    pub fn inputs(&self) -> impl Iterator<Item = String> {
        self.stages.iter().flat_map(|stage| stage.inputs(&self.plugins))
    }

    pub fn stage(&self, id: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.id == id)
    }

    /// Those of `loaded` that hold a component of some stage.
    pub fn needed_plugins(&self, loaded: &[PluginFile]) -> Vec<PluginFile> {
        loaded.iter().filter(|p| self.stages.iter().any(|s| s.uses_library(p))).cloned().collect()
    }

    /// A hash per stage over its options, in which each path stands for what is there (`fingerprint`), the revision of the code that it runs
    /// through, the libraries of its components, the seed, the device, the compute type, and the hashes of the stages it needs: equal
    /// hashes mean that a finished stage can be reused.
    pub fn hashes<R: Serialize>(
        &self,
        fingerprint: impl Fn(&str) -> Result<String>,
        revision: impl Fn(&dyn AnyWork) -> R,
    ) -> Result<BTreeMap<String, String>> {
        let mut hashes: BTreeMap<String, String> = BTreeMap::new();
        for stage in &self.stages {
            let needed: Vec<&String> = stage.needs().iter().filter_map(|id| hashes.get(id)).collect();
            let mut read = stage.clone();
            for path in read.paths_mut(&self.plugins) {
                *path = fingerprint(path)?;
            }
            let used = self.plugins.iter().filter(|p| stage.uses_library(p));
            let libraries: Vec<&String> =
                used.flat_map(|p| std::iter::once(&p.sha256).chain(p.needs.values())).collect();
            let all = (read, revision(stage.work.as_ref()), self.seed, &self.dtype, &self.device, needed, libraries);
            hashes.insert(stage.id.clone(), sha256_hex(serde_json::json!(all).to_string().as_bytes()));
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::rewards::Rewards;
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
        changed.stages[1].change::<Rewards>(|r| r.samples = 7);
        let after = hashes(&changed);
        assert_eq!(before["rm"], after["rm"]);
        assert_ne!(before["rewards"], after["rewards"]);
        assert_ne!(before["eval"], after["eval"]);
        let other = plan().hashes(|p| Ok(format!("new {p}")), |_| 1).unwrap();
        assert_ne!(before["rm"], other["rm"]);
        let revised = plan().hashes(contents, |w| u32::from(w.kind() == "evaluate")).unwrap();
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
        let inputs: Vec<String> = read.inputs().collect();
        let (base, p, pairs) = (made.join("base"), made.join("p"), here.join("pairs"));
        assert_eq!(inputs, [&base, &pairs, &base, &p, &base, &p].map(|p| p.to_str().unwrap().to_owned()));
    }

    #[test]
    fn behind_an_evaluation_are_the_stages_that_it_needs() {
        assert_eq!(plan().behind(&["eval".to_owned()]), BTreeSet::from(["eval", "rewards"].map(String::from)));
        assert_eq!(plan().behind(&["rm".to_owned()]), BTreeSet::from(["rm".to_owned()]));
    }

    /// Every path that a stage reads is one that its hash looks behind.
    #[test]
    fn a_hash_does_not_follow_where_inputs_lie() {
        let all = json!({
            "name": "t", "seed": 1, "device": "cpu", "dtype": "auto",
            "plugins": [{"path": "p.so", "sha256": "0", "components": ["reward acme.near"], "folders": {"reward acme.near": ["encoder"]}}],
            "stages": [
                {"id": "a", "kind": "init_model", "corpus": ["x/c"], "vocab_size": 260, "hidden_size": 8, "intermediate_size": 8,
                 "layers": 1, "heads": 1, "kv_heads": 1, "context": 8},
                {"id": "b", "kind": "sft", "model": "x/m", "data": {"paths": ["x/d"]}},
                {"id": "c", "kind": "reward_model", "model": "x/m", "data": {"paths": ["x/d"]}, "heldout": {"paths": ["x/h"]}},
                {"id": "d", "kind": "rewards", "policy": "x/m", "prompts": {"paths": ["x/p"]},
                 "sources": [{"name": "R", "source": {"name": "reward_model", "options": {"model": "x/r"}}},
                             {"name": "N", "source": {"name": "acme.near", "options": {"encoder": "x/e", "model": "a name"}}}]},
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
            let (mut same, mut inputs) = (stage.clone(), stage.inputs(&here.plugins));
            let mut paths: Vec<String> = same.paths_mut(&here.plugins).into_iter().map(|p| p.clone()).collect();
            paths.sort();
            inputs.sort();
            assert_eq!(paths, inputs, "{}", stage.id);
        }
    }
}
