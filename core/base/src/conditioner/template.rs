//! A template of the user's own: `{name}` is an objective's weight, `{prompt}` the first user turn.

use super::{Conditioner, decimal, nearest, no_user_turn, normalised, on_first_user, twice};
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
    #[schemars(length(min = 1, max = 100_000))]
    text: String,
    /// Decimals that a weight is written with.
    #[serde(default = "one")]
    #[schemars(range(max = 6))]
    decimals: usize,
    /// Words in place of numbers, evenly from weight 0 to weight 1, such as ["not at all", "somewhat", "very"]: small models read
    /// words better.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 1000)))]
    levels: Vec<String>,
}

fn one() -> usize {
    1
}

impl Options for Template {
    fn check(&self) -> Checked {
        if self.text.matches("{prompt}").count() != 1 {
            return Err(("text", "must contain {prompt} once".into()));
        }
        if self.levels.len() == 1 {
            return Err(("levels", "must have at least two words, or none".into()));
        }
        if let Some(word) = twice(&self.levels) {
            return Err(("levels", format!("have \"{word}\" twice")));
        }
        Ok(())
    }
}

impl Template {
    fn written(&self, weight: f64) -> String {
        match self.levels.len() {
            0 => decimal(weight, self.decimals),
            n => self.levels[nearest(weight, n)].clone(),
        }
    }

    /// The pattern of a written weight.
    fn pattern(&self) -> String {
        match self.levels.is_empty() {
            true => "[0-9.]+".into(),
            false => self.levels.iter().map(|l| regex::escape(l)).collect::<Vec<_>>().join("|"),
        }
    }

    fn read(&self, written: &str) -> Option<f64> {
        if self.levels.is_empty() {
            return written.parse().ok();
        }
        let level = self.levels.iter().position(|l| l == written)?;
        Some(level as f64 / (self.levels.len() - 1) as f64)
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
            text = text.replace(&field, &self.written(*weight));
        }
        on_first_user(prompt, |user| Some(text.replace("{prompt}", user))).ok_or_else(no_user_turn)
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let mut pattern = regex::escape(&self.text).replace(r"\{prompt\}", "(?P<prompt>.*)");
        for (i, name) in objectives.iter().enumerate() {
            let field = regex::escape(&format!("{{{name}}}"));
            let written = self.pattern();
            pattern =
                pattern.replacen(&field, &format!("(?P<w{i}>{written})"), 1).replace(&field, &format!("(?:{written})"));
        }
        let regex = Regex::new(&format!("(?s)^{pattern}$")).ok()?;
        let mut weights = None;
        let plain = on_first_user(conditioned, |text| {
            let found = regex.captures(text)?;
            let values: Option<Vec<f64>> =
                (0..objectives.len()).map(|i| self.read(found.name(&format!("w{i}"))?.as_str())).collect();
            weights = if self.levels.is_empty() { Weights::new(values?).ok() } else { normalised(values?) };
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
    fn levels_in_words() {
        let names = vec!["Help".to_owned(), "Harm".to_owned()];
        let options = json!({
            "text": "{prompt}\nBe {Help} direct and {Harm} careful.",
            "levels": ["not at all", "a little", "equally", "very", "extremely"],
        });
        let template: Template = parse("x", &options).unwrap();
        let render = |w: f64| {
            let weights = Weights::new(vec![w, 1.0 - w]).unwrap();
            template.render(&names, &weights, &Prompt::user("Why?")).unwrap()
        };
        assert_eq!(render(0.8).last_user(), "Why?\nBe very direct and a little careful.");
        assert_eq!(render(1.0).last_user(), "Why?\nBe extremely direct and not at all careful.");
        let (weights, prompt) = template.parse(&names, &render(0.8)).unwrap();
        assert_eq!((weights.values(), prompt.last_user()), (&[0.75, 0.25][..], "Why?"));
    }

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
