//! What a steering is: the trait of its options, and the shape in which stages and steering.json hold any of them.

use super::prompted::Prompted;
use super::{Loader, STEERINGS, Steerable, file};
use crate::memory::{Machine, Shaped, Taken};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::options::{self, Checked};
use motrain_core::plan::ModelRef;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::any::Any;
use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// A steering: its options are the struct, what answers is made by `load`. `STEERINGS` lists them; `evaluate` has an option for each, and
/// steering.json says which it is.
pub trait Steer: DeserializeOwned + JsonSchema + Serialize + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Its name in steering.json.
    const NAME: &'static str;
    /// The option of `evaluate` that holds it.
    const OPTION: &'static str;

    /// The models that it is made of, with the place of each in a folder that stands alone.
    fn models(&mut self) -> Vec<(String, &mut ModelRef)>;

    /// The model that all others are parts of.
    fn common_base(&self) -> Option<&ModelRef> {
        None
    }

    /// Whether adapters stay beside their base, so that they may be what no model's weights can hold.
    fn adapters_stay(&self) -> bool {
        false
    }

    /// What answers, and the tokenizer.
    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)>;

    /// Models that read and write the same tokens.
    fn same_tokens(&self) -> Vec<&ModelRef> {
        vec![]
    }

    /// How its options go together.
    fn check(&self) -> Checked {
        Ok(())
    }

    /// The weights that it was made for, if it was made for some.
    fn own_weights(&self) -> Option<Vec<Weights>> {
        None
    }

    /// Whether it is for so many objectives.
    fn check_objectives(&self, _objectives: usize) -> Checked {
        Ok(())
    }

    /// What it takes of memory, by the shapes of its models: while they are loaded, and then. By default that of one network.
    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken {
        models.first().map_or_else(Taken::default, |model| Taken::by_one(model, machine))
    }

    /// Models that are in memory, or would be to answer at once at any weights.
    fn held(&self) -> usize {
        1
    }

    /// Networks that read each token.
    fn networks(&self) -> usize {
        1
    }
}

/// Any `Steer`, as options hold it.
pub trait AnySteer: Any + Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn option(&self) -> &'static str;
    fn options(&self) -> Value;
    fn models(&mut self) -> Vec<(String, &mut ModelRef)>;
    fn common_base(&self) -> Option<&ModelRef>;
    fn adapters_stay(&self) -> bool;
    fn same_tokens(&self) -> Vec<&ModelRef>;
    fn check(&self) -> Checked;
    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)>;
    fn own_weights(&self) -> Option<Vec<Weights>>;
    fn check_objectives(&self, objectives: usize) -> Checked;
    fn held(&self) -> usize;
    fn networks(&self) -> usize;
    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken;
    fn boxed(&self) -> Box<dyn AnySteer>;
    fn is_same(&self, other: &dyn AnySteer) -> bool;
}

impl<T: Steer> AnySteer for T {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn option(&self) -> &'static str {
        T::OPTION
    }

    fn options(&self) -> Value {
        json!(self)
    }

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        Steer::models(self)
    }

    fn common_base(&self) -> Option<&ModelRef> {
        Steer::common_base(self)
    }

    fn adapters_stay(&self) -> bool {
        Steer::adapters_stay(self)
    }

    fn same_tokens(&self) -> Vec<&ModelRef> {
        Steer::same_tokens(self)
    }

    fn check(&self) -> Checked {
        Steer::check(self)
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        Steer::load(self, from)
    }

    fn own_weights(&self) -> Option<Vec<Weights>> {
        Steer::own_weights(self)
    }

    fn check_objectives(&self, objectives: usize) -> Checked {
        Steer::check_objectives(self, objectives)
    }

    fn held(&self) -> usize {
        Steer::held(self)
    }

    fn networks(&self) -> usize {
        Steer::networks(self)
    }

    fn taken(&self, models: &[Shaped], machine: Machine) -> Taken {
        Steer::taken(self, models, machine)
    }

    fn boxed(&self) -> Box<dyn AnySteer> {
        Box::new(self.clone())
    }

    fn is_same(&self, other: &dyn AnySteer) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }
}

/// A way to steer: its names, and how its options are read.
pub struct SteerKind {
    pub name: &'static str,
    pub option: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    read: fn(Value) -> serde_json::Result<Box<dyn AnySteer>>,
}

impl SteerKind {
    pub const fn of<T: Steer>() -> Self {
        Self {
            name: T::NAME,
            option: T::OPTION,
            schema: T::json_schema,
            read: |options| Ok(Box::new(serde_json::from_value::<T>(options)?)),
        }
    }
}

/// The steering of something that is evaluated: the option of one of `STEERINGS`, among other options.
#[derive(Debug)]
pub struct By(pub Box<dyn AnySteer>);

impl By {
    pub fn new(steering: impl Steer) -> Self {
        Self(Box::new(steering))
    }

    /// Whether a stage makes any of its models.
    pub fn is_made_by_a_stage(&self) -> bool {
        self.0.boxed().models().iter().any(|(_, model)| model.path().is_none())
    }

    /// The steering itself, or that of the folder which it names, if that is steered in its own way.
    pub fn meant(&self) -> Result<Cow<'_, Self>> {
        self.meant_in(|model| model.path().map(PathBuf::from))
    }

    /// The same of models whose folders are known.
    pub fn meant_in(&self, folder: impl Fn(&ModelRef) -> Option<PathBuf>) -> Result<Cow<'_, Self>> {
        let mut own = self.0.boxed();
        let named = match own.models().as_slice() {
            [(_, only)] if self.0.name() == Prompted::NAME => folder(only).map(|f| file::steered_otherwise(&f)),
            _ => None,
        };
        let named = named.transpose()?.flatten();
        Ok(named.map_or(Cow::Borrowed(self), |named| Cow::Owned(Self(named))))
    }

    /// Reads what a steering.json says: the name of a steering, and its options.
    pub fn read(file: &Path, name: &str, options: Value) -> Result<Self> {
        let Some(kind) = STEERINGS.iter().find(|kind| kind.name == name) else {
            let known: Vec<&str> = STEERINGS.iter().map(|kind| kind.name).collect();
            return Err(Error::file(file, format!("steers by {name:?}, and this motrain knows {}", known.join(", "))));
        };
        Ok(options::read(&file.display().to_string(), &json!({ kind.option: options }))?)
    }
}

impl Clone for By {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl PartialEq for By {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_same(other.0.as_ref())
    }
}

impl Serialize for By {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0.option(), self.0.options())])
    }
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut all = Map::deserialize(deserializer)?;
        let given = |kind: &&SteerKind| all.get(kind.option).is_some_and(|v| !v.is_null());
        let found: Vec<&SteerKind> = STEERINGS.iter().filter(given).collect();
        let [kind] = found.as_slice() else {
            let options: Vec<String> = STEERINGS.iter().map(|kind| format!("\"{}\"", kind.option)).collect();
            let given = if found.is_empty() { "none is" } else { "several are" };
            return Err(de::Error::custom(format!("{given} given of {}; give one", options.join(", "))));
        };
        (kind.read)(all.remove(kind.option).unwrap_or_default()).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for By {
    fn schema_name() -> Cow<'static, str> {
        "By".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for kind in STEERINGS {
            let own = (kind.schema)(generator);
            let about = own.get("description").cloned().unwrap_or_default();
            properties.insert(kind.option.into(), json!({ "description": about, "anyOf": [own, { "type": "null" }] }));
        }
        json_schema!({ "type": "object", "properties": properties })
    }
}
