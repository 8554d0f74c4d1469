//! steering.json, saved beside a policy, so that whoever uses it renders what it was trained on.

use crate::model::write_json;
use crate::plan::Component;
use crate::session::Cx;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::ErrorKind;
use std::path::Path;

/// How a policy is steered.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    pub objectives: Vec<String>,
    pub conditioner: Component,
}

impl Steering {
    /// What a policy's folder says.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("steering.json");
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::file(folder, "is not a steerable policy: it has no steering.json"),
            _ => Error::io(&path, e),
        })?;
        serde_json::from_str(&text)
            .map_err(|e| Error::file(&path, format!("does not say how the policy is steered: {e}")))
    }
}

/// Writes how a stage's finished policy is steered; what other stages made is written out, so that the folder stands alone.
pub fn save(stage: Cx, objectives: Vec<String>, conditioner: &Component) -> Result<()> {
    let options = stage.session.resolve(&conditioner.options)?;
    let steering = Steering { objectives, conditioner: Component { name: conditioner.name.clone(), options } };
    write_json(&stage.folder().join("model/steering.json"), &json!(steering))
}
