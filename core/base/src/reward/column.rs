//! A score that the data set carries.

use super::{RewardSource, Sample};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "column",
    summary: "a score that the prompt's row of the data set carries",
    schema: schema::<Column>(),
    build: |owner, options| Ok(Box::new(parse::<Column>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Column {
    /// The column's name.
    #[schemars(length(min = 1, max = 1000))]
    column: String,
}

impl Options for Column {}

impl RewardSource for Column {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        let value = |s: &Sample| s.row.get(&self.column).and_then(Value::as_f64);
        batch
            .iter()
            .map(|s| value(s).ok_or_else(|| format!("the data has no numeric column \"{}\"", self.column)))
            .collect()
    }
}
