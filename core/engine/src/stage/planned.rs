//! One stage of a plan, and everything that it refers to.

use super::{AnyWork, Makes, Ref, STAGES, Work};
use crate::others::stage_refs;
use crate::reward::{self, implicit};
use motrain_core::error::{Error, Result, did_you_mean};
use motrain_core::plan::{Component, ModelRef, PluginFile};
use motrain_core::registry::{Kind, Registry};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A stage's id is the name of its folder.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Stage {
    pub id: String,
    pub work: Box<dyn AnyWork>,
}

impl Clone for Stage {
    fn clone(&self) -> Self {
        Self { id: self.id.clone(), work: self.work.boxed() }
    }
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.work.is_same(other.work.as_ref())
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let options = self.work.options();
        let options = options.as_object().into_iter().flatten();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("kind", self.work.kind())?;
        options.into_iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
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

impl Stage {
    pub fn new(id: &str, work: impl Work) -> Self {
        Self { id: id.to_owned(), work: Box::new(work) }
    }

    /// A stage with checked id and options; errors speak of `kind("id")`, as scripts write it.
    pub fn read(kind: &str, id: &str, options: &Value) -> Result<Self> {
        let Some(found) = STAGES.iter().find(|k| k.name == kind) else {
            let near = did_you_mean(kind, STAGES.iter().map(|k| k.name));
            return Err(Error::Invalid(format!("stage \"{id}\" is of no known kind: \"{kind}\"{near}")));
        };
        if !(1..=100).contains(&id.len()) || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            let id: String = id.chars().take(100).collect();
            let what = format!("{id:?} is no stage id; use up to 100 letters, digits, - and _");
            return Err(Error::Invalid(what));
        }
        Ok(Self { id: id.to_owned(), work: (found.read)(&format!("{kind}(\"{id}\")"), options)? })
    }

    /// Whether its components go together with its other options, where they can be built.
    pub fn check_with(&self, registry: &Registry) -> Result<()> {
        self.work.check_with(registry).map_err(|(option, what)| Error::BadOption {
            owner: format!("{}(\"{}\")", self.work.kind(), self.id),
            option: option.into(),
            what,
        })
    }

    /// The stage with other options, of one of this kind.
    pub fn change<T: Work>(&mut self, change: impl FnOnce(&mut T)) {
        if let Some(mut work) = self.work.downcast_ref::<T>().cloned() {
            change(&mut work);
            self.work = Box::new(work);
        }
    }

    /// What `look` finds among all that the stage refers to.
    fn refer<T>(&self, look: impl FnMut(Ref) -> Option<T>) -> Vec<T> {
        self.work.boxed().refs().into_iter().filter_map(look).collect()
    }

    /// The components that the stage uses.
    pub fn components(&self) -> Vec<(Kind, Component)> {
        self.refer(|r| match r {
            Ref::Component(kind, component) => Some((kind, component.clone())),
            _ => None,
        })
    }

    /// The stages that this one needs.
    pub fn needs(&self) -> Vec<String> {
        self.wants().into_iter().map(|(_, id)| id).collect()
    }

    /// The stages that this one needs, with what they must make; plugins may take what they like.
    pub fn wants(&self) -> Vec<(Option<Makes>, String)> {
        let wanted = self.refer(|r| match r {
            Ref::Model(ModelRef::Stage { stage, .. }) => Some(vec![(Some(Makes::Policy), stage.clone())]),
            Ref::Stage(makes, id) => Some(vec![(Some(makes), id.to_string())]),
            Ref::Component(_, component) => {
                let makes = match component.name.as_str() {
                    "reward_model" => Some(Makes::RewardModel),
                    implicit::NAME => Some(Makes::Policy),
                    "rewards_in_context" => Some(Makes::Statistics),
                    _ => None,
                };
                Some(stage_refs(&component.options).into_iter().map(|(id, _)| (makes, id.to_owned())).collect())
            }
            _ => None,
        });
        wanted.into_iter().flatten().collect()
    }

