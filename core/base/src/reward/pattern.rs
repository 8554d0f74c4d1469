//! How often a regular expression matches.

use super::{RewardSource, Sample};
use crate::error::Error;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "regex",
    summary: "how often a regular expression matches the completion",
    schema: schema::<Pattern>(),
    build: |owner, options| {
        let Pattern { pattern, score } = parse(owner, options)?;
        let regex = Regex::new(&pattern).map_err(|e| Error::BadOption {
            owner: owner.into(),
            option: "pattern".into(),
            what: format!("is no regular expression: {e}"),
        })?;
        Ok(Box::new(Matches { regex, score }))
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pattern {
    /// The expression, in the syntax of the regex crate.
    #[schemars(length(min = 1, max = 100_000), extend("format" = "regex"))]
    pattern: String,
    /// Score of each match.
    #[serde(default = "one")]
    #[schemars(range(min = -1e9, max = 1e9))]
    score: f64,
}

fn one() -> f64 {
    1.0
}

impl Options for Pattern {}

struct Matches {
    regex: Regex,
    score: f64,
}

impl RewardSource for Matches {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        Ok(batch.iter().map(|s| self.regex.find_iter(s.completion).count() as f64 * self.score).collect())
    }
}
