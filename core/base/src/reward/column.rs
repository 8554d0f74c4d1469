//! A score that the data set carries.

use super::{RewardSource, Sample};
use crate::data::columns::{found, missing};
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

impl Column {
    /// The row's score; none where the column is null.
    fn of(&self, row: &Value) -> Result<Option<f64>, String> {
        let name = &self.column;
        match row.get(name) {
            Some(Value::Null) => Ok(None),
            Some(Value::Number(n)) => Ok(n.as_f64()),
            Some(other) => {
                let mend = "a score is a number without quotes, or null where there is none";
                Err(format!("column \"{name}\" is {}; {mend}", found(other)))
            }
            None => Err(format!("the row {} (write null in rows without a score)", missing(row, &[name]))),
        }
    }
}

impl RewardSource for Column {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        let none = || format!("column \"{}\" is null, and here every row needs a score", self.column);
        batch.iter().map(|s| self.of(s.row)?.ok_or_else(none)).collect()
    }

    fn check_row(&self, row: &Value) -> Result<(), String> {
        self.of(row).map(|_| ())
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        batch.iter().map(|s| self.of(s.row)).collect()
    }
}
