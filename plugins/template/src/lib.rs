//! A reward to start from: completions of about a given number of words.

use motrain_plugin::{Component, Reward, Sample};

motrain_plugin::options! {
    /// Options of `acme.about`; what is written here is shown by `motrain list`.
    pub struct Options {
        /// The number of words that a completion should have.
        words: f64 = 20.0,
    }
}

struct About(Options);

impl Component for About {
    const NAME: &'static str = "acme.about";
    const SUMMARY: &'static str = "completions of about a given number of words";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        if options.words < 1.0 {
            return Err(format!("option \"words\" must be at least 1, not {}", options.words));
        }
        Ok(Self(options))
    }
}

impl Reward for About {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let one = |s: &Sample| -(s.completion.split_whitespace().count() as f64 - self.0.words).abs();
        Ok(samples.iter().map(one).collect())
    }
}

motrain_plugin::export! { rewards: [About] }
