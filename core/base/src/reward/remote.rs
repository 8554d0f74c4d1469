//! Rewards behind HTTP: `remote` speaks OpenRLHF's `POST /get_reward`, `chat` asks a language model behind an OpenAI-compatible
//! server (AI feedback).

use super::{RewardSource, Sample};
use crate::Prompt;
use crate::http::{Client, Limits, in_parallel};
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
    build: |owner, options| Ok(Box::new(Chat::new(parse(owner, options)?))),
};

#[derive(Deserialize, JsonSchema)]
// deny_unknown_fields does not go with flatten; the schema has all names, and is checked first.
struct RemoteOptions {
    /// The whole address, such as "http://localhost:5000/get_reward".
    url: String,
    /// What the server scores: {prompt} and {answer} are filled in.
    #[serde(default = "query")]
    query: String,
    /// Samples a request.
    #[serde(default = "batch_size")]
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
        if self.batch_size == 0 {
            return Err(("batch_size", "must be at least 1".into()));
        }
        check_url(&self.url)?;
        self.limits.check()
    }
}

fn check_url(url: &str) -> Checked {
    let known = url.starts_with("http://") || url.starts_with("https://");
    if known { Ok(()) } else { Err(("url", format!("must begin with http:// or https://, not \"{url}\""))) }
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
        let prompts: Vec<String> = samples.iter().map(|s| plain(s.prompt)).collect();
        let texts = samples.iter().zip(&prompts).map(|(s, prompt)| fill(&self.options.query, prompt, s.completion));
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
    /// The address up to the version, such as "http://localhost:8000/v1".
    url: String,
    /// The model's name as the server knows it.
    model: String,
    /// What the model is asked: {prompt} and {answer} are filled in. It should ask for a number.
    template: String,
    /// Where the number is in the model's reply: the first match, or its first group.
    #[serde(default = "number")]
    pattern: String,
    /// The environment variable that holds the key, if the server wants one.
    #[serde(default)]
    api_key_env: String,
    #[serde(default = "max_tokens")]
    max_tokens: usize,
    #[serde(flatten)]
    limits: Limits,
}

fn number() -> String {
    r"-?\d+(?:\.\d+)?".into()
}

fn max_tokens() -> usize {
    32
}

impl Options for ChatOptions {
    fn check(&self) -> Checked {
        check_url(&self.url)?;
        if !self.template.contains("{answer}") {
            return Err(("template", "must contain {answer}".into()));
        }
        Regex::new(&self.pattern).map_err(|e| ("pattern", format!("is no regular expression: {e}")))?;
        if !self.api_key_env.is_empty() && std::env::var_os(&self.api_key_env).is_none() {
            return Err(("api_key_env", format!("names {}, which is not set", self.api_key_env)));
        }
        self.limits.check()
    }
}

struct Chat {
    options: ChatOptions,
    client: Client,
    number: Option<Regex>,
}

impl Chat {
    fn new(options: ChatOptions) -> Self {
        let key = std::env::var(&options.api_key_env).ok();
        Self { client: Client::new(&options.limits, key), number: Regex::new(&options.pattern).ok(), options }
    }

    fn request(&self, sample: &Sample) -> Result<f64, String> {
        let asked = fill(&self.options.template, &plain(sample.prompt), sample.completion);
        let body = json!({
            "model": self.options.model,
            "messages": [{ "role": "user", "content": asked }],
            "temperature": 0.0,
            "max_tokens": self.options.max_tokens,
        });
        let url = format!("{}/chat/completions", self.options.url.trim_end_matches('/'));
        let reply = self.client.post(&url, &body)?;
        let Some(text) = reply["choices"][0]["message"]["content"].as_str() else {
            return Err(format!("{url} gave no message: {}", shortened(&reply)));
        };
        let found = self.number.as_ref().and_then(|n| n.captures(text));
        let found = found.and_then(|c| c.get(1).or(c.get(0)).and_then(|m| m.as_str().parse::<f64>().ok()));
        found.ok_or_else(|| format!("{url}: no number in the model's reply \"{}\"", text.replace('\n', " ")))
    }
}

impl RewardSource for Chat {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let replies = in_parallel(batch.len(), self.options.limits.concurrency, |i| self.request(&batch[i]));
        self.options.limits.decide(replies)
    }
}

fn all(scores: Vec<Option<f64>>) -> Result<Vec<f64>, String> {
    scores.into_iter().collect::<Option<_>>().ok_or_else(|| "left out samples".into())
}

/// One turn as it is, several as an HH dialogue.
fn plain(prompt: &Prompt) -> String {
    match prompt.messages.as_slice() {
        [one] => one.content.clone(),
        several => {
            let turn = |m: &crate::Message| {
                let speaker = if m.role == "assistant" { "Assistant" } else { "Human" };
                format!("\n\n{speaker}: {}", m.content)
            };
            several.iter().map(turn).chain(["\n\nAssistant:".into()]).collect()
        }
    }
}

/// Fills both places at once, so that braces in the texts are left alone.
fn fill(template: &str, prompt: &str, answer: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = [("{prompt}", prompt), ("{answer}", answer)].into_iter().find(|(name, _)| rest.starts_with(name));
        let (name, text) = known.unwrap_or(("{", "{"));
        out.push_str(text);
        rest = &rest[name.len()..];
    }
    out + rest
}

fn shortened(reply: &Value) -> String {
    let text = reply.to_string();
    if text.len() <= 200 { text } else { format!("{}…", text.chars().take(200).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_texts_are_left_alone() {
        assert_eq!(fill("Q {prompt} A {answer} {x}", "{answer}", "{prompt}"), "Q {answer} A {prompt} {x}");
    }
}
