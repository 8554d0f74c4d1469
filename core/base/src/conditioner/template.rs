//! A template of the user's own: `{name}` is an objective's weight, `{prompt}` the first user turn.

use super::{Conditioner, decimal, on_first_user};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "template",
    summary: "your own text, with {Objective} for a weight and {prompt} for the prompt",
    schema: schema::<Template>(),
    build: |owner, options| Ok(Box::new(parse::<Template>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Template {
    /// The text, for example "Be {Helpfulness} helpful and {Harmlessness} harmless.\n{prompt}".
    text: String,
    /// Decimals that a weight is written with.
    #[serde(default = "one")]
    decimals: usize,
}

fn one() -> usize {
    1
}

impl Options for Template {
    fn check(&self) -> Checked {
        if self.text.matches("{prompt}").count() != 1 {
            return Err(("text", "must contain {prompt} once".into()));
        }
        Ok(())
    }
}

impl Conditioner for Template {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let mut text = self.text.clone();
        for (name, weight) in objectives.iter().zip(weights.values()) {
            let field = format!("{{{name}}}");
            if !text.contains(&field) {
                let what = format!("does not mention {field}");
                return Err(Error::BadOption { owner: "conditioner \"template\"".into(), option: "text".into(), what });
            }
            text = text.replace(&field, &decimal(*weight, self.decimals));
        }
        on_first_user(prompt, |user| Some(text.replace("{prompt}", user)))
            .ok_or_else(|| Error::Invalid("a prompt without a user turn cannot be conditioned on weights".into()))
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let mut pattern = regex::escape(&self.text).replace(r"\{prompt\}", "(?P<prompt>.*)");
        for (i, name) in objectives.iter().enumerate() {
            let field = regex::escape(&format!("{{{name}}}"));
            pattern = pattern.replacen(&field, &format!("(?P<w{i}>[0-9.]+)"), 1).replace(&field, "[0-9.]+");
        }
        let regex = Regex::new(&format!("(?s)^{pattern}$")).ok()?;
        let mut weights = None;
        let plain = on_first_user(conditioned, |text| {
            let found = regex.captures(text)?;
            let values: Option<Vec<f64>> =
                (0..objectives.len()).map(|i| found.name(&format!("w{i}"))?.as_str().parse().ok()).collect();
            weights = Weights::new(values?).ok();
            Some(found["prompt"].to_owned())
        })?;
        Some((weights?, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn round_trip_and_missing_objective() {
        let names = vec!["Help".to_owned(), "Harm".to_owned()];
        let template: Template = parse("x", &json!({"text": "({Help}|{Harm}) {prompt}"})).unwrap();
        let weights = Weights::new(vec![0.3, 0.7]).unwrap();
        let rendered = template.render(&names, &weights, &Prompt::user("a\nb")).unwrap();
        assert_eq!(rendered.last_user(), "(0.3|0.7) a\nb");
        assert_eq!(template.parse(&names, &rendered), Some((weights.clone(), Prompt::user("a\nb"))));
        let other = vec!["Help".to_owned(), "Speed".to_owned()];
        assert!(template.render(&other, &weights, &Prompt::user("a")).is_err());
    }
}
