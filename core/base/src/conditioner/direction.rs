//! Directions (Wang et al. 2024, Directional Preference Alignment, arXiv 2402.18571): a unit vector in the system prompt, in hundredths. Weights add
//! up to 1 and are never below 0; a direction has length 1 and may point away from an objective.

use super::Conditioner;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Message, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "direction",
    summary: "a unit vector in the system prompt: weighted rating = Helpfulness*87 + Harmlessness*50 (DPA)",
    schema: schema::<Direction>(),
    build: |owner, options| Ok(Box::new(parse::<Direction>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Direction {
    /// What the system prompt says before the direction.
    #[schemars(length(max = 10_000))]
    text: String,
    /// By objective, its component at weight 0 and at weight 1, before the direction is brought to length 1; [0, 1] where nothing is said.
    /// { "Helpfulness": [1, 1], "Verbosity": [-1, 1] } goes from -45° to 45°; [0, -1] asks for less of an objective.
    #[schemars(extend("maxProperties" = 32))]
    components: BTreeMap<String, Ends>,
}

/// At weight 0 and at weight 1.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Ends(#[schemars(inner(range(min = -1000, max = 1000)))] [f64; 2]);

impl Default for Direction {
    fn default() -> Self {
        let text = "You are a helpful, respectful, and honest assistant who always responds to the user in a harmless way. \
                    Your response should maximize weighted rating = ";
        Self { text: text.into(), components: BTreeMap::new() }
    }
}

impl Options for Direction {}

/// Parts of the grid that directions are read back on: hundredths tell no more apart.
const READ: u32 = 20;

fn bad(what: String) -> Error {
    Error::BadOption { owner: "conditioner \"direction\"".into(), option: "components".into(), what }
}

impl Direction {
    fn ends(&self, objectives: &[String]) -> Result<Vec<[f64; 2]>> {
        if let Some(odd) = self.components.keys().find(|name| !objectives.contains(name)) {
            return Err(bad(format!("names \"{odd}\", which is no objective; there are {}", objectives.join(", "))));
        }
        Ok(objectives.iter().map(|name| self.components.get(name).map_or([0.0, 1.0], |ends| ends.0)).collect())
    }

    fn unit(&self, objectives: &[String], weights: &Weights) -> Result<Vec<f64>> {
        let at = |([from, to], w): ([f64; 2], &f64)| from + w * (to - from);
        let long: Vec<f64> = self.ends(objectives)?.into_iter().zip(weights.values()).map(at).collect();
        let norm = long.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm < 1e-9 {
            let at = weights.values();
            return Err(bad(format!(
                "make a direction of length 0 at the weights {at:?}; give an objective a component there, such as [1, 1]"
            )));
        }
        Ok(long.into_iter().map(|x| x / norm).collect())
    }

    /// Hundredths at the beginning of a text, and what follows them.
    fn read<'a>(&self, objectives: &[String], text: &'a str) -> Option<(Vec<f64>, &'a str)> {
        let (mut read, mut left) = (Vec::new(), text.strip_prefix(&self.text)?);
        for (k, name) in objectives.iter().enumerate() {
            let part = if k == 0 { left } else { left.strip_prefix(" + ")? };
            let number = part.strip_prefix(name.as_str())?.strip_prefix('*')?;
            let end = number.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(number.len());
            read.push(f64::from(number[..end].parse::<i16>().ok()?));
            left = &number[end..];
        }
        Some((read, left))
    }

    /// The weights whose components are as many times `hundredths` as makes them add up to 1. At most one objective may have the same
    /// component at all weights: it has what the others leave.
    fn weights(&self, objectives: &[String], hundredths: &[f64]) -> Option<Weights> {
        let ends = self.ends(objectives).ok()?;
        let fixed: Vec<usize> = (0..ends.len()).filter(|&k| ends[k][0] == ends[k][1]).collect();
        let moving = || (0..ends.len()).filter(|k| !fixed.contains(k)).map(|k| (k, ends[k][1] - ends[k][0]));
        let length = match fixed[..] {
            [] => {
                let (above, below): (Vec<f64>, Vec<f64>) =
                    moving().map(|(k, rise)| (ends[k][0] / rise, hundredths[k] / rise)).unzip();
                (1.0 + above.iter().sum::<f64>()) / below.iter().sum::<f64>()
            }
            [k] => ends[k][0] / hundredths[k],
            _ => return None,
        };
        let mut values = vec![0.0; ends.len()];
        moving().for_each(|(k, rise)| values[k] = ((length * hundredths[k] - ends[k][0]) / rise).max(0.0));
        let sum: f64 = values.iter().sum();
        match fixed[..] {
            [k] => values[k] = (1.0 - sum).max(0.0),
            _ => values.iter_mut().for_each(|v| *v /= sum),
        }
        Weights::quantised(&values, READ).ok().filter(|_| length > 0.0)
    }
}

impl Conditioner for Direction {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let unit = self.unit(objectives, weights)?;
        let of = |(name, v): (&String, f64)| format!("{name}*{}", (100.0 * v).round() as i64);
        let said: Vec<String> = objectives.iter().zip(unit).map(of).collect();
        let said = format!("{}{}", self.text, said.join(" + "));
        let mut conditioned = prompt.clone();
        match conditioned.messages.first_mut().filter(|first| first.role == "system") {
            Some(system) => system.content = format!("{said}\n\n{}", system.content),
            None => conditioned.messages.insert(0, Message { role: "system".into(), content: said }),
        }
        Ok(conditioned)
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let mut plain = conditioned.clone();
        let system = plain.messages.first_mut().filter(|first| first.role == "system")?;
        let (hundredths, rest) = self.read(objectives, &system.content)?;
        match rest.strip_prefix("\n\n").map(str::to_owned) {
            Some(own) => system.content = own,
            None if rest.is_empty() => drop(plain.messages.remove(0)),
            None => return None,
        }
        Some((self.weights(objectives, &hundredths)?, plain))
    }

    fn direction(&self, objectives: &[String], weights: &Weights) -> Result<Vec<f64>> {
        self.unit(objectives, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn direction(options: Value) -> Direction {
        parse("x", &options).unwrap()
    }

    /// DPA's own: helpfulness always, verbosity from −45° to 45°.
    fn signed() -> Direction {
        direction(json!({ "components": { "helpfulness": [1, 1], "verbosity": [-1, 1] } }))
    }

    fn names(n: usize) -> Vec<String> {
        ["helpfulness", "verbosity", "a*2 + b"].map(String::from)[..n].into()
    }

    fn weights(values: &[f64]) -> Weights {
        Weights::new(values.to_vec()).unwrap()
    }

    #[test]
    fn golden_directions() {
        let said = |direction: &Direction, w: f64| {
            let prompt = direction.render(&names(2), &weights(&[1.0 - w, w]), &Prompt::user("Hi")).unwrap();
            assert_eq!((prompt.messages[0].role.as_str(), prompt.last_user()), ("system", "Hi"));
            prompt.messages[0].content.split_once("weighted rating = ").unwrap().1.to_owned()
        };
        // 0°, 45°, −45° and 30°.
        assert_eq!(said(&signed(), 0.5), "helpfulness*100 + verbosity*0");
        assert_eq!(said(&signed(), 1.0), "helpfulness*71 + verbosity*71");
        assert_eq!(said(&signed(), 0.0), "helpfulness*71 + verbosity*-71");
        let third = 30f64.to_radians().tan();
        assert_eq!(said(&signed(), (1.0 + third) / 2.0), "helpfulness*87 + verbosity*50");
        assert_eq!(said(&direction(json!({})), third / (1.0 + third)), "helpfulness*87 + verbosity*50");
        // Not "-0".
        assert_eq!(said(&signed(), 0.4995), "helpfulness*100 + verbosity*0");
    }

    #[test]
    fn directions_are_read_back() {
        let prompts = [Prompt::user("Hi"), Prompt::from_dialogue("Be brief.\n\nHuman: A\n\nAssistant: B\n\nHuman: C")];
        let less = direction(json!({ "components": { "verbosity": [0, -1] }, "text": "" }));
        for (direction, n) in [(direction(json!({})), 2), (direction(json!({})), 3), (signed(), 2), (less, 3)] {
            for (weights, prompt) in
                Weights::grid(n, READ).into_iter().flat_map(|w| prompts.iter().map(move |p| (w.clone(), p)))
            {
                let rendered = direction.render(&names(n), &weights, prompt).unwrap();
                let read = direction.parse(&names(n), &rendered);
                assert_eq!(read, Some((weights, prompt.clone())), "{rendered:?}");
            }
        }
        assert_eq!(signed().parse(&names(2), &prompts[1]), None);
    }

    #[test]
    fn scores_are_weighed_by_the_direction() {
        let unit = signed().direction(&names(2), &weights(&[1.0, 0.0])).unwrap();
        assert!((unit[0] - 0.5f64.sqrt()).abs() < 1e-12 && (unit[1] + 0.5f64.sqrt()).abs() < 1e-12, "{unit:?}");
    }

    #[test]
    fn what_points_nowhere_is_refused() {
        let refused = |components: Value| {
            let direction = direction(json!({ "components": components }));
            direction.render(&names(2), &weights(&[0.5, 0.5]), &Prompt::user("x")).unwrap_err().to_string()
        };
        assert_eq!(
            refused(json!({ "helpfulness": [-1, 1], "verbosity": [-1, 1] })),
            "conditioner \"direction\": option \"components\" make a direction of length 0 at the weights [0.5, 0.5]; give an objective a \
             component there, such as [1, 1]"
        );
        assert!(refused(json!({ "verbose": [0, 1] })).contains("names \"verbose\", which is no objective"));
    }
}
