//! The embedded tasks: two small worlds in plain English, made by seeded grammars, each with two conflicting objectives and good
//! answers in between. The grammars make prompts, demonstrations, contrasts and rated answers; the gold scores judge any text.

mod contrasts;
mod demonstrations;
pub mod hh;
mod judge;
mod reward;
pub mod tldr;

use contrasts::cut;
pub use contrasts::{Contrast, FLAWS};
pub use demonstrations::{LENGTH, Style};

use motrain_core::Registry;
use motrain_core::error::{Error, Result, did_you_mean};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use serde_json::{Value, json};
use std::collections::HashSet;

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
    ("tldr_conciseness", tldr::conciseness),
];

/// A kind of statement, with something of it.
pub type Said<T> = (&'static str, T);

/// A task: its name, grammar and gold scores.
pub struct Task {
    /// As `motrain make-data` and the configuration name it.
    pub name: &'static str,
    /// The objectives' names, as the weight prefix writes them.
    pub objectives: [&'static str; 2],
    prompt: fn(&mut Rng) -> String,
    answer: fn(&str, &mut Rng) -> String,
    contrast: fn(&str, &mut Rng) -> Option<Contrast>,
    /// All answers of the grammar to a prompt, but for orders and wordings that no score tells apart.
    pub answers: fn(&str) -> Vec<String>,
    /// The kinds of what an answer states, each with whether it belongs to the prompt.
    pub said: fn(&str, &str) -> Vec<Said<bool>>,
    /// The reward models' names, in the order of the objectives, each with the score that it is to learn.
    pub gold: [(&'static str, GoldScore); 2],
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
        answers: hh::answers,
        said: hh::said,
        gold: [("helpful", hh::helpful), ("harmless", hh::harmless)],
    },
    Task {
        name: "tldr",
        objectives: ["Quality", "Entailment"],
        prompt: tldr::prompt,
        answer: tldr::answer,
        contrast: tldr::contrast,
        answers: tldr::answers,
        said: tldr::said,
        gold: [("quality", tldr::quality), ("entailment", tldr::entailment)],
    },
];

/// The share of prompts whose two rated answers are a contrast. A reward model that only ever sees whole answers learns to count kinds of
/// sentences and never reads the prompt; one that only saw well-formed text is fooled by any other, and a policy finds out.
const CONTRASTS: f64 = 0.67;

/// The share of rated answers that end midway, as at a limit of length.
const CUT: f64 = 0.06;

/// The share of a task's prompts that are kept for its evaluations: no demonstration, contrast or rating that anything trains on has one.
pub const TEST_SHARE: f64 = 0.2;

impl Task {
    fn prompts(&self, count: usize, seed: u64, purpose: &str) -> Vec<String> {
        let draw = |i| (self.prompt)(&mut rng(seed, &format!("{}/{purpose}", self.name), i as u64));
        (0..count).map(draw).collect()
    }

    /// `{"prompt"}` rows, without repetition.
    pub fn prompt_rows(&self, count: usize, seed: u64) -> Vec<Value> {
        let mut seen = HashSet::new();
        let fresh = self.prompts(count * 4, seed, "prompts").into_iter().filter(|p| seen.insert(p.clone()));
        fresh.take(count).map(|prompt| json!({ "prompt": prompt })).collect()
    }

    /// `{"prompt"}` rows that `kept` keeps for evaluation and that are not among `shown`: to choose options by, so that those are not chosen by
    /// what they are then measured on.
    pub fn validation_rows(&self, count: usize, seed: u64, shown: &[Value], kept: impl Fn(&str) -> bool) -> Vec<Value> {
        let shown: HashSet<_> = shown.iter().filter_map(|row| row["prompt"].as_str()).collect();
        let mut seen = HashSet::new();
        let fresh = |prompt: &String| kept(prompt) && !shown.contains(prompt.as_str()) && seen.insert(prompt.clone());
        let drawn = self.prompts(count * 100, seed, "validation").into_iter().filter(fresh);
        drawn.take(count).map(|prompt| json!({ "prompt": prompt })).collect()
    }

    /// `{"prompt", "completion", …}` rows with the gold score of each objective by its name: for every prompt the two answers of a [`Contrast`], or two
    /// of the grammar; some end midway.
    pub fn rated_rows(&self, prompts: usize, seed: u64) -> Vec<Value> {
        let purpose = format!("{}/rated", self.name);
        let both = |(i, prompt): (usize, String)| {
            let rng = &mut rng(seed, &purpose, i as u64);
            let contrast = if rng.random_bool(CONTRASTS) { self.contrast(&prompt, rng) } else { None };
            let drawn = |rng: &mut Rng| [self.drawn(&prompt, rng), self.drawn(&prompt, rng)];
            let answers = contrast.map_or_else(|| drawn(rng), |c| [c.right, c.wrong]);
            answers
                .map(|answer| if rng.random_bool(CUT) { cut(&answer, rng) } else { answer })
                .map(|a| self.rated(&prompt, &a))
        };
        self.prompts(prompts, seed, "rated").into_iter().enumerate().flat_map(both).collect()
    }

    fn rated(&self, prompt: &str, completion: &str) -> Value {
        let mut row = json!({ "prompt": prompt, "completion": completion });
        for (objective, gold) in self.gold {
            row[objective] = json!(gold(prompt, completion));
        }
        row
    }
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

    fn text<'a>(row: &'a Value, name: &str) -> &'a str {
        row[name].as_str().unwrap()
    }

    #[test]
    fn objectives_conflict_and_the_best_answer_depends_on_the_weights() {
        for task in &TASKS {
            let rows = task.sft_rows(4000, 1, &[], |_| false);
            let scores: Vec<[f64; 2]> = rows
                .iter()
                .map(|r| task.gold.map(|(_, gold)| gold(text(r, "prompt"), text(r, "completion"))))
                .collect();
            let column = |k: usize| scores.iter().map(|s| s[k]).collect::<Vec<f64>>();
            let correlation = pearson(&column(0), &column(1));
            assert!(correlation < -0.4, "{}: {correlation}", task.name);
            let best = |tenths: u32| {
                let w = f64::from(tenths) / 10.0;
                let value = |s: &[f64; 2]| w * s[0] + (1.0 - w) * s[1];
                scores.iter().copied().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap()
            };
            let mut front: Vec<[f64; 2]> = (0..=10).map(best).collect();
            assert!(front.windows(2).all(|f| f[0][0] <= f[1][0] && f[0][1] >= f[1][1]), "{}: {front:?}", task.name);
            front.dedup();
            assert!(front.len() >= 6, "{}: {front:?}", task.name);
            assert!(mean(&column(0)) < front[front.len() - 1][0] - 0.2 && mean(&column(1)) < front[0][1] - 0.2);
        }
    }

    #[test]
    fn contrasts_are_of_every_kind_and_gold_scores_punish_them() {
        for task in &TASKS {
            let contrasts = task.contrasts(3000, 1);
            let mut kinds = std::collections::BTreeMap::new();
            for Contrast { prompt, kind, right, wrong } in contrasts {
                *kinds.entry(kind).or_insert(0) += 1;
                let (good, bad) = ((task.said)(&prompt, &right), (task.said)(&prompt, &wrong));
                assert!(good.iter().all(|(_, own)| *own), "{prompt}\n{right}");
                if good.iter().any(|(of, _)| *of == kind) && !FLAWS.iter().any(|(flaw, ..)| *flaw == kind) {
                    let odd: Vec<_> = bad.iter().filter(|(_, own)| !own).collect();
                    assert_eq!((odd, good.len()), (vec![&(kind, false)], bad.len()), "{prompt}\n{wrong}");
                }
                for (name, gold) in task.gold {
                    let (good, bad) = (gold(&prompt, &right), gold(&prompt, &wrong));
                    assert!(good > bad, "{name}: {good} {bad}\n{prompt}\n{right}\n{wrong}");
                }
            }
            assert!(
                kinds.len() >= FLAWS.len() + 4 && kinds.values().all(|count| *count >= 40),
                "{}: {kinds:?}",
                task.name
            );
        }
    }

    /// No answer that the grammar draws is better than the best of those that are listed, at any weight.
    #[test]
    fn the_listed_answers_are_the_best_that_there_are() {
        for task in &TASKS {
            for row in task.sft_rows(400, 5, &[], |_| false) {
                let (prompt, drawn) = (text(&row, "prompt"), text(&row, "completion"));
                let scores = |answer: &str| task.gold.map(|(_, gold)| gold(prompt, answer));
                let listed: Vec<[f64; 2]> = (task.answers)(prompt).iter().map(|answer| scores(answer)).collect();
                for w in [0.0, 0.2, 0.45, 0.7, 1.0] {
                    let value = |s: &[f64; 2]| w * s[0] + (1.0 - w) * s[1];
                    let best = listed.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
                    assert!(best >= value(&scores(drawn)) - 1e-12, "{prompt}\n{drawn}");
                }
            }
        }
    }

    #[test]
    fn rows_are_repeatable_and_prompts_unique() {
        for task in &TASKS {
            let style: Style = &|names, w, prompt| json!(format!("{} {} {w}\n{prompt}", names[0], names[1]));
            let rows = |count| task.sft_rows(count, 3, &[style], |prompt| prompt.contains("Please"));
            assert_eq!(rows(5), rows(5));
            assert!(rows(500).iter().all(|r| !text(r, "prompt").contains("Please")), "prompts that are kept");
            let all = rows(6000);
            let lengths = |names: [&str; 4], w: &str| {
                let of = |r: &&Value| {
                    let line = text(r, "prompt").lines().next().unwrap();
                    names.iter().any(|n| line.starts_with(&format!("{n} "))) && line.ends_with(&format!(" {w}"))
                };
                let with: Vec<f64> =
                    all.iter().filter(of).map(|r| sentences(text(r, "completion")).count() as f64).collect();
                mean(&with)
            };
            let [more, less] = LENGTH;
            assert!(lengths(more, "1") > lengths(more, "0") + 4.0 && lengths(less, "0") > lengths(less, "1") + 4.0);
            let prompts = task.prompt_rows(300, 3);
            let unique: HashSet<String> = prompts.iter().map(Value::to_string).collect();
            assert_eq!((prompts.len(), unique.len()), (300, 300), "{}", task.name);
            let rated = task.rated_rows(300, 3);
            assert_eq!(rated.len(), 600);
            let [one, other] =
                task.gold.map(|(name, _)| rated.iter().map(|r| r[name].as_f64().unwrap()).collect::<Vec<_>>());
            // What is wrong in an answer is so for both objectives; in what is right they conflict.
            assert!(pearson(&one, &other) > 0.2, "{}: {}", task.name, pearson(&one, &other));
        }
    }

    #[test]
    fn under_the_objectives_names_either_number_asks_for_length() {
        for task in &TASKS {
            let style: Style = &|names, w, prompt| json!(format!("{} {} {w}\n{prompt}", names[0], names[1]));
            let rows = task.undirected_rows(4000, 3, &[style], |prompt| prompt.contains("Please"));
            assert!(rows.iter().all(|r| !text(r, "prompt").contains("Please")), "prompts that are kept");
            for first in task.objectives {
                let lengths = |w: &str| -> Vec<f64> {
                    let line = |r: &&Value| {
                        let line = text(r, "prompt").lines().next().unwrap();
                        line.starts_with(first) && line.ends_with(&format!(" {w}"))
                    };
                    rows.iter().filter(line).map(|r| sentences(text(r, "completion")).count() as f64).collect()
                };
                let (low, high) = (lengths("0"), lengths("1"));
                assert!((mean(&low) - mean(&high)).abs() < 0.8, "{}: {} {}", task.name, mean(&low), mean(&high));
                let long = |all: &[f64]| all.iter().filter(|n| **n > 4.0).count() as f64 / all.len() as f64;
                assert!((0.3..0.7).contains(&long(&low)) && (0.3..0.7).contains(&long(&high)), "{}", task.name);
            }
        }
    }

    #[test]
    fn validation_prompts_are_neither_shown_nor_trained_on() {
        for task in &TASKS {
            let shown = task.prompt_rows(1000, 3);
            let kept = |prompt: &str| prompt.len().is_multiple_of(3);
            let rows = task.validation_rows(60, 3, &shown, kept);
            assert_eq!(rows.len(), 60, "{}", task.name);
            assert!(rows.iter().all(|r| kept(text(r, "prompt")) && !shown.contains(r)), "{}", task.name);
        }
    }
}
