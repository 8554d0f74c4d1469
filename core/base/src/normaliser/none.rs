//! Scores as their frozen scale makes them.

use super::Normaliser;
use crate::metrics::stats::Moments;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::Range;

pub const BUILTIN: Builtin<dyn Normaliser> = Builtin {
    name: "none",
    summary: "scores as their scale makes them",
    schema: schema::<Nothing>(),
    build: |owner, options| Ok(Box::new(parse::<Nothing>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Nothing {}

impl Options for Nothing {}

impl Normaliser for Nothing {
    fn scores(&self, _scores: &mut [Option<Vec<f64>>], _groups: &[Range<usize>], _seen: &mut Vec<Moments>) {}
}
