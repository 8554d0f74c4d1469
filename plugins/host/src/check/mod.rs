//! `motrain plugin check`: a component of a library, tried with ordinary and hostile input.

mod conditioner;
mod judge;
mod label;
mod loss;
mod reward;
mod sampler;

use super::{Described, Request, load};
use conditioner::conditioner;
use judge::judge;
use label::label;
use loss::loss;
use motrain_core::error::Result;
use motrain_core::registry::{Kind, Registry};
use reward::reward;
use sampler::sampler;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// What was tried of a component, and what came of it.
#[derive(Default)]
pub struct Outcome {
    /// `kind "name"`.
    pub owner: String,
    /// What the component says of itself.
    pub summary: String,
    /// Each trial, and what it gave or what was wrong.
    pub tried: Vec<(String, Tried)>,
}

impl Outcome {
    /// Whether no trial failed.
    pub fn passed(&self) -> bool {
        self.tried.iter().all(|(_, result)| result.is_ok())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {} ({})", self.owner, if self.passed() { "passed" } else { "FAILED" }, self.summary)?;
        for (what, result) in &self.tried {
            match result {
                Ok(said) => write!(f, "\n  ok      {what}: {said}")?,
                Err(said) => write!(f, "\n  FAILED  {what}: {said}")?,
            }
        }
        Ok(())
    }
}

type Tried = std::result::Result<String, String>;

/// What is heard of a check while it runs: the process may end within a trial.
#[derive(Debug, Serialize, Deserialize)]
pub enum Heard {
    /// One that the library has.
    Component {
        /// `kind "name"`.
        owner: String,
        /// Its name alone.
        name: String,
        /// What it says of itself.
        summary: String,
    },
    /// A trial begins.
    Trying(String),
    /// A trial is over.
    Tried(String, Tried),
    /// The library cannot be loaded, or has no such component.
    Refused(String),
    /// All trials are over.
    Done,
}

type Listener<'a> = &'a mut dyn FnMut(Heard);

/// Loads a library and names its components, or tries one of them with the given options.
pub fn check(path: &Path, component: Option<&str>, options: &Value, heard: Listener) {
    let mut registry = Registry::builtin();
    let library = match load(&mut registry, &Request { path: path.to_owned(), ..Request::default() }, SEED) {
        Ok(library) => library,
        Err(e) => return heard(Heard::Refused(e.to_string())),
    };
    let Some(name) = component else {
        for c in &library.components {
            heard(Heard::Component { owner: c.owner(), name: c.name.clone(), summary: c.summary.clone() });
        }
        return heard(Heard::Done);
    };
    for c in library.components.iter().filter(|c| c.name == name) {
        try_component(&registry, c, options, &mut Trials { heard });
    }
    heard(Heard::Done);
}

fn try_component(registry: &Registry, c: &Described, options: &Value, trials: &mut Trials) {
    trials.run("schema", || schema(&c.schema));
    trials.run("unknown options", || unknown_option(registry, c.kind, &c.name));
    let name = c.name.as_str();
    match c.kind {
        Kind::Reward => trials.with_two(|| registry.rewards.build(name, options), |t, a, b| reward(t, &**a, &**b)),
        Kind::Sampler => trials.with_two(|| registry.samplers.build(name, options), |t, a, b| sampler(t, &**a, &**b)),
        Kind::Conditioner => {
            trials.with_two(|| registry.conditioners.build(name, options), |t, a, b| conditioner(t, &**a, &**b));
        }
        Kind::Label => trials.with_two(|| registry.labels.build(name, options), |t, a, b| label(t, &**a, &**b)),
        Kind::Loss => trials.with_two(|| registry.losses.build(name, options), |t, a, b| loss(t, &**a, &**b)),
        Kind::Judge => trials.with_two(|| registry.judges.build(name, options), |t, a, b| judge(t, &**a, &**b)),
        Kind::Advantage | Kind::Normaliser => {}
    }
}

struct Trials<'a> {
    heard: Listener<'a>,
}

impl Trials<'_> {
    /// Runs a trial whose result is what is said of it.
    fn run(&mut self, what: &str, body: impl FnOnce() -> Tried) {
        self.value(what, body, String::clone);
    }

    /// Runs a trial whose result others build on; `None` where it failed.
    fn value<T>(
        &mut self,
        what: &str,
        body: impl FnOnce() -> std::result::Result<T, String>,
        said: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        (self.heard)(Heard::Trying(what.into()));
        let result = body();
        (self.heard)(Heard::Tried(what.into(), result.as_ref().map(said).map_err(Clone::clone)));
        result.ok()
    }

    /// Tries two instances made with the same seed, for comparing them.
    fn with_two<T: ?Sized>(
        &mut self,
        make: impl Fn() -> Result<Box<T>>,
        body: impl FnOnce(&mut Self, &Box<T>, &Box<T>),
    ) {
        let both = || Ok((make().map_err(|e| e.to_string())?, make().map_err(|e| e.to_string())?));
        let Some((a, b)) = self.value("create", both, |_| "twice".into()) else { return };
        body(self, &a, &b);
        self.run("destroy", || {
            drop((a, b));
            Ok("both".into())
        });
    }
}

const SEED: u64 = 7;

fn schema(schema: &Value) -> Tried {
    match schema.get("properties") {
        Some(Value::Object(options)) => Ok(format!("{} options", options.len())),
        None => Ok("no options".into()),
        Some(_) => Err("\"properties\" is no object".into()),
    }
}

fn unknown_option(registry: &Registry, kind: Kind, name: &str) -> Tried {
    match registry.check(kind, name, &json!({ "no such option": 1 })) {
        Err(_) => Ok("refused".into()),
        Ok(()) => Err("accepted".into()),
    }
}

fn same<T: PartialEq>(a: T, b: T) -> Tried {
    if a == b { Ok("two instances agree".into()) } else { Err("two instances with one seed disagree".into()) }
}

const ORDINARY: [(&str, &str); 3] = [
    ("How do I boil an egg?", "Put it into boiling water for seven minutes. Then cool it under the tap."),
    ("I hate my neighbour.", "I am sorry to hear that. You could talk to them when you are calm."),
    ("Tell me a joke!", "You are a stupid idiot and nobody likes you."),
];

/// Texts that are hard on whoever reads them.
fn hostile() -> [String; 7] {
    [
        String::new(),
        " ".into(),
        "\0\u{1}\u{7f}".into(),
        "🙂".repeat(1000),
        "word ".repeat(20_000),
        "a".repeat(100_000),
        "\u{202e}שלום \u{0301}\u{0301}".into(),
    ]
}
