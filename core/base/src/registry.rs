//! The registry: built-in, engine and third-party components of each kind, found by name.

use crate::advantage::Advantage;
use crate::conditioner::Conditioner;
use crate::error::{Error, Result, did_you_mean};
use crate::judge::Judge;
use crate::label::LabelRule;
use crate::loss::PairwiseLoss;
use crate::normaliser::Normaliser;
use crate::options::{Options, parse, schema_of};
use crate::plan::PluginFile;
use crate::reward::RewardSource;
use crate::sampler::WeightSampler;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The kinds of component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Draws weights.
    Sampler,
    /// Writes weights into prompts.
    Conditioner,
    /// Scores completions.
    Reward,
    /// Turns scores and weights into a preference.
    Label,
    /// Turns preferences and log-probs into a number to lower.
    Loss,
    /// Turns returns into advantages of policy gradients.
    Advantage,
    /// Normalises scores before they are trained on.
    Normaliser,
    /// Compares answers.
    Judge,
}

impl Kind {
    /// The six that plugins and functions of scripts can be too.
    pub const OPEN: [Kind; 6] = [Kind::Sampler, Kind::Conditioner, Kind::Reward, Kind::Label, Kind::Loss, Kind::Judge];

    /// All, in the order of `motrain list`.
    pub const ALL: [Kind; 8] = [
        Kind::Sampler,
        Kind::Conditioner,
        Kind::Reward,
        Kind::Label,
        Kind::Loss,
        Kind::Advantage,
        Kind::Normaliser,
        Kind::Judge,
    ];

    /// As scripts, lists and errors write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sampler => "sampler",
            Kind::Conditioner => "conditioner",
            Kind::Reward => "reward",
            Kind::Label => "label",
            Kind::Loss => "loss",
            Kind::Advantage => "advantage",
            Kind::Normaliser => "normaliser",
            Kind::Judge => "judge",
        }
    }
}

/// A component that motrain ships: one of these in a folder's `BUILTINS`.
pub struct Builtin<T: ?Sized> {
    /// As scripts name it.
    pub name: &'static str,
    /// One line for `motrain list`.
    pub summary: &'static str,
    /// JSON Schema of the options.
    pub schema: fn() -> Value,
    /// Builds it for the owner that errors name, from options; wrong ones are errors.
    pub build: fn(&str, &Value) -> Result<Box<T>>,
}

/// Reads the options `O` of a component and turns them into it.
pub const fn schema<O: Options>() -> fn() -> Value {
    schema_of::<O>
}

type Check = Arc<dyn Fn(&Value) -> Result<()> + Send + Sync>;
type Build<T> = Arc<dyn Fn(&Value) -> Result<Box<T>> + Send + Sync>;

/// A registered component.
pub struct Entry<T: ?Sized> {
    /// As scripts name it.
    pub name: String,
    /// One line for `motrain list`.
    pub summary: String,
    /// JSON Schema of the options.
    pub schema: Value,
    /// Reads the options without doing the component's work (loading a model, say).
    pub check: Check,
    /// Makes the component of its options.
    pub build: Build<T>,
}

impl<T: ?Sized + 'static> Entry<T> {
    fn builtin(kind: Kind, builtin: &'static Builtin<T>) -> Self {
        let owner = format!("{} \"{}\"", kind.name(), builtin.name);
        let (check_owner, build) = (owner.clone(), builtin.build);
        Self {
            name: builtin.name.into(),
            summary: builtin.summary.into(),
            schema: (builtin.schema)(),
            check: Arc::new(move |options| build(&check_owner, options).map(|_| ())),
            build: Arc::new(move |options| build(&owner, options)),
        }
    }

    /// An entry made at run time: its options are checked by building it.
    pub fn dynamic(
        name: String,
        summary: String,
        schema: Value,
        build: impl Fn(&Value) -> Result<Box<T>> + Send + Sync + 'static,
    ) -> Self {
        let build: Build<T> = Arc::new(build);
        let check = build.clone();
        Self { name, summary, schema, check: Arc::new(move |options| check(options).map(|_| ())), build }
    }

    /// An entry whose building is work, so that checking only reads its options `O`.
    pub fn heavy<O: Options>(
        kind: Kind,
        name: &str,
        summary: &str,
        build: impl Fn(O) -> Result<Box<T>> + Send + Sync + 'static,
    ) -> Self {
        let owner = format!("{} \"{name}\"", kind.name());
        let check_owner = owner.clone();
        Self {
            name: name.into(),
            summary: summary.into(),
            schema: schema_of::<O>(),
            check: Arc::new(move |options| parse::<O>(&check_owner, options).map(|_| ())),
            build: Arc::new(move |options| build(parse::<O>(&owner, options)?)),
        }
    }
}

/// The components of one kind.
pub struct Section<T: ?Sized> {
    kind: Kind,
    entries: Vec<Entry<T>>,
}

