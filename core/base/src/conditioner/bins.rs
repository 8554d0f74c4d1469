//! The paper's prefix with a word for each weight instead of digits: few symbols are told apart more easily than numbers are (UC-MOA, arXiv
//! 2503.10669).

use super::weight_prefix::{framed, unframed};
use super::{Conditioner, nearest, normalised, twice};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "bins",
    summary: "the paper's prefix with one of a few words for each weight: \"Helpfulness: high, Harmlessness: low\"",
    schema: schema::<Bins>(),
    build: |owner, options| Ok(Box::new(parse::<Bins>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Bins {
    /// Words or symbols, evenly from weight 0 to weight 1; a weight becomes the nearest.
    #[schemars(length(min = 2, max = 1000), inner(length(min = 1, max = 1000)))]
    words: Vec<String>,
}

impl Default for Bins {
    fn default() -> Self {
        Self { words: ["none", "low", "medium", "high", "full"].map(String::from).into() }
    }
}

impl Options for Bins {
    fn check(&self) -> Checked {
        if let Some(word) = twice(&self.words) {
            return Err(("words", format!("have \"{word}\" twice")));
        }
        match self.words.iter().find(|word| word.contains(", ") || word.contains('\n')) {
            Some(word) => {
                Err(("words", format!("have {word:?}, which holds a comma or a line break; words stand in a list")))
            }
            None => Ok(()),
        }
    }
}

impl Conditioner for Bins {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        framed(objectives, weights, prompt, |w| self.words[nearest(w, self.words.len())].clone())
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let read = |written: &str| {
            let at = self.words.iter().position(|word| word == written)?;
            Some(at as f64 / (self.words.len() - 1) as f64)
        };
        let (values, plain) = unframed(objectives, conditioned, read)?;
        Some((normalised(values)?, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_for_weights_and_back() {
        let names = vec!["Help".to_owned(), "Harm, or not".to_owned()];
        let bins: Bins = parse("x", &json!({})).unwrap();
        let weights = |w: f64| Weights::new(vec![w, 1.0 - w]).unwrap();
        let render = |w: f64| bins.render(&names, &weights(w), &Prompt::user("Why?")).unwrap();
        let framed = |list: &str| format!("[Begin System Instruction]\n{list}\n[End System Instruction]\nWhy?");
        assert_eq!(render(0.7).last_user(), framed("Help: high, Harm, or not: low"));
        assert_eq!(render(1.0).last_user(), framed("Help: full, Harm, or not: none"));
        for w in [0.0, 0.25, 0.5, 0.75, 1.0] {
            assert_eq!(bins.parse(&names, &render(w)), Some((weights(w), Prompt::user("Why?"))));
        }
        assert_eq!(bins.parse(&names, &Prompt::user(framed("Help: most, Harm, or not: low"))), None);
    }

    #[test]
    fn words_that_cannot_be_told_apart_are_refused() {
        let refused = |words: &[&str]| parse::<Bins>("x", &json!({ "words": words })).err().unwrap().to_string();
        assert_eq!(refused(&["a", "b", "a"]), "x: option \"words\" have \"a\" twice");
        assert!(refused(&["a", "b, c"]).contains("holds a comma or a line break"));
    }
}