    /// The stages whose model it takes as it was after some epochs.
    pub fn kept(&self) -> Vec<(String, f64)> {
        let kept = self.refer(|r| match r {
            Ref::Model(ModelRef::Stage { stage, epoch: Some(epoch) }) => Some(vec![(stage.clone(), *epoch)]),
            Ref::Component(_, component) => {
                let after = |(id, epoch): (&str, Option<f64>)| Some((id.to_owned(), epoch?));
                Some(stage_refs(&component.options).into_iter().filter_map(after).collect())
            }
            _ => None,
        });
        kept.into_iter().flatten().collect()
    }

    /// The id of the `rewards` stage that it refers to.
    pub fn rewards(&self) -> Option<String> {
        self.wants().into_iter().find(|(makes, _)| *makes == Some(Makes::Rewards)).map(|(_, id)| id)
    }

    /// Files and folders that the stage reads. Of a plugin's component its library says which options name one.
    pub fn inputs(&self, plugins: &[PluginFile]) -> Vec<String> {
        [self.folders(plugins), self.files()].concat()
    }

    /// Model folders that the stage reads.
    pub fn folders(&self, plugins: &[PluginFile]) -> Vec<String> {
        let folders = self.refer(|r| match r {
            Ref::Model(model) => Some(model.path_mut().cloned().into_iter().collect::<Vec<String>>()),
            Ref::Component(kind, component) => {
                Some(folders_of(kind, component, plugins).into_iter().map(|path| path.clone()).collect())
            }
            _ => None,
        });
        folders.concat()
    }

    /// Files that the stage reads.
    pub fn files(&self) -> Vec<String> {
        let files = self.refer(|r| match r {
            Ref::Data(data) => Some(data.paths.clone()),
            Ref::File(path) => Some(vec![path.clone()]),
            _ => None,
        });
        files.concat()
    }

    /// What is wrong with its data files, as far as options say it.
    pub fn void_data(&self) -> Vec<String> {
        self.refer(|r| match r {
            Ref::Data(data) => data.is_void(),
            _ => None,
        })
    }

    /// The paths of all files and folders.
    pub fn paths_mut(&mut self, plugins: &[PluginFile]) -> Vec<&mut String> {
        let paths = self.work.refs().into_iter().map(|r| match r {
            Ref::Model(model) => model.path_mut().into_iter().collect(),
            Ref::Data(data) => data.paths.iter_mut().collect(),
            Ref::File(path) => vec![path],
            Ref::Component(kind, component) => folders_of(kind, component, plugins),
            Ref::Stage(..) => vec![],
        });
        paths.flatten().collect()
    }

    /// Whether a component of the stage is in this library.
    pub fn uses_library(&self, library: &PluginFile) -> bool {
        self.components().iter().any(|(kind, c)| library.components.contains(&key(*kind, c)))
    }
}

/// `loss acme.robust`, as a library's entry in the plan has it.
fn key(kind: Kind, component: &Component) -> String {
    format!("{} {}", kind.name(), component.name)
}

/// The model folders that a component reads: those of rewards, and those that a plugin's options name.
fn folders_of<'a>(kind: Kind, component: &'a mut Component, plugins: &[PluginFile]) -> Vec<&'a mut String> {
    let key = key(kind, component);
    let mut names: Vec<&str> =
        plugins.iter().filter_map(|p| p.folders.get(&key)).flatten().map(String::as_str).collect();
    names.extend(reward::models_of(&component.name));
    let options = component.options.as_object_mut().into_iter().flatten();
    let named = options.filter(|(name, _)| names.contains(&name.as_str()));
    named.filter_map(|(_, value)| if let Value::String(path) = value { Some(path) } else { None }).collect()
}

/// The objectives of the rewards that the stage called `id` makes.
pub fn objectives(stages: &[Stage], id: &str) -> Option<Vec<String>> {
    stages.iter().find(|s| s.id == id)?.work.objectives()
}
