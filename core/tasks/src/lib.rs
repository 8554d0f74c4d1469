//! The embedded tasks: two small worlds in plain English, made by seeded grammars, each with two conflicting objectives and good
//! answers in between. The grammars make prompts, demonstrations and preference pairs; the gold scores judge any text.

pub mod hh;
mod judge;
mod reward;
pub mod tldr;

use motrain_core::Registry;
use motrain_core::error::{Error, Result, did_you_mean};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use serde_json::{Value, json};

/// Adds the gold scores, as reward and as judge, to a registry.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.rewards.ship(&reward::BUILTIN)?;
    registry.judges.ship(&judge::BUILTIN)
}

/// A programmatic score of (prompt text, completion).
pub type GoldScore = fn(&str, &str) -> f64;

/// Every gold score by its name.
pub const GOLD_SCORES: &[(&str, GoldScore)] = &[
    ("hh_helpful", hh::helpful),
    ("hh_harmless", hh::harmless),
    ("tldr_quality", tldr::quality),
    ("tldr_entailment", tldr::entailment),
];

/// A kind of statement, with something of it.
pub type Said<T> = (&'static str, T);

/// Two answers that differ in one statement, of this kind: in one of them it belongs to another prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// What both answer.
    pub prompt: String,
    /// The kind of the statement that differs.
    pub kind: &'static str,
    /// The answer that belongs to the prompt.
    pub right: String,
    /// The other one.
    pub wrong: String,
}