impl<T: ?Sized + 'static> Section<T> {
    fn of(kind: Kind, builtins: &'static [Builtin<T>]) -> Self {
        Self { kind, entries: builtins.iter().map(|b| Entry::builtin(kind, b)).collect() }
    }

    /// Adds a component; a name can be taken only once.
    pub fn add(&mut self, entry: Entry<T>) -> Result<()> {
        if self.entries.iter().any(|e| e.name == entry.name) {
            let kind = self.kind.name();
            return Err(Error::Invalid(format!("{kind} \"{}\" is registered twice; rename one of them", entry.name)));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds a component that motrain ships in another crate.
    pub fn ship(&mut self, builtin: &'static Builtin<T>) -> Result<()> {
        self.add(Entry::builtin(self.kind, builtin))
    }

    /// All, in the order in which they were added.
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// The component of a name; an unknown one is an error that suggests a near one.
    pub fn get(&self, name: &str) -> Result<&Entry<T>> {
        self.entries.iter().find(|e| e.name == name).ok_or_else(|| Error::UnknownComponent {
            kind: self.kind.name().into(),
            name: name.into(),
            suggestion: self.suggestion(name),
        })
    }

    fn suggestion(&self, name: &str) -> String {
        let near = did_you_mean(name, self.entries.iter().map(|e| e.name.as_str()));
        // By convention only plugins' names have a dot.
        if near.is_empty() && name.contains('.') { "; load its plugin with --plugin".into() } else { near }
    }

    /// Whether a component of this name takes these options; does none of its work.
    pub fn check(&self, name: &str, options: &Value) -> Result<()> {
        (self.get(name)?.check)(options)
    }

    /// Makes a component.
    pub fn build(&self, name: &str, options: &Value) -> Result<Box<T>> {
        (self.get(name)?.build)(options)
    }
}

/// All components by kind. See `Registry::builtin` for what motrain ships.
pub struct Registry {
    /// Who draws weights.
    pub samplers: Section<dyn WeightSampler>,
    /// Who writes weights into prompts.
    pub conditioners: Section<dyn Conditioner>,
    /// Who scores completions.
    pub rewards: Section<dyn RewardSource>,
    /// Who turns scores into preferences.
    pub labels: Section<dyn LabelRule>,
    /// Losses of pairs.
    pub losses: Section<dyn PairwiseLoss>,
    /// Advantages of policy gradients.
    pub advantages: Section<dyn Advantage>,
    /// Normalisers of scores while training.
    pub normalisers: Section<dyn Normaliser>,
    /// Who compares answers.
    pub judges: Section<dyn Judge>,
    /// The libraries whose components are registered.
    pub plugins: Vec<PluginFile>,
}

impl Registry {
    /// What motrain ships that needs neither tensors nor servers nor the embedded tasks: their crates add theirs.
    pub fn builtin() -> Self {
        Self {
            samplers: Section::of(Kind::Sampler, crate::sampler::BUILTINS),
            conditioners: Section::of(Kind::Conditioner, crate::conditioner::BUILTINS),
            rewards: Section::of(Kind::Reward, crate::reward::BUILTINS),
            labels: Section::of(Kind::Label, crate::label::BUILTINS),
            losses: Section::of(Kind::Loss, crate::loss::BUILTINS),
            advantages: Section::of(Kind::Advantage, crate::advantage::BUILTINS),
            normalisers: Section::of(Kind::Normaliser, crate::normaliser::BUILTINS),
            judges: Section::of(Kind::Judge, &[]),
            plugins: vec![],
        }
    }

    /// Checks a component's name and options without building what is heavy.
    pub fn check(&self, kind: Kind, name: &str, options: &Value) -> Result<()> {
        match kind {
            Kind::Sampler => self.samplers.check(name, options),
            Kind::Conditioner => self.conditioners.check(name, options),
            Kind::Reward => self.rewards.check(name, options),
            Kind::Label => self.labels.check(name, options),
            Kind::Loss => self.losses.check(name, options),
            Kind::Advantage => self.advantages.check(name, options),
            Kind::Normaliser => self.normalisers.check(name, options),
            Kind::Judge => self.judges.check(name, options),
        }
    }

    /// Name, summary and option schema of every component of a kind.
    pub fn list(&self, kind: Kind) -> Vec<(&str, &str, &Value)> {
        fn rows<T: ?Sized>(section: &Section<T>) -> Vec<(&str, &str, &Value)> {
            section.entries.iter().map(|e| (e.name.as_str(), e.summary.as_str(), &e.schema)).collect()
        }
        match kind {
            Kind::Sampler => rows(&self.samplers),
            Kind::Conditioner => rows(&self.conditioners),
            Kind::Reward => rows(&self.rewards),
            Kind::Label => rows(&self.labels),
            Kind::Loss => rows(&self.losses),
            Kind::Advantage => rows(&self.advantages),
            Kind::Normaliser => rows(&self.normalisers),
            Kind::Judge => rows(&self.judges),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_and_suggests() {
        let registry = Registry::builtin();
        assert!(registry.losses.build("dpo", &json!({"beta": 1})).is_ok());
        let message = registry.losses.get("dppo").err().unwrap().to_string();
        assert_eq!(message, "loss \"dppo\" does not exist; did you mean \"dpo\"?; `motrain list loss` shows what does");
        let message = registry.check(Kind::Loss, "dpo", &json!({"betta": 1})).unwrap_err().to_string();
        assert_eq!(message, "loss \"dpo\" has no option \"betta\"; did you mean \"beta\"?");
    }

    #[test]
    fn every_builtin_has_a_summary_and_refuses_unknown_options() {
        let registry = Registry::builtin();
        for kind in Kind::ALL {
            for (name, summary, _) in registry.list(kind) {
                assert!(!summary.is_empty(), "{name}");
                let error = registry.check(kind, name, &json!({"no_such": 1})).unwrap_err().to_string();
                let first = error.lines().next().unwrap_or_default();
                assert_eq!(first, format!("{} \"{name}\" has no option \"no_such\"", kind.name()));
            }
        }
    }

    #[test]
    fn refuses_a_name_twice() {
        let mut registry = Registry::builtin();
        let entry = Entry::builtin(Kind::Loss, &crate::loss::BUILTINS[0]);
        assert!(registry.losses.add(entry).unwrap_err().to_string().contains("registered twice"));
    }
}
