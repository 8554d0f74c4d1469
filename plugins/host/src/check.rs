//! `motrain plugin check`: a component of a library, tried with ordinary and hostile input.

use super::{Described, Request, load};
use motrain_core::conditioner::Conditioner;
use motrain_core::error::Result;
use motrain_core::label::{Label, LabelRule};
use motrain_core::loss::{Other, PairBatch, PairLoss, PairwiseLoss};
use motrain_core::registry::{Kind, Registry};
use motrain_core::reward::{RewardSource, Sample, score_checked};
use motrain_core::rng::rng;
use motrain_core::sampler::{FrontPoint, WeightSampler};
use motrain_core::{Prompt, Weights};
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
        Kind::Advantage | Kind::Judge => {}
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

fn scores(
    source: &dyn RewardSource,
    texts: &[(String, String)],
    finished: bool,
) -> std::result::Result<Vec<f64>, String> {
    let prompts: Vec<Prompt> = texts.iter().map(|(p, _)| Prompt::user(p.clone())).collect();
    let row = json!({ "prompt": "as in the data file", "score": 0.5 });
    let samples: Vec<Sample> = prompts
        .iter()
        .zip(texts)
        .map(|(prompt, (_, completion))| Sample { prompt, completion, finished, row: &row })
        .collect();
    let scored = score_checked("checked", source, &samples).map_err(|e| e.to_string())?;
    Ok(scored.into_iter().flatten().collect())
}

fn reward(t: &mut Trials, source: &dyn RewardSource, again: &dyn RewardSource) {
    let texts = ORDINARY.map(|(p, c)| (p.to_owned(), c.to_owned()));
    let ordinary = t.value("ordinary input", || scores(source, &texts, true), |s| format!("scores {s:.4?}"));
    let Some(ordinary) = ordinary else { return };
    let hostile: Vec<(String, String)> = [
        String::new(),
        " ".into(),
        "\0\u{1}\u{7f}".into(),
        "🙂".repeat(1000),
        "word ".repeat(20_000),
        "a".repeat(100_000),
        "\u{202e}שלום \u{0301}\u{0301}".into(),
    ]
    .into_iter()
    .map(|text| (text.clone(), text))
    .collect();
    t.run("hostile input", || scores(source, &hostile, false).map(|s| format!("{} texts scored", s.len())));
    t.run("empty batch", || scores(source, &[], true).map(|_| "no scores".into()));
    t.run("repeatable", || scores(again, &texts, true).and_then(|s| same(s, ordinary.clone())));
    t.run("one by one", || {
        for (text, expected) in texts.iter().zip(&ordinary) {
            let alone = scores(source, std::slice::from_ref(text), true)?.first().copied().unwrap_or(f64::NAN);
            if (alone - expected).abs() > 1e-6 * (1.0 + expected.abs()) {
                return Err("a score depends on what else is in the batch".into());
            }
        }
        Ok("as in a batch".into())
    });
}

fn draws(sampler: &dyn WeightSampler, objectives: usize) -> std::result::Result<Vec<Vec<f64>>, String> {
    (0..200)
        .map(|i| {
            Ok(sampler.sample(objectives, i, &mut rng(SEED, "check", i)).map_err(|e| e.to_string())?.values().to_vec())
        })
        .collect()
}

fn sampler(t: &mut Trials, sampler: &dyn WeightSampler, again: &dyn WeightSampler) {
    for (what, k) in [("two objectives", 2), ("three objectives", 3), ("five objectives", 5)] {
        t.run(what, || draws(sampler, k).map(|_| "200 draws on the simplex".into()));
    }
    t.run("repeatable", || draws(sampler, 2).and_then(|a| draws(again, 2).and_then(|b| same(a, b))));
    if sampler.wants_feedback() {
        let front: Vec<FrontPoint> = Weights::grid(2, 4)
            .into_iter()
            .map(|weights| FrontPoint { rewards: weights.values().iter().map(|w| w * w).collect(), weights })
            .collect();
        let told = |s: &dyn WeightSampler| s.feedback(&front).map_err(|e| e.to_string());
        t.run("after feedback", || {
            told(sampler).and_then(|()| told(again))?;
            same(draws(sampler, 2)?, draws(again, 2)?)
        });
    }
}

fn conditioner(t: &mut Trials, conditioner: &dyn Conditioner, again: &dyn Conditioner) {
    let objectives = ["Helpfulness".to_owned(), "Harmlessness".to_owned()];
    let plain = Prompt::user("How do I boil an egg?");
    let render = |c: &dyn Conditioner, w: f64, prompt: &Prompt| {
        let weights = Weights::new(vec![w, 1.0 - w]).map_err(|e| e.to_string())?;
        c.render(&objectives, &weights, prompt).map_err(|e| e.to_string())
    };
    t.run("renders", || render(conditioner, 0.8, &plain).map(|p| p.one_line()));
    t.run("other weights", || {
        let alike = render(conditioner, 0.8, &plain)? == render(conditioner, 0.2, &plain)?;
        if alike { Err("0.8 and 0.2 render alike".into()) } else { Ok("another prompt".into()) }
    });
    t.run("repeatable", || same(render(conditioner, 0.3, &plain)?, render(again, 0.3, &plain)?));
    let hostile = Prompt::user("\0🙂\u{202e}".repeat(2000));
    t.run("hostile input", || render(conditioner, 1.0, &hostile).map(|_| "rendered".into()));
    t.run("reads back", || match conditioner.parse(&objectives, &render(conditioner, 0.8, &plain)?) {
        None => Ok("no inverse".into()),
        Some((w, prompt)) if (w.values()[0] - 0.8).abs() < 0.051 && prompt == plain => Ok("weights and prompt".into()),
        Some((w, prompt)) => Err(format!("0.8, 0.2 came back as {:?} and {}", w.values(), prompt.one_line())),
    });
}

