//! Attribute strings (Dong et al. 2023, SteerLM): `quality:4,toxicity:0` behind a mark, on a line of its own where the answer begins.

use super::{Conditioner, no_user_turn, normalised, on_last_user, twice};
use crate::levels::Levels;
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "attributes",
    summary: "an attribute string with the values that are wanted: <extra_id_2>Helpfulness:4,Harmlessness:1 (SteerLM)",
    schema: schema::<Attributes>(),
    build: |owner, options| Ok(Box::new(parse::<Attributes>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Attributes {
    /// The lowest and the highest value. The largest weight asks for the highest, others for their share of it; a score of 0 is the lowest, 1
    /// the highest.
    range: Levels,
    /// All objectives in the order of the string; without it in their own.
    #[schemars(length(max = 32), inner(length(min = 1, max = 200)))]
    order: Vec<String>,
    /// What the string begins with.
    #[schemars(length(max = 1000))]
    mark: String,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { range: Levels([0, 4]), order: vec![], mark: "<extra_id_2>".into() }
    }
}

impl Options for Attributes {
    fn check(&self) -> Checked {
        if let Some(name) = twice(&self.order) {
            return Err(("order", format!("has \"{name}\" twice")));
        }
        self.range.check()
    }
}

impl Attributes {
    /// Places of the objectives in the string.
    fn order(&self, objectives: &[String]) -> Result<Vec<usize>> {
        if self.order.is_empty() {
            return Ok((0..objectives.len()).collect());
        }
        let bad = |what: String| Error::BadOption {
            owner: "conditioner \"attributes\"".into(),
            option: "order".into(),
            what,
        };
        if let Some(missing) = objectives.iter().find(|name| !self.order.contains(name)) {
            return Err(bad(format!(
                "lacks \"{missing}\"; a string that leaves out an attribute is none that was trained on"
            )));
        }
        let place = |name: &String| {
            let none = || bad(format!("names \"{name}\", which is no objective; there are {}", objectives.join(", ")));
            objectives.iter().position(|o| o == name).ok_or_else(none)
        };
        self.order.iter().map(place).collect()
    }

    fn written(&self, objectives: &[String], levels: &[u32], prompt: &Prompt) -> Result<Prompt> {
        let of = |k: usize| format!("{}:{}", objectives[k], levels[k]);
        let list: Vec<String> = self.order(objectives)?.into_iter().map(of).collect();
        on_last_user(prompt, |text| Some(format!("{text}\n{}{}", self.mark, list.join(",")))).ok_or_else(no_user_turn)
    }

    /// The shares that a list of values says, and nothing else.
    fn read(&self, objectives: &[String], list: &str) -> Option<Vec<f64>> {
        let (mut values, mut left) = (vec![0.0; objectives.len()], list);
        for (i, k) in self.order(objectives).ok()?.into_iter().enumerate() {
            let part = if i == 0 { left } else { left.strip_prefix(',')? };
            let value = part.strip_prefix(objectives[k].as_str())?.strip_prefix(':')?;
            let end = value.find(',').unwrap_or(value.len());
            values[k] = self.range.share(value[..end].parse().ok()?)?;
            left = &value[end..];
        }
        left.is_empty().then_some(values)
    }
}

impl Conditioner for Attributes {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        self.written(objectives, &self.range.asked(weights), prompt)
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let mut values = None;
        let plain = on_last_user(conditioned, |text| {
            let (plain, list) = text.rsplit_once(&format!("\n{}", self.mark))?;
            values = self.read(objectives, list);
            Some(plain.to_owned())
        })?;
        Some((normalised(values?)?, plain))
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

    fn attributes(options: Value) -> Attributes {
        parse("x", &options).unwrap()
    }

    fn names() -> Vec<String> {
        ["quality", "toxicity", "verbosity"].map(String::from).into()
    }

    #[test]
    fn a_string_of_values_and_back() {
        let prompt = Prompt::from_dialogue("\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n<extra_id_2>quality:1");
        for [a, b] in [[0, 4], [1, 3], [4, 4], [2, 0]] {
            let weights = normalised([4, a, b].map(f64::from).into()).unwrap();
            let rendered = attributes(json!({})).render(&names(), &weights, &prompt).unwrap();
            let string = format!("C\n<extra_id_2>quality:1\n<extra_id_2>quality:4,toxicity:{a},verbosity:{b}");
            assert_eq!(rendered.last_user(), string);
            assert_eq!(attributes(json!({})).parse(&names(), &rendered), Some((weights, prompt.clone())));
        }
        let scored = attributes(json!({ "range": [0, 9] })).with_scores(&names(), &[0.5, 1.0, 0.0], &Prompt::user("x"));
        assert_eq!(scored.unwrap().unwrap().last_user(), "x\n<extra_id_2>quality:5,toxicity:9,verbosity:0");
    }

    #[test]
    fn order_and_spelling_are_fixed() {
        let own = attributes(json!({ "order": ["verbosity", "quality", "toxicity"], "mark": "" }));
        let weights = Weights::new(vec![0.5, 0.5, 0.0]).unwrap();
        let rendered = own.render(&names(), &weights, &Prompt::user("x")).unwrap();
        assert_eq!(rendered.last_user(), "x\nverbosity:0,quality:4,toxicity:4");
        assert_eq!(own.parse(&names(), &rendered), Some((weights.clone(), Prompt::user("x"))));
        for other in
            ["x\nquality:4,toxicity:4,verbosity:0", "x\nverbosity:0,quality:4", "x\nverbosity:0,quality:4,toxicity:5"]
        {
            assert_eq!(own.parse(&names(), &Prompt::user(other)), None, "{other}");
        }
    }

    #[test]
    fn a_missing_attribute_is_refused() {
        let weights = Weights::new(vec![0.5, 0.5, 0.0]).unwrap();
        let refused = |order: &[&str]| {
            let of = attributes(json!({ "order": order }));
            of.render(&names(), &weights, &Prompt::user("x")).unwrap_err().to_string()
        };
        assert!(refused(&["quality", "toxicity"]).contains("lacks \"verbosity\"; a string that leaves out"));
        assert!(
            refused(&["quality", "toxicity", "verbosity", "humor"]).contains("names \"humor\", which is no objective")
        );
    }
}
