//! A language model's judgement as reward (AI feedback), by an OpenAI-compatible server.

use super::number::{Number, exactly, on_scale};
use super::remote::filled;
use super::stated::stated;
use crate::http::{Chat, ChatServer, bad_url};
use motrain_core::options::{Checked, Options, parse};
use motrain_core::registry::{Builtin, schema};
use motrain_core::reward::{RewardSource, Sample, all};
use motrain_core::shown::quoted;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "chat",
    summary: "a language model's judgement, by an OpenAI-compatible server",
    schema: schema::<ChatOptions>(),
    build: |owner, options| Ok(Box::new(ChatReward::new(parse(owner, options)?).map_err(|what| bad_url(owner, what))?)),
};

#[derive(Deserialize, JsonSchema)]
// deny_unknown_fields does not go with flatten; the schema has all names, and is checked first.
struct ChatOptions {
    #[serde(flatten)]
    server: ChatServer,
    /// What the model is asked: {prompt}, {answer} and {ending} ("finished" or "cut off") are filled in. It should ask for a number.
    #[schemars(length(min = 1, max = 100_000))]
    template: String,
    /// A regular expression whose first match, or the first group of it, is the number; without one, the number that the reply states.
    #[serde(default)]
    #[schemars(length(max = 10_000), extend("format" = "regex"))]
    pattern: String,
    /// The lowest and the highest score that the template allows, such as [0, 10]: others are no scores.
    #[serde(default)]
    #[schemars(inner(range(min = -1e9, max = 1e9)))]
    scale: Option<[f64; 2]>,
}

impl Options for ChatOptions {
    fn check(&self) -> Checked {
        if !self.template.contains("{answer}") {
            return Err(("template", "must contain {answer}".into()));
        }
        if let Some([low, high]) = self.scale.filter(|[low, high]| low >= high) {
            return Err(("scale", format!("must rise from the lowest to the highest score, not [{low}, {high}]")));
        }
        self.server.check()
    }
}

struct ChatReward {
    options: ChatOptions,
    chat: Chat,
    pattern: Option<Regex>,
}

impl ChatReward {
    fn new(options: ChatOptions) -> Result<Self, String> {
        let pattern = Some(&options.pattern).filter(|p| !p.is_empty()).and_then(|p| Regex::new(p).ok());
        Ok(Self { chat: Chat::new(&options.server)?, pattern, options })
    }

    fn request(&self, sample: &Sample) -> Result<(Number, f64), String> {
        let reply = self.chat.ask(&filled(&self.options.template, &sample.prompt.to_dialogue(), sample))?;
        let score = self.read(&reply).and_then(|number| Ok((number, on_scale(number, self.options.scale)?)));
        score.map_err(|why| self.unread(&reply, &why))
    }

    fn read(&self, reply: &str) -> Result<Number, String> {
        let Some(pattern) = &self.pattern else { return stated(reply) };
        let found = pattern.captures(reply).ok_or("`pattern` does not match")?;
        exactly(found.get(1).or(found.get(0)).map_or("", |m| m.as_str()))
    }

    fn unread(&self, reply: &str, why: &str) -> String {
        let (name, reply) = (self.chat.name(), quoted(reply));
        format!(
            "{name}: no number that is sure in the model's reply \"{reply}\": {why}; ask for a number alone on the last line"
        )
    }

    /// Without `scale`, replies that are out of different numbers cannot be compared.
    fn same_scale(&self, given: &[Option<(Number, f64)>]) -> Result<(), String> {
        let mut of =
            given.iter().flatten().filter_map(|(number, _)| number.of.filter(|_| self.options.scale.is_none()));
        let Some(first) = of.next() else { return Ok(()) };
        match of.find(|other| *other != first) {
            Some(other) => Err(format!(
                "{}: some scores are out of {first}, others out of {other}; say which by `scale`",
                self.chat.name()
            )),
            None => Ok(()),
        }
    }
}

impl RewardSource for ChatReward {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let given = self.options.server.limits.ask(batch.len(), |i| self.request(&batch[i]))?;
        self.same_scale(&given)?;
        Ok(given.into_iter().map(|score| score.map(|(_, value)| value)).collect())
    }
}
