//! The programmatic gold scores of the embedded tasks: never trained on, reported beside the reward models so that reward
//! hacking shows.

use crate::{GoldScore, gold_names, gold_score};
use motrain_core::options::{Options, parse};
use motrain_core::registry::{Builtin, schema};
use motrain_core::reward::{RewardSource, Sample};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "gold",
    summary: "a programmatic score of an embedded task, computed from the text itself",
    schema: schema::<Gold>(),
    build: |owner, options| {
        let Gold { score } = parse(owner, options)?;
        Ok(Box::new(Scorer(gold_score(owner, &score)?)))
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gold {
    /// "hh_helpful", "hh_harmless", "tldr_quality", "tldr_entailment" or "tldr_conciseness".
    #[schemars(extend("enum" = gold_names()))]
    score: String,
}

impl Options for Gold {}

struct Scorer(GoldScore);

impl RewardSource for Scorer {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        Ok(batch.iter().map(|s| (self.0)(s.prompt.last_user(), s.completion)).collect())
    }
}
