//! Control tokens (Guo et al. 2024, Controllable Preference Optimization): `< helpfulness: 5 > < honesty: 4 > ` before the first user turn.

use super::{Conditioner, no_user_turn, normalised, on_first_user};
use crate::levels::Levels;
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "levels",
    summary: "control tokens with the level that is wanted: < Helpfulness: 5 > < Harmlessness: 2 > (CPO)",
    schema: schema::<ControlTokens>(),
    build: |owner, options| Ok(Box::new(parse::<ControlTokens>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ControlTokens {
    /// The lowest and the highest level. The largest weight asks for the highest, others for their share of it; a score of 0 is the lowest, 1
    /// the highest.
    range: Levels,
    /// Objectives of which nothing is asked.
    #[schemars(length(max = 32), inner(length(min = 1, max = 200)))]
    uncontrolled: Vec<String>,
}

impl Default for ControlTokens {
    fn default() -> Self {
        Self { range: Levels([1, 5]), uncontrolled: vec![] }
    }
}

impl Options for ControlTokens {
    fn check(&self) -> Checked {
        self.range.check()
    }
}

impl ControlTokens {
    /// Whether each objective has a token.
    fn controlled(&self, objectives: &[String]) -> Result<Vec<bool>> {
        let bad = |what: String| {
            let (owner, option) = ("conditioner \"levels\"".into(), "uncontrolled".into());
            Err(Error::BadOption { owner, option, what })
        };
        if let Some(odd) = self.uncontrolled.iter().find(|name| !objectives.contains(name)) {
            return bad(format!("names \"{odd}\", which is no objective; there are {}", objectives.join(", ")));
        }
        let controlled: Vec<bool> = objectives.iter().map(|name| !self.uncontrolled.contains(name)).collect();
        match controlled.contains(&true) {
            true => Ok(controlled),
            false => bad("names every objective; leave one of them to control".into()),
        }
    }

    fn written(&self, objectives: &[String], levels: &[u32], prompt: &Prompt) -> Result<Prompt> {
        let controlled = self.controlled(objectives)?;
        let all = objectives.iter().zip(levels).zip(controlled).filter(|(_, controlled)| *controlled);
        let tokens: String = all.map(|((name, level), _)| format!("< {name}: {level} > ")).collect();
        on_first_user(prompt, |text| Some(format!("{tokens}{text}"))).ok_or_else(no_user_turn)
    }
}

impl Conditioner for ControlTokens {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        self.written(objectives, &self.range.asked(weights), prompt)
    }

    /// Of an objective without a token nothing is known but that it need not weigh.
    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let controlled = self.controlled(objectives).ok()?;
        let mut values = Vec::new();
        let plain = on_first_user(conditioned, |text| {
            let mut left = text;
            for (name, controlled) in objectives.iter().zip(controlled) {
                if !controlled {
                    values.push(0.0);
                    continue;
                }
                let (level, rest) = left.strip_prefix(&format!("< {name}: "))?.split_once(" > ")?;
                values.push(self.range.share(level.parse().ok()?)?);
                left = rest;
            }
            Some(left.to_owned())
        })?;
        Some((normalised(values)?, plain))
    }

    fn with_scores(&self, objectives: &[String], scores: &[f64], prompt: &Prompt) -> Result<Option<Prompt>> {
        let levels: Vec<u32> = scores.iter().map(|s| self.range.rating(*s)).collect();
        self.written(objectives, &levels, prompt).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tokens(options: Value) -> ControlTokens {
        parse("x", &options).unwrap()
    }

    fn names() -> Vec<String> {
        vec!["Help > all".to_owned(), "Harm".to_owned()]
    }

    #[test]
    fn levels_before_the_prompt_and_back() {
        let prompt = Prompt::from_dialogue("\n\nHuman: < Harm: 3 > Hi\n\nAssistant: B\n\nHuman: C");
        // What two objectives can ask for: one has 5, the other any.
        for part in 0..=4 {
            for values in [[4.0, f64::from(part)], [f64::from(part), 4.0]] {
                let weights = normalised(values.into()).unwrap();
                let rendered = tokens(json!({})).render(&names(), &weights, &prompt).unwrap();
                let [help, harm] = values.map(|v| v + 1.0);
                let text = format!("< Help > all: {help} > < Harm: {harm} > < Harm: 3 > Hi");
                assert_eq!(rendered.messages[0].content, text);
                assert_eq!(tokens(json!({})).parse(&names(), &rendered), Some((weights, prompt.clone())));
            }
        }
        assert_eq!(tokens(json!({})).parse(&names(), &Prompt::user("< Help > all: 9 > < Harm: 1 > x")), None);
    }

    #[test]
    fn an_uncontrolled_objective_has_no_token() {
        let weights = Weights::new(vec![0.4, 0.6]).unwrap();
        let one = tokens(json!({ "uncontrolled": ["Harm"] }));
        let rendered = one.render(&names(), &weights, &Prompt::user("Why?")).unwrap();
        assert_eq!(rendered.last_user(), "< Help > all: 4 > Why?");
        let alone = Weights::new(vec![1.0, 0.0]).unwrap();
        assert_eq!(one.parse(&names(), &rendered), Some((alone, Prompt::user("Why?"))));
        let refused = |options| tokens(options).render(&names(), &weights, &Prompt::user("x")).unwrap_err().to_string();
        assert!(refused(json!({ "uncontrolled": ["Ham"] })).contains("names \"Ham\", which is no objective"));
        assert!(refused(json!({ "uncontrolled": names() })).contains("names every objective"));
    }

    #[test]
    fn scores_become_the_levels_that_were_reached() {
        let asked = tokens(json!({})).with_scores(&names(), &[0.76, -0.2], &Prompt::user("Why?")).unwrap().unwrap();
        assert_eq!(asked.last_user(), "< Help > all: 4 > < Harm: 1 > Why?");
    }

    #[test]
    fn a_range_rises() {
        let message = parse::<ControlTokens>("x", &json!({ "range": [5, 5] })).err().unwrap().to_string();
        assert_eq!(message, "x: option \"range\" is [5, 5]; the first must be below the second");
    }
}
