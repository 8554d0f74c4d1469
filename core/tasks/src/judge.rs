//! The programmatic gold scores of the embedded tasks as judge: the higher score is better.

use crate::{GoldScore, gold_names, gold_score};
use motrain_core::judge::{Duel, Judge, Verdict};
use motrain_core::options::{Options, parse};
use motrain_core::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Judge> = Builtin {
    name: "gold",
    summary: "a programmatic score of an embedded task: the higher one is better",
    schema: schema::<Gold>(),
    build: |owner, options| {
        let Gold { score, margin } = parse(owner, options)?;
        Ok(Box::new(Scores { score: gold_score(owner, &score)?, margin }))
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gold {
    /// "hh_helpful", "hh_harmless", "tldr_quality", "tldr_entailment" or "tldr_conciseness".
    #[schemars(extend("enum" = gold_names()))]
    score: String,
    /// Scores closer than this are a tie.
    #[serde(default = "margin")]
    #[schemars(range(min = 0, max = 1e6))]
    margin: f64,
}

fn margin() -> f64 {
    1e-9
}

impl Options for Gold {}

struct Scores {
    score: GoldScore,
    margin: f64,
}

impl Judge for Scores {
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String> {
        let verdict = |d: &Duel| {
            let gap = (self.score)(d.prompt.last_user(), d.first) - (self.score)(d.prompt.last_user(), d.second);
            match gap {
                gap if gap > self.margin => Verdict::First,
                gap if gap < -self.margin => Verdict::Second,
                _ => Verdict::Tie,
            }
        };
        Ok(duels.iter().map(|d| Some(verdict(d))).collect())
    }
}
