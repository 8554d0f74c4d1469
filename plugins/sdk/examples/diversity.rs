//! A reward as a plugin: `cargo build -p motrain-plugin --example diversity`, then `motrain plugin check target/debug/examples/libdiversity.so`.

use motrain_plugin::{Component, Reward, Sample, toolbox};
use std::collections::BTreeSet;

motrain_plugin::options! {
    /// Options of `example.diversity`.
    pub struct Options {
        /// Completions with fewer words score 0: too little to judge.
        least_words: f64 = 5.0,
    }
}

struct Diversity(Options);

impl Component for Diversity {
    const NAME: &'static str = "example.diversity";
    const SUMMARY: &'static str = "the share of a completion's words that it says only once";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        match options.least_words {
            least if least >= 1.0 => Ok(Self(options)),
            least => Err(format!("option \"least_words\" must be at least 1, not {least}")),
        }
    }
}

impl Reward for Diversity {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let one = |sample: &Sample| {
            let words: Vec<String> = toolbox::words(sample.completion).map(str::to_lowercase).collect();
            let different: BTreeSet<&String> = words.iter().collect();
            if (words.len() as f64) < self.0.least_words { 0.0 } else { different.len() as f64 / words.len() as f64 }
        };
        Ok(samples.iter().map(one).collect())
    }
}

motrain_plugin::export! { rewards: [Diversity] }
