//! The paper's prefix (section 3.3):
//!
//! ```text
//! [Begin System Instruction]
//! Helpfulness: 0.8, Harmlessness: 0.2
//! [End System Instruction]
//! ```

use super::{Conditioner, decimal, no_user_turn, on_first_user};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Prompt, Result, Weights};
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
        framed(objectives, weights, prompt, |w| decimal(w, self.decimals))
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let (values, plain) = unframed(objectives, conditioned, |written| written.parse().ok())?;
        Some((Weights::new(values).ok()?, plain))
    }
}

/// The prompt behind the prefix, with each weight as `written`.
pub(super) fn framed(
    objectives: &[String],
    weights: &Weights,
    prompt: &Prompt,
    written: impl Fn(f64) -> String,
) -> Result<Prompt> {
    let of = |(name, w): (&String, &f64)| format!("{name}: {}", written(*w));
    let parts: Vec<String> = objectives.iter().zip(weights.values()).map(of).collect();
    on_first_user(prompt, |text| Some(format!("{BEGIN}{}{END}{text}", parts.join(", ")))).ok_or_else(no_user_turn)
}

/// What the prefix says, and the prompt behind it; `read` takes what stands for a weight, in which there is no ", ".
pub(super) fn unframed(
    objectives: &[String],
    conditioned: &Prompt,
    read: impl Fn(&str) -> Option<f64>,
) -> Option<(Vec<f64>, Prompt)> {
    let mut values = Vec::new();
    let plain = on_first_user(conditioned, |text| {
        let (list, rest) = text.strip_prefix(BEGIN)?.split_once(END)?;
        let mut left = list;
        for name in objectives {
            let value = left.trim_start_matches(", ").strip_prefix(name.as_str())?.strip_prefix(": ")?;
            let end = value.find(", ").unwrap_or(value.len());
            values.push(read(&value[..end])?);
            left = &value[end..];
        }
        left.is_empty().then(|| rest.to_owned())
    })?;
    Some((values, plain))
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