/// A task: its name, grammar and gold scores.
pub struct Task {
    /// As `motrain make-data` and the configuration name it.
    pub name: &'static str,
    /// The objectives' names, as the weight prefix writes them.
    pub objectives: [&'static str; 2],
    prompt: fn(&mut Rng) -> String,
    answer: fn(&str, &mut Rng) -> String,
    contrast: fn(&str, &mut Rng) -> Option<Contrast>,
    /// The kinds of what an answer states, each with whether it belongs to the prompt.
    pub said: fn(&str, &str) -> Vec<Said<bool>>,
    gold: [(&'static str, GoldScore); 2],
}

/// The names of all gold scores.
pub fn gold_names() -> Vec<&'static str> {
    GOLD_SCORES.iter().map(|(name, _)| *name).collect()
}

/// The gold score of a name that the option `score` of `owner` gives.
pub fn gold_score(owner: &str, name: &str) -> Result<GoldScore> {
    let found = GOLD_SCORES.iter().find(|(known, _)| *known == name).map(|(_, score)| *score);
    found.ok_or_else(|| {
        let suggestion = did_you_mean(name, GOLD_SCORES.iter().map(|(known, _)| *known));
        let what = format!("\"{name}\" does not exist{suggestion}");
        Error::BadOption { owner: owner.into(), option: "score".into(), what }
    })
}

/// The embedded ones.
pub const TASKS: [Task; 2] = [
    Task {
        name: "hh",
        objectives: ["Helpfulness", "Harmlessness"],
        prompt: hh::prompt,
        answer: hh::answer,
        contrast: hh::contrast,
        said: hh::said,
        gold: [("helpful", hh::helpful), ("harmless", hh::harmless)],
    },
    Task {
        name: "tldr",
        objectives: ["Quality", "Entailment"],
        prompt: tldr::prompt,
        answer: tldr::answer,
        contrast: tldr::contrast,
        said: tldr::said,
        gold: [("quality", tldr::quality), ("entailment", tldr::entailment)],
    },
];

/// Names of the length prefix: the first asks for many sentences, the second for few. None is an objective of a task.
pub const LENGTH: [[&str; 2]; 6] = [
    ["Detail", "Brevity"],
    ["Depth", "Speed"],
    ["Color", "Calm"],
    ["Variety", "Order"],
    ["North", "South"],
    ["Alpha", "Beta"],
];

/// Label noise of the preference pairs: `P(first) = σ((gold₁ − gold₂)/NOISE)`.
const NOISE: f64 = 0.08;

impl Task {
    fn prompts(&self, count: usize, seed: u64, purpose: &str) -> Vec<String> {
        let draw = |i| (self.prompt)(&mut rng(seed, &format!("{}/{purpose}", self.name), i as u64));
        (0..count).map(draw).collect()
    }

    /// `{"prompt"}` rows, without repetition.
    pub fn prompt_rows(&self, count: usize, seed: u64) -> Vec<Value> {
        let mut seen = std::collections::HashSet::new();
        let fresh = self.prompts(count * 4, seed, "prompts").into_iter().filter(|p| seen.insert(p.clone()));
        fresh.take(count).map(|prompt| json!({ "prompt": prompt })).collect()
    }

    /// Answers that are told apart only by reading the prompt.
    pub fn contrasts(&self, count: usize, seed: u64) -> Vec<Contrast> {
        let prompts = self.prompts(count, seed, "contrast prompts").into_iter().enumerate();
        let purpose = format!("{}/contrasts", self.name);
        prompts.filter_map(|(i, p)| (self.contrast)(&p, &mut rng(seed, &purpose, i as u64))).collect()
    }

    /// `{"prompt", "completion"}` rows for supervised fine-tuning. Half of the prompts carry a weight prefix, under names that are no
    /// objectives, which sets the answer's length: like an instruction-tuned model, the initial policy can read such
    /// numbers, but it has never seen an objective.
    pub fn sft_rows(&self, count: usize, seed: u64, prefix: impl Fn(&[&str], f64, &str) -> String) -> Vec<Value> {
        let prompts = self.prompts(count, seed, "sft").into_iter().enumerate();
        prompts
            .map(|(i, plain)| {
                let mut rng = rng(seed, &format!("{}/sft answer", self.name), i as u64);
                let weight = f64::from(rng.random_range(0..=10)) / 10.0;
                let names = *pick(&mut rng, &LENGTH);
                let prefixed = rng.random_bool(0.5);
                let mut draw = || (self.answer)(&plain, &mut rng);
                let (prompt, completion) = if prefixed {
                    let wanted = 1.0 + 4.0 * weight;
                    let miss = |a: &String| (sentences(a).count() as f64 - wanted).abs();
                    let drawn: Vec<String> = (0..6).map(|_| draw()).collect();
                    let closest = drawn.into_iter().min_by(|a, b| miss(a).total_cmp(&miss(b))).unwrap_or_default();
                    (prefix(&names, weight, &plain), closest)
                } else {
                    (plain.clone(), draw())
                };
                json!({ "prompt": prompt, "completion": completion })
            })
            .collect()
    }

    /// `{"prompt", "chosen", "rejected"}` rows for each of the two objectives, labelled by noisy gold scores.
    pub fn pair_rows(&self, count: usize, seed: u64) -> [(&'static str, Vec<Value>); 2] {
        self.gold.map(|(objective, gold)| {
            let purpose = format!("{}/{objective} pairs", self.name);
            let prompts = self.prompts(count, seed, objective).into_iter().enumerate();
            let rows = prompts
                .map(|(i, prompt)| {
                    let mut rng = rng(seed, &purpose, i as u64);
                    let other = (self.prompt)(&mut rng);
                    let mut draw = || {
                        let answer = (self.answer)(&prompt, &mut rng);
                        if !rng.random_bool(DAMAGED) {
                            return answer;
                        }
                        let foreign = (self.answer)(&other, &mut rng);
                        damage(&answer, &foreign, &mut rng)
                    };
                    let (a, b) = (draw(), draw());
                    let gap = gold(&prompt, &a) - gold(&prompt, &b);
                    let first = rng.random::<f64>() < motrain_core::loss::sigmoid(gap / NOISE);
                    let (chosen, rejected) = if first { (a, b) } else { (b, a) };
                    json!({ "prompt": prompt, "chosen": chosen, "rejected": rejected })
                })
                .filter(|row| row["chosen"] != row["rejected"])
                .collect();
            (objective, rows)
        })
    }
}

/// The share of completions in preference pairs that are damaged: reward models that only ever saw well-formed text can be
/// fooled by any other, and a policy finds out.
const DAMAGED: f64 = 0.35;

/// Repeats, cuts, garbles or mixes in what belongs elsewhere.
fn damage(answer: &str, foreign: &str, rng: &mut Rng) -> String {
    let own: Vec<String> = sentences(answer).map(|s| format!("{s}.")).collect();
    let others: Vec<String> = sentences(foreign).map(|s| format!("{s}.")).collect();
    if own.is_empty() || others.is_empty() {
        return answer.to_owned();
    }
    let mut out = own.clone();
    let at = rng.random_range(0..own.len());
    match rng.random_range(0..6) {
        0 | 1 => {
            let times = rng.random_range(1..=6);
            out.extend(std::iter::repeat_n(own[at].clone(), times));
        }
        2 => out.insert(at, pick(rng, &others).clone()),
        3 => out[at] = spliced(&own[at], pick::<String>(rng, &others), rng),
        4 => out[at] = spliced(&own[at], pick::<String>(rng, &own), rng),
        _ => {
            let words: Vec<&str> = answer.split(' ').collect();
            let keep = rng.random_range(words.len() / 2..words.len()).max(1);
            return words[..keep].join(" ").trim_end_matches('.').to_owned();
        }
    }
    out.join(" ")
}

/// The beginning of one sentence and the end of another.
fn spliced(start: &str, end: &str, rng: &mut Rng) -> String {
    let (start, end): (Vec<&str>, Vec<&str>) = (start.split(' ').collect(), end.split(' ').collect());
    let head = rng.random_range(1..=start.len());
    let tail = rng.random_range(0..end.len());
    [&start[..head], &end[tail..]].concat().join(" ")
}

/// One of the items, each equally likely.
fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[rng.random_range(0..items.len())]
}

/// The sentences of a text: what ends with a full stop, question or exclamation mark.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '?', '!']).map(|s| s.trim().trim_end_matches(['.', '?', '!'])).filter(|s| !s.is_empty())
}

/// The sum of the first `n` numbers: returns that diminish, or costs that grow.
fn first(numbers: &[f64], n: usize) -> f64 {
    numbers.iter().take(n).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use motrain_core::metrics::stats::{mean, pearson};

    #[test]
    fn objectives_conflict_and_the_best_answer_depends_on_the_weights() {
        for task in &TASKS {
            let rows = task.sft_rows(2000, 1, |_, _, prompt| prompt.to_owned());
            let scores: Vec<[f64; 2]> = rows
                .iter()
                .map(|r| {
                    task.gold.map(|(_, gold)| gold(r["prompt"].as_str().unwrap(), r["completion"].as_str().unwrap()))
                })
                .collect();
            let column = |k: usize| scores.iter().map(|s| s[k]).collect::<Vec<f64>>();
            let correlation = pearson(&column(0), &column(1));
            assert!(correlation < -0.2, "{}: {correlation}", task.name);
            let best = |w: f64| {
                let value = |s: &[f64; 2]| w * s[0] + (1.0 - w) * s[1];
                scores.iter().copied().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap()
            };
            let mut fronts: Vec<[f64; 2]> = [0.05, 0.3, 0.45, 0.55, 0.9].map(best).to_vec();
            assert!(fronts.windows(2).all(|f| f[0][0] <= f[1][0] && f[0][1] >= f[1][1]), "{}: {fronts:?}", task.name);
            fronts.dedup();
            assert!(fronts.len() >= 4, "{}: {fronts:?}", task.name);
            assert!(mean(&column(0)) < fronts[fronts.len() - 1][0] - 0.2 && mean(&column(1)) < fronts[0][1] - 0.2);
        }
    }

    #[test]
    fn contrasts_differ_in_one_statement_that_gold_scores_punish() {
        for task in &TASKS {
            let contrasts = task.contrasts(400, 1);
            assert!(contrasts.len() > 300, "{}: {}", task.name, contrasts.len());
            for Contrast { prompt, kind, right, wrong } in contrasts {
                let (good, bad) = ((task.said)(&prompt, &right), (task.said)(&prompt, &wrong));
                assert!(good.iter().all(|(_, own)| *own), "{prompt}\n{right}");
                assert_eq!(
                    bad.iter().filter(|(_, own)| !own).collect::<Vec<_>>(),
                    [&(kind, false)],
                    "{prompt}\n{wrong}"
                );
                assert_eq!(good.len(), bad.len());
                for (name, gold) in task.gold {
                    // The last step is harmful; a foreign one is bad too, if less.
                    let (good, bad) = (gold(&prompt, &right), gold(&prompt, &wrong));
                    assert!(
                        good > bad || (name, kind) == ("harmless", "step"),
                        "{name}: {good} {bad}\n{prompt}\n{wrong}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_are_repeatable_and_prompts_unique() {
        for task in &TASKS {
            let prefix = |names: &[&str], w: f64, prompt: &str| format!("{}: {w}\n{prompt}", &names[0][..1]);
            assert_eq!(task.sft_rows(5, 3, prefix), task.sft_rows(5, 3, prefix));
            let lengths = |w: &str| {
                let rows = task.sft_rows(3000, 3, prefix);
                let with = rows.iter().filter(|r| r["prompt"].as_str().unwrap().contains(&format!(": {w}\n")));
                mean(&with.map(|r| sentences(r["completion"].as_str().unwrap()).count() as f64).collect::<Vec<_>>())
            };
            assert!(lengths("1") > lengths("0") + 1.5, "{} {}", lengths("0"), lengths("1"));
            let prompts = task.prompt_rows(300, 3);
            let unique: std::collections::HashSet<String> = prompts.iter().map(Value::to_string).collect();
            assert_eq!((prompts.len(), unique.len()), (300, 300), "{}", task.name);
            for (_, rows) in task.pair_rows(50, 3) {
                assert!(rows.len() > 40);
            }
        }
    }
}
