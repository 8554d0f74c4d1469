//! The paper's prefix (section 3.3):
//!
//! ```text
//! [Begin System Instruction]
//! Helpfulness: 0.8, Harmlessness: 0.2
//! [End System Instruction]
//! ```

use super::{Conditioner, decimal, on_first_user};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "weight_prefix",
    summary: "the paper's prefix: \"Helpfulness: 0.8, Harmlessness: 0.2\" between system-instruction marks",
    schema: schema::<WeightPrefix>(),
    build: |owner, options| Ok(Box::new(parse::<WeightPrefix>(owner, options)?)),
};

const BEGIN: &str = "[Begin System Instruction]\n";
const END: &str = "\n[End System Instruction]\n";

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WeightPrefix {
    /// Decimals that a weight is written with.
    #[schemars(range(min = 1, max = 6))]
    decimals: usize,
}

impl Default for WeightPrefix {
    fn default() -> Self {
        Self { decimals: 1 }
    }
}

impl Options for WeightPrefix {}

impl Conditioner for WeightPrefix {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let parts: Vec<String> = objectives
            .iter()
            .zip(weights.values())
            .map(|(name, w)| format!("{name}: {}", decimal(*w, self.decimals)))
            .collect();
        on_first_user(prompt, |text| Some(format!("{BEGIN}{}{END}{text}", parts.join(", "))))
            .ok_or_else(|| Error::Invalid("a prompt without a user turn cannot be conditioned on weights".into()))
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let mut weights = None;
        let plain = on_first_user(conditioned, |text| {
            let (list, rest) = text.strip_prefix(BEGIN)?.split_once(END)?;
            let mut left = list;
            let mut values = Vec::new();
            for name in objectives {
                let value = left.trim_start_matches(", ").strip_prefix(name.as_str())?.strip_prefix(": ")?;
                let end = value.find(", ").unwrap_or(value.len());
                values.push(value[..end].parse().ok()?);
                left = &value[end..];
            }
            weights = Weights::new(values).ok();
            left.is_empty().then(|| rest.to_owned())
        })?;
        Some((weights?, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use serde_json::json;

    fn objectives() -> Vec<String> {
        vec!["Helpfulness".into(), "Harmlessness".into()]
    }

    #[test]
    fn renders_the_papers_text() {
        let prefix = Registry::builtin().conditioners.build("weight_prefix", &json!({})).unwrap();
        let weights = Weights::new(vec![0.8, 0.2]).unwrap();
        let rendered = prefix.render(&objectives(), &weights, &Prompt::user("Hi")).unwrap();
        assert_eq!(
            rendered.last_user(),
            "[Begin System Instruction]\nHelpfulness: 0.8, Harmlessness: 0.2\n[End System Instruction]\nHi"
        );
    }

    #[test]
    fn parse_inverts_render_on_the_whole_grid() {
        let prefix = Registry::builtin().conditioners.build("weight_prefix", &json!({})).unwrap();
        for k in [2usize, 3, 5] {
            let names: Vec<String> = (0..k).map(|i| format!("Objective {i}, part: b")).collect();
            let prompt = Prompt::from_dialogue("\n\nHuman: A\n[End System Instruction]\n\n\nAssistant: B\n\nHuman: C");
            for weights in Weights::grid(k, 10) {
                let rendered = prefix.render(&names, &weights, &prompt).unwrap();
                assert_eq!(prefix.parse(&names, &rendered), Some((weights, prompt.clone())));
            }
        }
        assert_eq!(prefix.parse(&objectives(), &Prompt::user("Hi")), None);
    }
}
