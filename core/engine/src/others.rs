//! What a stage may ask about the stages beside it. A plan answers; who asks need not know plans.

use serde_json::{Map, Value};
use std::any::Any;

/// The stages of a plan, and what they have in common.
pub trait Others {
    /// The seed of all.
    fn seed(&self) -> u64;

    /// Their ids, in order.
    fn ids(&self) -> Vec<&str>;

    /// A stage's options, for who knows their type.
    fn options(&self, id: &str) -> Option<&dyn Any>;

    /// Names of the objectives of the rewards that a stage makes.
    fn objectives(&self, id: &str) -> Option<Vec<String>>;

    /// Whether a plugin brings a component: `reward acme.tone`.
    fn has_in_a_plugin(&self, component: &str) -> bool;
}

/// The stages that a component's options refer to, each with the epoch after which its model is meant.
pub fn stage_refs(options: &Value) -> Vec<(&str, Option<f64>)> {
    match options {
        Value::Object(map) => match stage_ref(map) {
            Some(found) => vec![found],
            None => map.values().flat_map(stage_refs).collect(),
        },
        Value::Array(list) => list.iter().flat_map(stage_refs).collect(),
        _ => vec![],
    }
}

/// What `{"stage": id}` or `{"stage": id, "epoch": number}` refers to.
pub fn stage_ref(map: &Map<String, Value>) -> Option<(&str, Option<f64>)> {
    let id = map.get("stage")?.as_str()?;
    match (map.len(), map.get("epoch").and_then(Value::as_f64)) {
        (1, _) => Some((id, None)),
        (2, Some(epoch)) => Some((id, Some(epoch))),
        _ => None,
    }
}
