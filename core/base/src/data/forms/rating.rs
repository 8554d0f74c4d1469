//! Answers and their ratings, each a number in a column of its own, as HelpSteer has them.

use super::Found;
use super::demonstration::{Answered, answered};
use crate::data::columns::{missing, number};
use crate::data::notes::Notes;
use serde_json::Value;

/// An answered prompt, and what it is rated in each of `attributes`, of which the row has at least one.
pub fn rating(columns: &Value, attributes: &[String], notes: &mut Notes) -> Found<(Answered, Vec<Option<f64>>)> {
    let ratings = attributes.iter().map(|name| number(columns, name)).collect::<Result<Vec<_>, _>>()?;
    if ratings.iter().all(Option::is_none) {
        let names: Vec<&str> = attributes.iter().map(String::as_str).collect();
        let empty = names.iter().any(|name| columns.get(name).is_some());
        let why = if empty { "the columns of all ratings are null".into() } else { missing(columns, &names) };
        return Ok(notes.leave_out(&why));
    }
    Ok(answered(columns, &["completion", "response"], notes)?.map(|answered| (answered, ratings)))
}
