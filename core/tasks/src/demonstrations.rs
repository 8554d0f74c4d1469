//! Demonstrations: what a policy is fine-tuned on before anything is trained by preferences.

use crate::{Task, pick, sentences, tldr};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use serde_json::{Value, json};

/// Names of the length prefix: a high number beside one of the first asks for many sentences, beside one of the second for few. None is
/// an objective of a task.
pub const LENGTH: [[&str; 4]; 2] = [["Detail", "North", "Alpha", "Gold"], ["Brevity", "South", "Beta", "Silver"]];

/// The share of demonstrations whose prompt has a length prefix. With half of them a policy of this size did not learn to tell names apart.
const STYLED: f64 = 0.8;

/// Sentences that the length prefix asks for at the highest number; at the lowest it is one.
const LONGEST: f64 = 7.0;

/// How a method writes two names and the weight of the first into a prompt, as a row's `prompt`.
pub type Style<'a> = &'a dyn Fn([&str; 2], f64, &str) -> Value;

impl Task {
    /// `{"prompt", "completion"}` rows whose completion says the prompt again. A network that was taught to copy first finds what a prompt
    /// states soon; without it some kinds of facts stayed guesses, others in every run.
    pub fn echo_rows(&self, count: usize, seed: u64) -> Vec<Value> {
        let echo = |prompt: String| json!({ "prompt": prompt, "completion": prompt.trim_end_matches(tldr::END) });
        self.prompts(count, seed, "echo").into_iter().map(echo).collect()
    }

    /// `{"prompt", "completion"}` rows for supervised fine-tuning. Most prompts ask for an answer's length by two numbers, in one
    /// of `styles` (formats of methods, each with the two names, the weight of the first and the prompt). The names are no objectives, and
    /// which of the two comes first is drawn: like an instruction-tuned model, the initial policy can read such numbers, but neither an
    /// objective's name nor its place says anything to it yet. No row has a prompt that `kept` says is kept for evaluation.
    pub fn sft_rows(&self, count: usize, seed: u64, styles: &[Style], kept: impl Fn(&str) -> bool) -> Vec<Value> {
        let prompts = self.prompts(count * 2, seed, "sft").into_iter().enumerate().filter(|(_, plain)| !kept(plain));
        let row = |(i, plain): (usize, String)| {
            let rng = &mut rng(seed, &format!("{}/sft answer", self.name), i as u64);
            if styles.is_empty() || !rng.random_bool(STYLED) {
                return json!({ "prompt": plain, "completion": (self.answer)(&plain, rng) });
            }
            let weight = tenths(rng);
            let [more, less] = LENGTH.map(|names| *pick(rng, &names));
            let (names, length) =
                if rng.random_bool(0.5) { ([more, less], weight) } else { ([less, more], 1.0 - weight) };
            self.styled(&plain, names, weight, length, styles, rng)
        };
        prompts.take(count).map(row).collect()
    }

    /// The same under the objectives' own names, in either order. Whether the first or the second asks for many sentences is drawn for each row: the
    /// initial policy then looks at the numbers, and favours neither objective and neither place. A small network that never saw the names
    /// took them in one place for one of [`LENGTH`].
    pub fn undirected_rows(
        &self,
        count: usize,
        seed: u64,
        styles: &[Style],
        kept: impl Fn(&str) -> bool,
    ) -> Vec<Value> {
        let prompts = self.prompts(count * 2, seed, "undirected").into_iter().enumerate();
        let row = |(i, plain): (usize, String)| {
            let rng = &mut rng(seed, &format!("{}/undirected answer", self.name), i as u64);
            let [one, other] = self.objectives;
            let names = if rng.random_bool(0.5) { [one, other] } else { [other, one] };
            let (by_first, weight) = (rng.random_bool(0.5), tenths(rng));
            self.styled(&plain, names, weight, if by_first { weight } else { 1.0 - weight }, styles, rng)
        };
        prompts.filter(|(_, plain)| !kept(plain)).take(count).map(row).collect()
    }

    /// A row in one of the styles, with `weight` beside the first name and an answer that is as long as `length`, from 0 to 1, says.
    fn styled(
        &self,
        plain: &str,
        names: [&str; 2],
        weight: f64,
        length: f64,
        styles: &[Style],
        rng: &mut Rng,
    ) -> Value {
        let wanted = 1.0 + (LONGEST - 1.0) * length;
        let miss = |a: &String| (sentences(a).count() as f64 - wanted).abs();
        let drawn: Vec<String> = (0..12).map(|_| (self.answer)(plain, rng)).collect();
        let closest = drawn.into_iter().min_by(|a, b| miss(a).total_cmp(&miss(b))).unwrap_or_default();
        json!({ "prompt": pick(rng, styles)(names, weight, plain), "completion": closest })
    }
}

/// A weight in steps of a tenth.
fn tenths(rng: &mut Rng) -> f64 {
    f64::from(rng.random_range(0..=10)) / 10.0
}
