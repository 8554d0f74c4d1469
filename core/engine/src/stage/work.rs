//! What a stage is: the trait that its one file implements, and the shape in which plans hold any of them.

use super::STAGES;
use crate::Result;
use crate::memory::{Footprint, Known};
use crate::model::Labels;
use crate::names;
use crate::publish::Judged;
use crate::session::{Cx, Session};
use crate::stage::Stage;
use motrain_core::data::DataOptions;
use motrain_core::options::{Checked, Options, parse, schema_of};
use motrain_core::plan::{Component, Lora, ModelRef, StageId, Training};
use motrain_core::registry::{Kind, Registry};
use serde::Serialize;
use serde_json::{Value, json};
use std::any::Any;
use std::fmt::Debug;

/// A stage: its options are the struct, what it does is `run`. `STAGES` lists them; script functions, `motrain list stage`, checks at
/// every depth, references and hashes follow from the list.
pub trait Work: Options + Serialize + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Its name in scripts and plans.
    const KIND: &'static str;
    /// Raised when its results change: what an earlier motrain finished is then made anew.
    const REVISION: u32;
    /// All that later stages may find in it.
    const MAKES: &'static [Makes];

    /// Everything that the options refer to. The plan checks it, orders stages by it, follows it when folders move, and makes hashes of
    /// what is there.
    fn refs(&mut self) -> Vec<Ref<'_>>;

    /// What later stages find in it, with these options.
    fn makes(&self) -> &'static [Makes] {
        Self::MAKES
    }

    /// Data that it makes of rewards, such as people are asked for elsewhere: as tables of costs say it.
    fn made_of_rewards(&self) -> Option<&'static str> {
        None
    }

    fn run(&self, stage: Cx) -> Result<()>;

    /// What it takes of memory, and the shapes of what it makes: known before any work (`motrain check --memory`).
    fn footprint(&self, _known: &Known) -> Result<Footprint> {
        let uncounted = vec![format!("a stage of kind \"{}\" does not say what it takes", Self::KIND)];
        Ok(Footprint { uncounted, ..Footprint::default() })
    }

    /// What must hold among the stages before it, which its own options cannot say.
    fn check_among(&self, _earlier: &[Stage]) -> Checked {
        Ok(())
    }

    /// What must hold among its options and what its components are.
    fn check_with(&self, _registry: &Registry) -> Checked {
        Ok(())
    }

    /// What it goes on training, if it trains.
    fn trains(&self) -> Option<Trains<'_>> {
        None
    }

    /// The model that its other models are parts of, if they are parts of one: adapters among them need not say where their base lies.
    fn common_base(&self) -> Option<&ModelRef> {
        None
    }

    /// Whether adapters stay beside their base, so that they may be what no model's weights can hold.
    fn adapters_stay(&self) -> bool {
        false
    }

    /// Whether what it reads as a policy may be steered by its parameters, so that no one model of it answers.
    fn takes_steered(&self) -> bool {
        false
    }

    /// Whether a reward model is as good as a policy where it refers to a model: it takes the layers alone.
    fn takes_scored(&self) -> bool {
        false
    }

    /// Models that must read and write the same tokens.
    fn same_tokens(&self) -> Vec<&ModelRef> {
        vec![]
    }

    /// Names of the objectives, of a stage that makes rewards.
    fn objectives(&self) -> Option<Vec<String>> {
        None
    }

    /// What the scores of its reward model are called.
    fn labels(&self) -> Option<Labels> {
        None
    }

    /// The policy whose quality it tells: what the run's `policy/` shows.
    fn judged(&self) -> Option<Judged<'_>> {
        None
    }

    /// What `{"stage": id}` in a component's options stands for; by default the folder of its model.
    fn value(&self, session: &Session, id: &str) -> Result<Value> {
        Ok(json!(session.stage_folder(id).join(names::MODEL)))
    }
}

/// What a stage trains.
pub struct Trains<'a> {
    /// What it begins with.
    pub model: &'a ModelRef,
    /// The adapter of it that is trained, if that is all.
    pub lora: Option<&'a Lora>,
    pub train: &'a Training,
}

