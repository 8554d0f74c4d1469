//! The rewards of an experiment, as options.

use motrain_core::plan::Component;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One reward: an objective, a second opinion on one, or only watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// The objective's name, as in the weight prefix and in metrics.
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    pub source: Component,
    /// Scored and reported, but never trained on.
    #[serde(default)]
    pub watch: bool,
    /// The objective that this is a second opinion on: scored, scaled and reported beside it, and never trained on but by `drift` of the online stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub of: Option<String>,
    /// `[low, high]`: the raw scores that become 0 and 1. Without it they are fitted.
    #[serde(default)]
    #[schemars(inner(range(min = -1e9, max = 1e9)))]
    pub scale: Option<[f64; 2]>,
}

/// Names of the objectives, in the order of the weights.
pub fn objectives(sources: &[Reward]) -> Vec<String> {
    sources.iter().filter(|s| !s.watch && s.of.is_none()).map(|s| s.name.clone()).collect()
}

/// The objectives that have second opinions, by place, and the names of all that score them, their own first.
pub fn doubted(sources: &[Reward]) -> Vec<(usize, Vec<String>)> {
    let opinions = |of: &String| sources.iter().filter(|s| s.of.as_ref() == Some(of)).map(|s| s.name.clone()).collect();
    let all = objectives(sources).into_iter().enumerate();
    let all = all.map(|(k, own)| (k, [vec![own.clone()], opinions(&own)].concat()));
    all.filter(|(_, members)| members.len() > 1).collect()
}
