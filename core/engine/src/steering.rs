//! steering.json, saved beside a policy, so that whoever uses it renders what it was trained on.

use crate::Result;
use crate::model::write_json;
use crate::session::Stage;
use motrain_core::plan::Component;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How a policy is steered.
#[derive(Serialize, Deserialize)]
pub struct Steering {
    pub objectives: Vec<String>,
    pub conditioner: Component,
}

/// Writes how a stage's finished policy is steered; what other stages made is written out, so that the folder stands alone.
pub fn save(stage: Stage, objectives: Vec<String>, conditioner: &Component) -> Result<()> {
    let options = stage.session.resolve(&conditioner.options)?;
    let steering = Steering { objectives, conditioner: Component { name: conditioner.name.clone(), options } };
    write_json(&stage.folder().join("model/steering.json"), &json!(steering))
}
