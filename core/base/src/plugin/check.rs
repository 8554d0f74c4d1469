//! `motrain plugin check`: every component of a library, tried with ordinary and hostile input.

use super::{Request, load};
use crate::conditioner::Conditioner;
use crate::error::{Error, Result};
use crate::label::{Label, LabelRule};
use crate::loss::{PairBatch, PairLoss, PairwiseLoss};
use crate::registry::{Kind, Registry};
use crate::reward::{RewardSource, Sample, score_checked};
use crate::rng::rng;
use crate::sampler::{FrontPoint, WeightSampler};
use crate::{Prompt, Weights};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// What was tried of a component, and what came of it.
pub struct Verdict {
    pub owner: String,
    pub summary: String,
    pub tried: Vec<(&'static str, std::result::Result<String, String>)>,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.tried.iter().all(|(_, result)| result.is_ok())
    }
}

impl fmt::Display for Verdict {
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

/// Loads a library and tries its components (or only one) with the given options.
pub fn check(path: &Path, only: Option<&str>, options: &Value) -> Result<Vec<Verdict>> {
    let mut registry = Registry::builtin();
    let library = load(&mut registry, &Request { path: path.to_owned(), ..Request::default() }, SEED)?;
    let chosen: Vec<_> = library.components.iter().filter(|c| only.is_none_or(|name| name == c.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = library.components.iter().map(|c| c.name.as_str()).collect();
        let what = format!("has no component \"{}\"; it has {}", only.unwrap_or_default(), names.join(", "));
        return Err(Error::file(path, what));
    }
    let verdict = |c: &super::Described| {
        let mut tried =
            vec![("schema", schema(&c.schema)), ("unknown options", unknown_option(&registry, c.kind, &c.name))];
        let (name, kind) = (c.name.as_str(), c.kind);
        match kind {
            Kind::Reward => {
                with_two(&mut tried, || registry.rewards.build(name, options), |t, a, b| reward(t, &**a, &**b))
            }
            Kind::Sampler => {
                with_two(&mut tried, || registry.samplers.build(name, options), |t, a, b| sampler(t, &**a, &**b))
            }
            Kind::Conditioner => {
                with_two(
                    &mut tried,
                    || registry.conditioners.build(name, options),
                    |t, a, b| conditioner(t, &**a, &**b),
                );
            }
            Kind::Label => {
                with_two(&mut tried, || registry.labels.build(name, options), |t, a, b| label(t, &**a, &**b))
            }
            Kind::Loss => with_two(&mut tried, || registry.losses.build(name, options), |t, a, b| loss(t, &**a, &**b)),
            Kind::Judge => {}
        }
        Verdict { owner: c.owner(), summary: c.summary.clone(), tried }
    };
    Ok(chosen.into_iter().map(verdict).collect())
}

type Trials = Vec<(&'static str, Tried)>;

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

/// Makes two instances with the same seed, for comparing them.
fn with_two<T: ?Sized>(
    tried: &mut Trials,
    make: impl Fn() -> Result<Box<T>>,
    body: impl FnOnce(&mut Trials, &Box<T>, &Box<T>),
) {
    match (make(), make()) {
        (Ok(a), Ok(b)) => {
            tried.push(("create", Ok("twice".into())));
            body(tried, &a, &b);
        }
        (Err(e), _) | (_, Err(e)) => tried.push(("create", Err(e.to_string()))),
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

fn scores(source: &dyn RewardSource, texts: &[(String, String)]) -> std::result::Result<Vec<f64>, String> {
    let prompts: Vec<Prompt> = texts.iter().map(|(p, _)| Prompt::user(p.clone())).collect();
    let row = json!({ "prompt": "as in the data file", "score": 0.5 });
    let samples: Vec<Sample> =
        prompts.iter().zip(texts).map(|(prompt, (_, completion))| Sample { prompt, completion, row: &row }).collect();
    let scored = score_checked("checked", source, &samples).map_err(|e| e.to_string())?;
    Ok(scored.into_iter().flatten().collect())
}

fn reward(tried: &mut Trials, source: &dyn RewardSource, again: &dyn RewardSource) {
    let texts = ORDINARY.map(|(p, c)| (p.to_owned(), c.to_owned()));
    let ordinary = scores(source, &texts);
    tried.push(("ordinary input", ordinary.clone().map(|s| format!("scores {s:.4?}"))));
    let Ok(ordinary) = ordinary else { return };
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
    tried.push(("hostile input", scores(source, &hostile).map(|s| format!("{} texts scored", s.len()))));
    tried.push(("empty batch", scores(source, &[]).map(|_| "no scores".into())));
    tried.push(("repeatable", scores(again, &texts).and_then(|s| same(s, ordinary.clone()))));
    let alone: std::result::Result<Vec<f64>, String> = texts
        .iter()
        .map(|t| Ok(scores(source, std::slice::from_ref(t))?.first().copied().unwrap_or(f64::NAN)))
        .collect();
    tried.push((
        "one by one",
        alone.and_then(|alone| {
            let close = alone.iter().zip(&ordinary).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs()));
            if close { Ok("as in a batch".into()) } else { Err("a score depends on what else is in the batch".into()) }
        }),
    ));
}

fn draws(sampler: &dyn WeightSampler, objectives: usize) -> std::result::Result<Vec<Vec<f64>>, String> {
    (0..200)
        .map(|i| {
            Ok(sampler.sample(objectives, i, &mut rng(SEED, "check", i)).map_err(|e| e.to_string())?.values().to_vec())
        })
        .collect()
}

fn sampler(tried: &mut Trials, sampler: &dyn WeightSampler, again: &dyn WeightSampler) {
    for (what, k) in [("two objectives", 2), ("three objectives", 3), ("five objectives", 5)] {
        tried.push((what, draws(sampler, k).map(|_| "200 draws on the simplex".into())));
    }
    let both = draws(sampler, 2).and_then(|a| draws(again, 2).and_then(|b| same(a, b)));
    tried.push(("repeatable", both));
    if sampler.wants_feedback() {
        let front: Vec<FrontPoint> = Weights::grid(2, 4)
            .into_iter()
            .map(|weights| FrontPoint { rewards: weights.values().iter().map(|w| w * w).collect(), weights })
            .collect();
        let told = |s: &dyn WeightSampler| s.feedback(&front).map_err(|e| e.to_string());
        let after = told(sampler).and_then(|()| told(again)).and_then(|()| Ok((draws(sampler, 2)?, draws(again, 2)?)));
        tried.push(("after feedback", after.and_then(|(a, b)| same(a, b))));
    }
}

fn conditioner(tried: &mut Trials, conditioner: &dyn Conditioner, again: &dyn Conditioner) {
    let objectives = ["Helpfulness".to_owned(), "Harmlessness".to_owned()];
    let plain = Prompt::user("How do I boil an egg?");
    let render = |c: &dyn Conditioner, w: f64, prompt: &Prompt| {
        let weights = Weights::new(vec![w, 1.0 - w]).map_err(|e| e.to_string())?;
        c.render(&objectives, &weights, prompt).map_err(|e| e.to_string())
    };
    tried.push(("renders", render(conditioner, 0.8, &plain).map(|p| p.one_line())));
    let told_apart = render(conditioner, 0.8, &plain).and_then(|a| Ok((a, render(conditioner, 0.2, &plain)?)));
    tried.push((
        "other weights",
        told_apart.and_then(
            |(a, b)| {
                if a == b { Err("0.8 and 0.2 render alike".into()) } else { Ok("another prompt".into()) }
            },
        ),
    ));
    tried.push(("repeatable", render(conditioner, 0.3, &plain).and_then(|a| same(a, render(again, 0.3, &plain)?))));
    let hostile = Prompt::user("\0🙂\u{202e}".repeat(2000));
    tried.push(("hostile input", render(conditioner, 1.0, &hostile).map(|_| "rendered".into())));
    let back = render(conditioner, 0.8, &plain).map(|p| conditioner.parse(&objectives, &p));
    tried.push((
        "reads back",
        back.and_then(|found| match found {
            None => Ok("no inverse".into()),
            Some((w, prompt)) if (w.values()[0] - 0.8).abs() < 0.051 && prompt == plain => {
                Ok("weights and prompt".into())
            }
            Some((w, prompt)) => Err(format!("0.8, 0.2 came back as {:?} and {}", w.values(), prompt.one_line())),
        }),
    ));
}

fn label(tried: &mut Trials, rule: &dyn LabelRule, again: &dyn LabelRule) {
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
    let labels = all(rule);
    tried.push(("labels", labels.clone().map(|l| format!("{} pairs", l.len()))));
    let Ok(labels) = labels else { return };
    let fair = labels.iter().all(|pair| match pair {
        [Label::First(p), Label::First(q)] => (p + q - 1.0).abs() < 1e-9,
        [Label::Tie, Label::Tie] => true,
        _ => false,
    });
    let fair = if fair { Ok("the other way round".into()) } else { Err("p(a, b) + p(b, a) is not 1".into()) };
    tried.push(("swapped pairs", fair));
    tried.push(("repeatable", all(again).and_then(|l| same(l, labels))));
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
    }
}

fn loss(tried: &mut Trials, loss: &dyn PairwiseLoss, again: &dyn PairwiseLoss) {
    let evaluate = |l: &dyn PairwiseLoss, p: &PairBatch| l.evaluate(p).map_err(|e| e.to_string());
    let found = evaluate(loss, &pairs());
    tried.push(("ordinary and extreme pairs", found.clone().and_then(|l| finite(&l))));
    let Ok(found) = found else { return };
    tried.push(("repeatable", evaluate(again, &pairs()).and_then(|l| same(l, found.clone()))));
    tried.push(("empty batch", evaluate(loss, &PairBatch::default()).map(|_| "no losses".into())));
    tried.push(("derivatives", derivatives(|p| evaluate(loss, p), &found)));
}

fn finite(l: &PairLoss) -> Tried {
    let bad = l.loss.iter().chain(&l.d_first).chain(&l.d_second).find(|v| !v.is_finite());
    bad.map_or(Ok(format!("losses {:.4?}", l.loss)), |v| Err(format!("gave {v}: {:?}", l.loss)))
}

/// Against central differences, where the loss is smooth.
fn derivatives(evaluate: impl Fn(&PairBatch) -> std::result::Result<PairLoss, String>, exact: &PairLoss) -> Tried {
    let h = 1e-4;
    let moved = |first: f64, second: f64| {
        let mut p = pairs();
        p.policy_first.iter_mut().for_each(|v| *v += first);
        p.policy_second.iter_mut().for_each(|v| *v += second);
        evaluate(&p).map(|l| l.loss)
    };
    for (side, (up, down), given) in [
        ("first", (moved(h, 0.0)?, moved(-h, 0.0)?), &exact.d_first),
        ("second", (moved(0.0, h)?, moved(0.0, -h)?), &exact.d_second),
    ] {
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
