//! The sum of the scores that words have.

use super::{RewardSource, Sample, words};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "lexicon",
    summary: "the sum of scores that words of the completion have",
    schema: schema::<Lexicon>(),
    build: |owner, options| {
        let mut lexicon = parse::<Lexicon>(owner, options)?;
        lexicon.words = lexicon.words.drain().map(|(word, score)| (word.to_lowercase(), score)).collect();
        Ok(Box::new(lexicon))
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lexicon {
    /// Score of each word, for example #{ sorry: -1, thanks: 1 }. Case does not matter.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1_000_000, "additionalProperties" = json!({
        "type": "number", "minimum": -1e9, "maximum": 1e9
    })))]
    words: HashMap<String, f64>,
    /// Divide by the completion's number of words.
    #[serde(default)]
    per_word: bool,
}

impl Options for Lexicon {}

impl RewardSource for Lexicon {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        let one = |s: &Sample| {
            let (mut sum, mut count) = (0.0, 0usize);
            for word in words(s.completion) {
                sum += self.words.get(&word).copied().unwrap_or(0.0);
                count += 1;
            }
            if self.per_word { sum / count.max(1) as f64 } else { sum }
        };
        Ok(batch.iter().map(one).collect())
    }
}
