//! Weights written into the prompt in words, as a motrain plugin.
//!
//! - `percent`: "The answer should be 80 % helpful and 20 % harmless."
//! - `levels`: "The answer should be above all helpful, and only slightly harmless."
//! - `binary`: one sentence for each objective whose weight reaches a threshold, as in P-MORL (Jang et al. 2023).

use motrain_plugin::{Component, Conditioner, Message, Turn, user_turn};

motrain_plugin::options! {
    /// Options of `motrain.words`.
    pub struct Options {
        /// "percent", "levels" or "binary".
        style: String = "percent".into(),
        /// What a weight is said to be for, in the objectives' order ("helpful", "harmless"); by default the objectives' names.
        words: Vec<String> = vec![],
        /// For "binary": a sentence appears from this weight on.
        threshold: f64 = 0.5,
    }
}

struct Words {
    options: Options,
    style: Style,
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Percent,
    Levels,
    Binary,
}

impl Component for Words {
    const NAME: &'static str = "motrain.words";
    const SUMMARY: &'static str = "weights as a sentence: in per cent, as levels, or P-MORL's binary sentences";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        let style = match options.style.as_str() {
            "percent" => Style::Percent,
            "levels" => Style::Levels,
            "binary" => Style::Binary,
            other => return Err(format!("option \"style\" must be percent, levels or binary, not \"{other}\"")),
        };
        if !(0.0..=1.0).contains(&options.threshold) {
            return Err(format!("option \"threshold\" must be from 0 to 1, not {}", options.threshold));
        }
        Ok(Self { options, style })
    }
}

impl Words {
    fn words(&self, objectives: &[&str]) -> Result<Vec<String>, String> {
        match self.options.words.len() {
            0 => Ok(objectives.iter().map(|o| (*o).to_owned()).collect()),
            n if n == objectives.len() => Ok(self.options.words.clone()),
            n => Err(format!("option \"words\" has {n} entries for {} objectives", objectives.len())),
        }
    }

    fn sentence(&self, words: &[String], weights: &[f64]) -> String {
        let pairs = words.iter().zip(weights);
        match self.style {
            Style::Percent => {
                let parts: Vec<String> = pairs.map(|(word, w)| format!("{} % {word}", percent(*w))).collect();
                format!("The answer should be {}.", list(&parts))
            }
            Style::Levels => {
                let parts: Vec<String> = pairs.map(|(word, w)| format!("{} {word}", level(*w))).collect();
                format!("The answer should be {}.", list(&parts))
            }
            Style::Binary => {
                let parts: Vec<String> = pairs
                    .filter(|(_, w)| **w >= self.options.threshold)
                    .map(|(word, _)| format!("The answer should be {word}."))
                    .collect();
                parts.join(" ")
            }
        }
    }
}

fn percent(weight: f64) -> i64 {
    (weight * 100.0).round() as i64
}

fn level(weight: f64) -> &'static str {
    match weight {
        w if w >= 0.8 => "above all",
        w if w >= 0.6 => "mostly",
        w if w >= 0.4 => "equally",
        w if w >= 0.2 => "somewhat",
        w if w > 0.0 => "only slightly",
        _ => "not at all",
    }
}

/// "a", "a and b", "a, b and c".
fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl Conditioner for Words {
    fn render(&self, objectives: &[&str], weights: &[f64], prompt: &[Message]) -> Result<Vec<Turn>, String> {
        let sentence = self.sentence(&self.words(objectives)?, weights);
        user_turn(prompt, |text| {
            Some(if sentence.is_empty() { text.to_owned() } else { format!("{sentence}\n{text}") })
        })
        .ok_or_else(|| "the prompt has no user turn".into())
    }

    /// Only percentages can be read back.
    fn parse(&self, objectives: &[&str], conditioned: &[Message]) -> Option<(Vec<f64>, Vec<Turn>)> {
        if self.style != Style::Percent {
            return None;
        }
        let words = self.words(objectives).ok()?;
        let mut weights = Vec::new();
        let turns = user_turn(conditioned, |text| {
            let (sentence, plain) = text.split_once('\n')?;
            let mut rest = sentence.strip_prefix("The answer should be ")?;
            for word in &words {
                let (number, after) = rest.split_once(" % ")?;
                let number = number.trim_start_matches(", ").trim_start_matches(" and ");
                weights.push(number.parse::<f64>().ok()? / 100.0);
                rest = after.strip_prefix(word.as_str())?;
            }
            Some(plain.to_owned())
        })?;
        Some((weights, turns))
    }
}

motrain_plugin::export! { conditioners: [Words] }

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(style: &str, weights: &[f64]) -> String {
        let words = Words::create(Options { style: style.into(), ..Options::default() }, 0).unwrap();
        let names: Vec<String> =
            ["helpful", "harmless", "brief"][..weights.len()].iter().map(|w| (*w).into()).collect();
        words.sentence(&names, weights)
    }

    #[test]
    fn sentences() {
        assert_eq!(sentence("percent", &[0.8, 0.2]), "The answer should be 80 % helpful and 20 % harmless.");
        assert_eq!(
            sentence("percent", &[0.3, 0.3, 0.4]),
            "The answer should be 30 % helpful, 30 % harmless and 40 % brief."
        );
        assert_eq!(
            sentence("levels", &[0.9, 0.1]),
            "The answer should be above all helpful and only slightly harmless."
        );
        assert_eq!(sentence("binary", &[0.9, 0.1]), "The answer should be helpful.");
        assert_eq!(sentence("binary", &[0.5, 0.5]), "The answer should be helpful. The answer should be harmless.");
    }

    #[test]
    fn names_the_bad_option() {
        let error = Words::create(Options { style: "loud".into(), ..Options::default() }, 0).err().unwrap();
        assert_eq!(error, "option \"style\" must be percent, levels or binary, not \"loud\"");
    }
}
