//! Rewards behind HTTP: `remote` speaks OpenRLHF's `POST /get_reward`, `chat` asks a language model behind an OpenAI-compatible
//! server (AI feedback).

use super::{RewardSource, Sample};
use crate::http::{Chat, ChatServer, Client, Limits, check_url, fill, in_parallel, shortened};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub const REMOTE: Builtin<dyn RewardSource> = Builtin {
    name: "remote",
    summary: "a reward model behind HTTP (OpenRLHF's POST /get_reward)",
    schema: schema::<RemoteOptions>(),
    build: |owner, options| Ok(Box::new(Remote::new(parse(owner, options)?))),
};

pub const CHAT: Builtin<dyn RewardSource> = Builtin {
    name: "chat",
    summary: "a language model's judgement, by an OpenAI-compatible server",
    schema: schema::<ChatOptions>(),
    build: |owner, options| Ok(Box::new(ChatReward::new(parse(owner, options)?))),
};

#[derive(Deserialize, JsonSchema)]
// deny_unknown_fields does not go with flatten; the schema has all names, and is checked first.
struct RemoteOptions {
    /// The whole address, such as "http://localhost:5000/get_reward".
    #[schemars(length(min = 8, max = 4096))]
    url: String,
    /// What the server scores: {prompt} and {answer} are filled in.
    #[serde(default = "query")]
    #[schemars(length(min = 1, max = 100_000))]
    query: String,
    /// Samples a request.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1, max = 100_000))]
    batch_size: usize,
    #[serde(flatten)]
    limits: Limits,
}

fn query() -> String {
    "{prompt}\n{answer}".into()
}

fn batch_size() -> usize {
    32
}

impl Options for RemoteOptions {
    fn check(&self) -> Checked {
        check_url(&self.url)
    }
}

struct Remote {
    options: RemoteOptions,
    client: Client,
}

impl Remote {
    fn new(options: RemoteOptions) -> Self {
        Self { client: Client::new(&options.limits, None), options }
    }

    fn request(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let prompts: Vec<String> = samples.iter().map(|s| s.prompt.to_dialogue()).collect();
        let texts = samples.iter().zip(&prompts).map(|(s, prompt)| filled(&self.options.query, prompt, s.completion));
        let body = json!({ "query": texts.collect::<Vec<_>>(), "prompts": prompts });
        let reply = self.client.post(&self.options.url, &body)?;
        let Some(rewards) = reply["rewards"].as_array() else {
            return Err(format!("{} gave no \"rewards\": {}", self.options.url, shortened(&reply)));
        };
        let numbers: Vec<f64> = rewards.iter().filter_map(Value::as_f64).collect();
        if numbers.len() != samples.len() || rewards.len() != samples.len() {
            let (got, asked) = (numbers.len(), samples.len());
            return Err(format!("{} gave {got} numbers for {asked} completions", self.options.url));
        }
        Ok(numbers)
    }
}

impl RewardSource for Remote {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let chunks: Vec<&[Sample]> = batch.chunks(self.options.batch_size).collect();
        let replies = in_parallel(chunks.len(), self.options.limits.concurrency, |i| self.request(chunks[i]));
        let mut scores = Vec::with_capacity(batch.len());
        for (chunk, reply) in chunks.iter().zip(self.options.limits.decide(replies)?) {
            match reply {
                Some(numbers) => scores.extend(numbers.into_iter().map(Some)),
                None => scores.extend(chunk.iter().map(|_| None)),
            }
        }
        Ok(scores)
    }
}

#[derive(Deserialize, JsonSchema)]
struct ChatOptions {
    #[serde(flatten)]
    server: ChatServer,
    /// What the model is asked: {prompt} and {answer} are filled in. It should ask for a number.
    #[schemars(length(min = 1, max = 100_000))]
    template: String,
    /// Where the number is in the model's reply: the first match, or its first group.
    #[serde(default = "number")]
    #[schemars(length(min = 1, max = 10_000), extend("format" = "regex"))]
    pattern: String,
}

fn number() -> String {
    r"-?\d+(?:\.\d+)?".into()
}

impl Options for ChatOptions {
    fn check(&self) -> Checked {
        if !self.template.contains("{answer}") {
            return Err(("template", "must contain {answer}".into()));
        }
        self.server.check()
    }
}

struct ChatReward {
    options: ChatOptions,
    chat: Chat,
    number: Option<Regex>,
}

impl ChatReward {
    fn new(options: ChatOptions) -> Self {
        Self { chat: Chat::new(&options.server), number: Regex::new(&options.pattern).ok(), options }
    }

    fn request(&self, sample: &Sample) -> Result<f64, String> {
        let text = self.chat.ask(&filled(&self.options.template, &sample.prompt.to_dialogue(), sample.completion))?;
        let found = self.number.as_ref().and_then(|n| n.captures(&text));
        let found = found.and_then(|c| c.get(1).or(c.get(0)).and_then(|m| m.as_str().parse::<f64>().ok()));
        let url = self.chat.url();
        found.ok_or_else(|| format!("{url}: no number in the model's reply \"{}\"", text.replace('\n', " ")))
    }
}

impl RewardSource for ChatReward {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let limits = &self.options.server.limits;
        limits.decide(in_parallel(batch.len(), limits.concurrency, |i| self.request(&batch[i])))
    }
}

fn filled(template: &str, prompt: &str, answer: &str) -> String {
    fill(template, &[("{prompt}", prompt), ("{answer}", answer)])
}

fn all(scores: Vec<Option<f64>>) -> Result<Vec<f64>, String> {
    scores.into_iter().collect::<Option<_>>().ok_or_else(|| "left out samples".into())
}
