//! The prompt as it is: for specialists, which are steered by their parameters.

use super::Conditioner;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "none",
    summary: "leaves the prompt as it is",
    schema: schema::<Plain>(),
    build: |owner, options| Ok(Box::new(parse::<Plain>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Plain {}

impl Options for Plain {}

impl Conditioner for Plain {
    fn render(&self, _objectives: &[String], _weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        Ok(prompt.clone())
    }

    fn parse(&self, _objectives: &[String], _conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        None
    }
}
