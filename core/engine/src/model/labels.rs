//! What a classifier's labels are called: in config.json, and beside an adapter, whose base knows nothing of its head.

use super::head;
use crate::fields::Fields;
use crate::files::write_json;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The file beside an adapter. PEFT has no place for it.
const FILE: &str = "labels.json";

/// The labels of a head, in order, and what they are trained for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    pub names: Vec<String>,
    /// transformers' `problem_type`.
    pub problem: Option<String>,
}

impl Labels {
    /// Of a head that compares answers: its one score.
    pub fn reward() -> Self {
        Self { names: vec!["reward".into()], problem: None }
    }

    /// Each the estimate of a rating.
    pub fn ratings(names: &[String]) -> Self {
        Self { names: names.to_vec(), problem: Some("regression".into()) }
    }

    /// Of a head that nobody has named.
    pub fn numbered(count: usize) -> Self {
        Self { names: head::numbered("LABEL", count), problem: None }
    }

    /// `id2label` and `label2id`.
    pub fn fields(names: &[String]) -> [(&'static str, Value); 2] {
        let by_id = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
        let by_name = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i)));
        [("id2label", Value::Object(by_id.collect())), ("label2id", Value::Object(by_name.collect()))]
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut said: Map<String, Value> =
            Self::fields(&self.names).map(|(name, value)| (name.into(), value)).into_iter().collect();
        said.extend(self.problem.as_ref().map(|problem| ("problem_type".to_owned(), json!(problem))));
        write_json(&folder.join(FILE), &Value::Object(said))
    }

    /// The labels that lie beside an adapter, if it has any.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let read = || {
            let mut fields = Fields::parse(&text)?;
            let names = head::labels(&mut fields)?.ok_or("has no id2label")?;
            Ok(Self { names, problem: fields.take("problem_type")? })
        };
        read().map(Some).map_err(|what: String| Error::file(&path, what))
    }
}
