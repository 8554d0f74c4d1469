//! Weights as instructions in words, after the first user turn: what an instruction-tuned model that does not read numbers follows from the
//! first step on.

use super::{Conditioner, nearest, no_user_turn, normalised, on_first_user, twice};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "instructions",
    summary: "a sentence per objective after the first user turn, chosen by its weight",
    schema: schema::<Instructions>(),
    build: |owner, options| Ok(Box::new(parse::<Instructions>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Instructions {
    /// Per objective its sentences, evenly from weight 0 to weight 1; "" says nothing. For example
    /// { "Helpfulness": ["", "Be helpful.", "Answer the question directly."] }.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    sentences: BTreeMap<String, Sentences>,
}

/// Any text is a sentence.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
struct Sentences(#[schemars(length(min = 2, max = 1000), inner(length(max = 10_000)))] Vec<String>);

impl Options for Instructions {
    fn check(&self) -> Checked {
        for (name, Sentences(sentences)) in &self.sentences {
            if twice(sentences).is_some() {
                return Err(("sentences", format!("of {name} must differ")));
            }
        }
        Ok(())
    }
}

impl Instructions {
    fn of(&self, objective: &str) -> Result<&[String]> {
        self.sentences.get(objective).map(|s| s.0.as_slice()).ok_or_else(|| Error::BadOption {
            owner: "conditioner \"instructions\"".into(),
            option: "sentences".into(),
            what: format!("has none for \"{objective}\""),
        })
    }

    /// Every way to choose a sentence per objective: what is appended to the prompt, and the weights that say so.
    fn choices(&self, objectives: &[String]) -> Option<Vec<(String, Vec<f64>)>> {
        let mut choices: Vec<(Vec<&str>, Vec<f64>)> = vec![(vec![], vec![])];
        for name in objectives {
            let Sentences(sentences) = self.sentences.get(name)?;
            let mut longer = Vec::new();
            for (told, weights) in &choices {
                for (i, sentence) in sentences.iter().enumerate() {
                    let weight = i as f64 / (sentences.len() - 1) as f64;
                    longer.push(([&told[..], &[sentence.as_str()]].concat(), [&weights[..], &[weight]].concat()));
                }
            }
            choices = longer;
        }
        Some(choices.into_iter().map(|(told, weights)| (joined("", &told), weights)).collect())
    }
}

fn joined(prompt: &str, told: &[&str]) -> String {
    let told: Vec<&str> = told.iter().copied().filter(|t| !t.is_empty()).collect();
    if told.is_empty() { prompt.to_owned() } else { format!("{prompt}\n{}", told.join(" ")) }
}

impl Conditioner for Instructions {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let mut told = Vec::new();
        for (name, weight) in objectives.iter().zip(weights.values()) {
            let sentences = self.of(name)?;
            told.push(sentences[nearest(*weight, sentences.len())].as_str());
        }
        on_first_user(prompt, |text| Some(joined(text, &told))).ok_or_else(no_user_turn)
    }

    /// Sentences are coarse, so that what they say need not add up to 1: weights come back normalised.
    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let choices = self.choices(objectives)?;
        let mut weights = None;
        let plain = on_first_user(conditioned, |text| {
            let fitting = choices.iter().filter(|(told, _)| text.ends_with(told));
            let (told, values) = fitting.max_by_key(|(told, _)| told.len())?;
            weights = normalised(values.clone());
            Some(text[..text.len() - told.len()].to_owned())
        })?;
        Some((weights?, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instructions() -> Instructions {
        let options = json!({ "sentences": {
            "Help": ["", "Help.", "Answer directly."],
            "Harm": ["", "Be kind.", "Be kind and careful."],
        }});
        parse("x", &options).unwrap()
    }

    #[test]
    fn sentences_by_weight_and_back() {
        let names = vec!["Help".to_owned(), "Harm".to_owned()];
        let prompt = Prompt::user("Why?\nBe kind.");
        let render = |w: f64| instructions().render(&names, &Weights::new(vec![w, 1.0 - w]).unwrap(), &prompt).unwrap();
        assert_eq!(render(1.0).last_user(), "Why?\nBe kind.\nAnswer directly.");
        assert_eq!(render(0.5).last_user(), "Why?\nBe kind.\nHelp. Be kind.");
        assert_eq!(render(0.1).last_user(), "Why?\nBe kind.\nBe kind and careful.");
        for w in [0.0, 0.5, 1.0] {
            let weights = Weights::new(vec![w, 1.0 - w]).unwrap();
            assert_eq!(instructions().parse(&names, &render(w)), Some((weights, prompt.clone())));
        }
    }

    #[test]
    fn an_objective_without_sentences_is_named() {
        let names = vec!["Help".to_owned(), "Speed".to_owned()];
        let weights = Weights::new(vec![0.5, 0.5]).unwrap();
        let error = instructions().render(&names, &weights, &Prompt::user("Why?")).unwrap_err();
        assert!(error.to_string().contains("has none for \"Speed\""), "{error}");
    }
}