/// Something that options refer to.
pub enum Ref<'a> {
    /// A model folder, or the policy that a stage makes.
    Model(&'a mut ModelRef),
    Data(&'a mut DataOptions),
    File(&'a mut String),
    /// A stage by its id, and what is wanted of it.
    Stage(Makes, &'a mut StageId),
    Component(Kind, &'a mut Component),
}

/// What a stage leaves for later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    Policy,
    RewardModel,
    Rewards,
    Samples,
    /// Of `ratings` only.
    Ratings,
    /// Of `preference_data` only.
    Pairs,
    /// Of `ric_data` only.
    ScoredSamples,
    /// Of an offline `ric_data` only.
    Statistics,
    Front,
    /// A front that others are read as shares of.
    Ceiling,
}

impl Makes {
    fn noun(self) -> &'static str {
        match self {
            Makes::Policy => "policy",
            Makes::RewardModel => "reward model",
            Makes::Rewards => "rewards",
            Makes::Samples => "samples",
            Makes::Pairs => "preference pairs",
            Makes::Ratings => "ratings",
            Makes::ScoredSamples => "scored samples",
            Makes::Statistics => "statistics of answers that were drawn without goals",
            Makes::Front => "front",
            Makes::Ceiling => "ceiling",
        }
    }

    /// As messages say it, with the kinds of stage that make it where they are few.
    pub fn words(self) -> String {
        let kinds: Vec<&str> = STAGES.iter().filter(|kind| kind.makes.contains(&self)).map(|kind| kind.name).collect();
        match kinds.len() {
            1..=2 => format!("{}; name a {} stage", self.noun(), kinds.join(" or ")),
            _ => self.noun().into(),
        }
    }
}

/// Any `Work`, as plans hold it.
pub trait AnyWork: Any + Debug + Send + Sync {
    fn kind(&self) -> &'static str;
    fn revision(&self) -> u32;
    fn options(&self) -> Value;
    fn refs(&mut self) -> Vec<Ref<'_>>;
    fn makes(&self) -> &'static [Makes];
    fn made_of_rewards(&self) -> Option<&'static str>;
    fn run(&self, stage: Cx) -> Result<()>;
    fn footprint(&self, known: &Known) -> Result<Footprint>;
    fn check_among(&self, earlier: &[Stage]) -> Checked;
    fn check_with(&self, registry: &Registry) -> Checked;
    fn trains(&self) -> Option<Trains<'_>>;
    fn common_base(&self) -> Option<&ModelRef>;
    fn adapters_stay(&self) -> bool;
    fn same_tokens(&self) -> Vec<&ModelRef>;
    fn takes_steered(&self) -> bool;
    fn takes_scored(&self) -> bool;
    fn objectives(&self) -> Option<Vec<String>>;
    fn labels(&self) -> Option<Labels>;
    fn judged(&self) -> Option<Judged<'_>>;
    fn value(&self, session: &Session, id: &str) -> Result<Value>;
    fn boxed(&self) -> Box<dyn AnyWork>;
    fn is_same(&self, other: &dyn AnyWork) -> bool;
}

impl<T: Work> AnyWork for T {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn revision(&self) -> u32 {
        T::REVISION
    }

    fn options(&self) -> Value {
        json!(self)
    }

    fn refs(&mut self) -> Vec<Ref<'_>> {
        Work::refs(self)
    }

    fn makes(&self) -> &'static [Makes] {
        Work::makes(self)
    }

    fn made_of_rewards(&self) -> Option<&'static str> {
        Work::made_of_rewards(self)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        Work::run(self, stage)
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        Work::footprint(self, known)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        Work::check_among(self, earlier)
    }

    fn check_with(&self, registry: &Registry) -> Checked {
        Work::check_with(self, registry)
    }

    fn trains(&self) -> Option<Trains<'_>> {
        Work::trains(self)
    }

    fn common_base(&self) -> Option<&ModelRef> {
        Work::common_base(self)
    }

    fn adapters_stay(&self) -> bool {
        Work::adapters_stay(self)
    }

    fn same_tokens(&self) -> Vec<&ModelRef> {
        Work::same_tokens(self)
    }

    fn takes_steered(&self) -> bool {
        Work::takes_steered(self)
    }

    fn takes_scored(&self) -> bool {
        Work::takes_scored(self)
    }

    fn objectives(&self) -> Option<Vec<String>> {
        Work::objectives(self)
    }

    fn labels(&self) -> Option<Labels> {
        Work::labels(self)
    }

    fn judged(&self) -> Option<Judged<'_>> {
        Work::judged(self)
    }

    fn value(&self, session: &Session, id: &str) -> Result<Value> {
        Work::value(self, session, id)
    }

    fn boxed(&self) -> Box<dyn AnyWork> {
        Box::new(self.clone())
    }

    fn is_same(&self, other: &dyn AnyWork) -> bool {
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }
}

impl dyn AnyWork {
    /// The stage's own options, if it is of this kind.
    pub fn downcast_ref<T: Work>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}

/// A kind of stage: its name, and how its options are read.
pub struct StageKind {
    pub name: &'static str,
    pub makes: &'static [Makes],
    pub schema: fn() -> Value,
    pub read: fn(&str, &Value) -> motrain_core::Result<Box<dyn AnyWork>>,
}

impl StageKind {
    pub const fn of<T: Work>() -> Self {
        let read = |owner: &str, options: &Value| Ok(Box::new(parse::<T>(owner, options)?) as Box<dyn AnyWork>);
        Self { name: T::KIND, makes: T::MAKES, schema: schema_of::<T>, read }
    }
}