fn label(t: &mut Trials, rule: &dyn LabelRule, again: &dyn LabelRule) {
    let cases: [([f64; 2], [f64; 2]); 5] = [
        ([0.9, 0.1], [0.2, 0.3]),
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([1e300, 0.0], [-1e300, 0.0]),
        ([1e-300, 0.0], [0.0, 0.0]),
    ];
    let all = |rule: &dyn LabelRule| -> std::result::Result<Vec<[Label; 2]>, String> {
        let weights = Weights::new(vec![0.7, 0.3]).map_err(|e| e.to_string())?;
        let one = |a: &[f64], b: &[f64]| rule.label(&weights, a, b).map_err(|e| e.to_string());
        cases.iter().map(|(a, b)| Ok([one(a, b)?, one(b, a)?])).collect()
    };
    let Some(labels) = t.value("labels", || all(rule), |l| format!("{} pairs", l.len())) else { return };
    let fair = |pair: &[Label; 2]| match pair {
        [Label::First(p), Label::First(q)] => (p + q - 1.0).abs() < 1e-9,
        [Label::Tie, Label::Tie] => true,
        _ => false,
    };
    t.run("swapped pairs", || {
        if labels.iter().all(fair) {
            Ok("the other way round".into())
        } else {
            Err("p(a, b) + p(b, a) is not 1".into())
        }
    });
    t.run("repeatable", || all(again).and_then(|l| same(l, labels.clone())));
}

fn pairs() -> PairBatch {
    PairBatch {
        policy_first: vec![-40.0, -3.0, -1e4],
        policy_second: vec![-55.0, -3.5, -10.0],
        reference_first: vec![-42.0, -3.0, -10.0],
        reference_second: vec![-50.0, -3.5, -1e4],
        tokens_first: vec![10, 1, 500],
        tokens_second: vec![12, 2, 1],
        label: vec![1.0, 0.7, 0.0],
        weights: vec![0.8, 0.2, 0.5, 0.5, 0.0, 1.0],
        margins: vec![0.4, -0.1, 0.0, 0.0, -1.0, 1.0],
        other: Some(Other {
            policy_first: vec![-41.0, -3.2, -20.0],
            policy_second: vec![-52.0, -3.1, -30.0],
            reference_first: vec![-42.5, -3.0, -11.0],
            reference_second: vec![-50.0, -3.4, -40.0],
        }),
    }
}

fn loss(t: &mut Trials, loss: &dyn PairwiseLoss, again: &dyn PairwiseLoss) {
    let evaluate = |l: &dyn PairwiseLoss, p: &PairBatch| l.evaluate(p).map_err(|e| e.to_string());
    let found =
        t.value("ordinary and extreme pairs", || evaluate(loss, &pairs()), |l| format!("losses {:.4?}", l.loss));
    let Some(found) = found else { return };
    t.run("repeatable", || evaluate(again, &pairs()).and_then(|l| same(l, found.clone())));
    t.run("empty batch", || evaluate(loss, &PairBatch::default()).map(|_| "no losses".into()));
    if loss.needs_other() {
        t.run("the same weights everywhere", || {
            evaluate(loss, &PairBatch { other: None, ..pairs() }).map(|l| format!("losses {:.4?}", l.loss))
        });
    }
    t.run("derivatives", || derivatives(|p| evaluate(loss, p), &found));
}

/// Against central differences, where the loss is smooth.
fn derivatives(evaluate: impl Fn(&PairBatch) -> std::result::Result<PairLoss, String>, exact: &PairLoss) -> Tried {
    let h = 1e-4;
    let moved = |by: fn(&mut PairBatch) -> Option<&mut Vec<f64>>, step: f64| {
        let mut p = pairs();
        by(&mut p).into_iter().flatten().for_each(|v| *v += step);
        evaluate(&p).map(|l| l.loss)
    };
    type Column = fn(&mut PairBatch) -> Option<&mut Vec<f64>>;
    let columns: [(&str, Column, &[f64]); 4] = [
        ("first", |p| Some(&mut p.policy_first), &exact.d_first),
        ("second", |p| Some(&mut p.policy_second), &exact.d_second),
        ("other_first", |p| p.other.as_mut().map(|o| &mut o.policy_first), &exact.d_other_first),
        ("other_second", |p| p.other.as_mut().map(|o| &mut o.policy_second), &exact.d_other_second),
    ];
    for (side, by, given) in columns {
        let (up, down) = (moved(by, h)?, moved(by, -h)?);
        for i in 0..given.len() {
            let difference = (up[i] - down[i]) / (2.0 * h);
            // Far from 0 the differences themselves are rounded.
            if (difference - given[i]).abs() > 1e-4 * (1.0 + exact.loss[i].abs()) {
                return Err(format!("pair {}: d_{side} is {}, central differences say {difference}", i + 1, given[i]));
            }
        }
    }
    Ok("as central differences".into())
}
