//! Contrasts: pairs of answers of which one has a flaw of a known kind. What reward models are taught to read by, and tested on.

use crate::{Task, pick, sentences};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// Two answers to a prompt that differ in one thing, which is wrong in one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// What both answer.
    pub prompt: String,
    /// What is wrong: the kind of a statement that belongs to another prompt, or one of [`FLAWS`].
    pub kind: &'static str,
    /// The answer with nothing wrong.
    pub right: String,
    /// The other one.
    pub wrong: String,
}

impl Contrast {
    /// As a preference pair.
    fn row(&self) -> Value {
        json!({ "prompt": self.prompt, "chosen": self.right, "rejected": self.wrong, "kind": self.kind })
    }
}

/// How much less the wrong one of a contrast must score in either objective.
const CLEAR: f64 = 0.1;

/// The share of contrasts that differ in a whole statement; in the others something else is wrong, of [`FLAWS`].
const STATEMENTS: f64 = 0.4;

/// The share of answers with a flaw among those that are drawn to be compared.
const FLAWED: f64 = 0.15;

impl Task {
    /// Pairs of answers of which one has a flaw, of every kind that there is.
    pub fn contrasts(&self, count: usize, seed: u64) -> Vec<Contrast> {
        let prompts = self.prompts(count, seed, "contrast prompts").into_iter().enumerate();
        let purpose = format!("{}/contrasts", self.name);
        prompts.filter_map(|(i, p)| self.contrast(&p, &mut rng(seed, &purpose, i as u64))).collect()
    }

    /// `{"prompt", "chosen", "rejected", "kind"}` rows of contrasts, at most so many of a kind, of prompts that `kept` keeps for evaluation.
    pub fn contrast_rows(&self, per_kind: usize, seed: u64, kept: impl Fn(&str) -> bool) -> Vec<Value> {
        let mut kinds = std::collections::BTreeMap::new();
        let mut enough = |kind| {
            let count = kinds.entry(kind).or_insert(0);
            *count += 1;
            *count > per_kind
        };
        let found = self.contrasts(600 * per_kind, seed).into_iter().filter(|c| kept(&c.prompt) && !enough(c.kind));
        found.map(|contrast| contrast.row()).collect()
    }

    pub(crate) fn contrast(&self, prompt: &str, rng: &mut Rng) -> Option<Contrast> {
        let contrast =
            if rng.random_bool(STATEMENTS) { (self.contrast)(prompt, rng) } else { self.flawed(prompt, rng) };
        // What an objective hardly minds is no contrast for it: a step of another topic does as little good as an own one does harm.
        contrast.filter(|c| self.gold.iter().all(|(_, gold)| gold(prompt, &c.right) - gold(prompt, &c.wrong) > CLEAR))
    }

    fn flawed(&self, prompt: &str, rng: &mut Rng) -> Option<Contrast> {
        let (kind, spoil, _) = *FLAWS.choose_weighted(rng, |(_, _, share)| *share).ok()?;
        let right = (self.answer)(prompt, rng);
        let other = (self.prompt)(rng);
        let foreign = (self.answer)(&other, rng);
        let wrong = spoil(&right, &foreign, rng)?;
        Some(Contrast { prompt: prompt.to_owned(), kind, right, wrong })
    }

    /// `{"prompt", "chosen", "rejected", "kind"}` rows of contrasts alone, to read prompt and answer by before any objective is learnt.
    pub fn reader_rows(&self, count: usize, seed: u64) -> Vec<Value> {
        let purpose = format!("{}/reader", self.name);
        let prompts = self.prompts(count, seed, "reader").into_iter().enumerate();
        let found = prompts.filter_map(|(i, prompt)| self.contrast(&prompt, &mut rng(seed, &purpose, i as u64)));
        found.map(|contrast| contrast.row()).collect()
    }

    /// An answer, sometimes with a flaw.
    pub(crate) fn drawn(&self, prompt: &str, rng: &mut Rng) -> String {
        let flawed = if rng.random_bool(FLAWED) { self.contrast(prompt, rng) } else { None };
        flawed.map_or_else(|| (self.answer)(prompt, rng), |contrast| contrast.wrong)
    }
}

/// What spoils an answer, given one to another prompt; `None` where there is nothing to spoil.
type Spoil = fn(&str, &str, &mut Rng) -> Option<String>;

/// What may be wrong with an answer, whatever its task, and how often it is among what is wrong: sentences that end as another does are the
/// hardest to tell, and a whole answer to another prompt is good as far as it goes.
pub const FLAWS: &[(&str, Spoil, f64)] = &[
    ("repeated", repeated, 0.06),
    ("cut", |answer, _, rng| Some(cut(answer, rng)), 0.06),
    ("foreign answer", foreign_answer, 0.2),
    ("foreign sentence", foreign, 0.08),
    ("foreign end", foreign_end, 0.22),
    ("own end", own_end, 0.38),
];

/// One of its sentences, said up to six times more.
fn repeated(answer: &str, _: &str, rng: &mut Rng) -> Option<String> {
    let own = whole(answer)?;
    let again = vec![pick(rng, &own).clone(); rng.random_range(1..=6)];
    Some([own, again].concat().join(" "))
}

/// Without its last words.
pub(crate) fn cut(answer: &str, rng: &mut Rng) -> String {
    let words: Vec<&str> = answer.split(' ').collect();
    let keep = rng.random_range(words.len() / 2..words.len()).max(1);
    words[..keep].join(" ").trim_end_matches('.').to_owned()
}

/// The other answer in its place.
fn foreign_answer(_: &str, other: &str, _: &mut Rng) -> Option<String> {
    Some(other.to_owned())
}

/// With a sentence of the other answer somewhere.
fn foreign(answer: &str, other: &str, rng: &mut Rng) -> Option<String> {
    let mut own = whole(answer)?;
    own.insert(rng.random_range(0..=own.len()), pick(rng, &whole(other)?).clone());
    Some(own.join(" "))
}

/// One of its sentences ends as one of the other answer does.
fn foreign_end(answer: &str, other: &str, rng: &mut Rng) -> Option<String> {
    spliced(answer, &whole(other)?, rng)
}

/// One of its sentences ends as another of its own does.
fn own_end(answer: &str, _: &str, rng: &mut Rng) -> Option<String> {
    spliced(answer, &whole(answer)?, rng)
}

fn spliced(answer: &str, ends: &[String], rng: &mut Rng) -> Option<String> {
    let mut own = whole(answer)?;
    let at = rng.random_range(0..own.len());
    let (start, end): (Vec<&str>, Vec<&str>) = (own[at].split(' ').collect(), pick(rng, ends).split(' ').collect());
    let (head, tail) = (rng.random_range(1..=start.len()), rng.random_range(0..end.len()));
    let mixed = [&start[..head], &end[tail..]].concat().join(" ");
    own[at] = mixed;
    Some(own.join(" "))
}

/// The sentences of an answer with their full stops, if there are any.
fn whole(answer: &str) -> Option<Vec<String>> {
    let own: Vec<String> = sentences(answer).map(|s| format!("{s}.")).collect();
    (!own.is_empty()).then_some(own)
}
