//! Rewards behind HTTP: OpenRLHF's `POST /get_reward`, and replies in the forms that other reward servers give.

use crate::http::{Client, Failed, Limits, bad_url, check_url, fill, parse_url};
use motrain_core::options::{Checked, Options, parse};
use motrain_core::registry::{Builtin, schema};
use motrain_core::reward::{RewardSource, Sample, all};
use motrain_core::shown::quoted;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "remote",
    summary: "a reward model behind HTTP (OpenRLHF's POST /get_reward)",
    schema: schema::<RemoteOptions>(),
    build: |owner, options| Ok(Box::new(Remote::new(parse(owner, options)?).map_err(|what| bad_url(owner, what))?)),
};

#[derive(Deserialize, JsonSchema)]
// deny_unknown_fields does not go with flatten; the schema has all names, and is checked first.
struct RemoteOptions {
    /// The whole address, such as "http://localhost:5000/get_reward". Secrets in it are named: ${VARIABLE}.
    #[schemars(length(min = 8, max = 4096))]
    url: String,
    /// What the server scores: {prompt}, {answer} and {ending} ("finished" or "cut off") are filled in.
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
        check_url(&self.url)?;
        self.limits.check()
    }
}

struct Remote {
    options: RemoteOptions,
    client: Client,
}

/// Scores of a request: a number for each sample, or what stands in its place.
type Scores = Vec<Result<f64, String>>;

impl Remote {
    fn new(options: RemoteOptions) -> Result<Self, String> {
        Ok(Self { client: Client::new(&parse_url(&options.url)?, &options.limits), options })
    }

    fn request(&self, samples: &[Sample]) -> Result<Scores, String> {
        let prompts: Vec<String> = samples.iter().map(|s| s.prompt.to_dialogue()).collect();
        let texts = samples.iter().zip(&prompts).map(|(s, prompt)| filled(&self.options.query, prompt, s));
        let finished: Vec<bool> = samples.iter().map(|s| s.finished).collect();
        let body = json!({ "query": texts.collect::<Vec<_>>(), "prompts": prompts, "finished": finished });
        let read = |reply: &Value| scores(reply, samples.len()).map_err(Failed::never);
        let scores = self.client.post(&body, read).map_err(|failed| failed.what)?;
        let name = self.client.name();
        let placed = |(i, score): (usize, Result<f64, String>)| {
            let sample = &samples[i];
            score.map_err(|found| {
                let (prompt, answer) = (quoted(&prompts[i]), quoted(sample.completion));
                format!("{name} gave {found}, which is no finite number, for \"{answer}\" to \"{prompt}\"")
            })
        };
        Ok(scores.into_iter().enumerate().map(placed).collect())
    }
}

impl RewardSource for Remote {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let chunks: Vec<&[Sample]> = batch.chunks(self.options.batch_size).collect();
        let replies = self.options.limits.ask(chunks.len(), |i| self.request(chunks[i]))?;
        let mut scores: Vec<Result<Option<f64>, String>> = Vec::with_capacity(batch.len());
        for (chunk, reply) in chunks.iter().zip(replies) {
            match reply {
                Some(given) => scores.extend(given.into_iter().map(|score| score.map(Some))),
                None => scores.extend(chunk.iter().map(|_| Ok(None))),
            }
        }
        Ok(self.options.limits.decide(scores, "scores")?.into_iter().map(Option::flatten).collect())
    }
}

/// Keys that hold the scores: OpenRLHF's first, then those of other servers (vLLM's and TEI's among them).
const LISTS: [&str; 7] = ["rewards", "scores", "reward", "score", "data", "results", "predictions"];

/// The scores of a reply for so many samples; what was found instead.
fn scores(reply: &Value, count: usize) -> Result<Scores, String> {
    let key = LISTS.into_iter().find(|key| !reply[*key].is_null());
    let list = key.map_or(reply, |key| &reply[key]);
    let items = match list {
        Value::Array(items) => in_order(items)?,
        Value::Number(_) | Value::String(_) if count == 1 && key.is_some() => vec![list],
        _ => return Err(format!("gave no list of \"rewards\": {}", quoted(&reply.to_string()))),
    };
    if items.len() != count {
        return Err(format!("gave {} scores for {count} completions: {}", items.len(), quoted(&reply.to_string())));
    }
    items.into_iter().map(one).collect()
}

/// Items in the order of the samples: servers that sort them by score say whose each is.
fn in_order(items: &[Value]) -> Result<Vec<&Value>, String> {
    let at = |item: &Value| item["index"].as_u64().and_then(|i| usize::try_from(i).ok());
    if !items.iter().any(|item| !item["index"].is_null()) {
        return Ok(items.iter().collect());
    }
    let mut ordered = vec![None; items.len()];
    for item in items {
        match at(item).and_then(|i| ordered.get_mut(i)) {
            Some(place @ None) => *place = Some(item),
            _ => {
                return Err(format!(
                    "gave scores whose \"index\" do not count from 0 up: {}",
                    quoted(&item.to_string())
                ));
            }
        }
    }
    Ok(ordered.into_iter().flatten().collect())
}

/// One sample's score: a number, a number as text, alone in a list, or in an object that names it. `Ok(Err(…))` is a place without one.
fn one(item: &Value) -> Result<Result<f64, String>, String> {
    let wrong = || {
        let found = quoted(&item.to_string());
        Err(format!(
            "gave something else than a score for each completion: {found}; a number, [number] or {{\"score\": number}} is read"
        ))
    };
    match item {
        Value::Null => Ok(Err("null".into())),
        Value::Number(n) => Ok(n.as_f64().filter(|x| x.is_finite()).ok_or_else(|| n.to_string())),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Ok(x)),
            Ok(_) => Ok(Err(quoted(text))),
            Err(_) => wrong(),
        },
        Value::Array(inner) if inner.len() == 1 && !inner[0].is_array() => one(&inner[0]),
        Value::Object(fields) => {
            let named: Vec<&Value> = ["score", "reward", "data"].iter().filter_map(|key| fields.get(*key)).collect();
            match named.as_slice() {
                [inner] if !inner.is_object() => one(inner),
                _ => wrong(),
            }
        }
        _ => wrong(),
    }
}

pub(super) fn filled(template: &str, prompt: &str, sample: &Sample) -> String {
    let ending = if sample.finished { "finished" } else { "cut off" };
    fill(template, &[("{prompt}", prompt), ("{answer}", sample.completion), ("{ending}", ending)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use motrain_core::Prompt;

    #[test]
    fn templates_can_say_that_an_answer_was_cut() {
        let (prompt, row) = (Prompt::user("p"), Value::Null);
        let told = |finished| {
            filled("{prompt}|{answer}|{ending}", "p", &Sample { prompt: &prompt, completion: "a", finished, row: &row })
        };
        assert_eq!([told(true), told(false)], ["p|a|finished", "p|a|cut off"]);
    }

    #[test]
    fn the_forms_of_reward_servers_are_read() {
        for reply in [
            json!({"rewards": [0.5, -1]}),
            json!({"rewards": [0.5, -1], "scores": [9, 9], "extra_logs": {"length": [1, 2]}}),
            json!({"scores": [0.5, -1.0]}),
            json!([0.5, -1]),
            json!({"rewards": [[0.5], [-1]]}),
            json!({"rewards": ["0.5", " -1 "]}),
            json!({"data": [{"index": 0, "object": "score", "score": 0.5}, {"index": 1, "object": "score", "score": -1}]}),
            json!({"data": [{"index": 1, "object": "pooling", "data": [-1]}, {"index": 0, "object": "pooling", "data": [0.5]}]}),
            json!([{"index": 1, "score": -1}, {"index": 0, "score": 0.5}]),
            json!([[{"label": "LABEL_0", "score": 0.5}], [{"label": "LABEL_0", "score": -1}]]),
            json!({"results": [{"reward": 0.5}, {"reward": -1}]}),
        ] {
            assert_eq!(scores(&reply, 2), Ok(vec![Ok(0.5), Ok(-1.0)]), "{reply}");
        }
        assert_eq!(scores(&json!({"score": 0.5}), 1), Ok(vec![Ok(0.5)]));
        let none = scores(&json!({"rewards": [null, "NaN", 1]}), 3).unwrap();
        assert_eq!(none, [Err("null".into()), Err("NaN".into()), Ok(1.0)]);
    }

    #[test]
    fn other_forms_are_named() {
        let rows = [
            json!({"rewards": [1, 2, 3]}),
            json!({"rewards": [1]}),
            json!({"rewards": 1}),
            json!({"rewards": [true, false]}),
            json!({"rewards": [[1, 2], [3, 4]]}),
            json!({"rewards": ["good", "bad"]}),
            json!([{"index": 0, "score": 1}, {"index": 0, "score": 2}]),
            json!([{"index": 0, "score": 1}, {"score": 2}]),
            json!([[{"label": "a", "score": 0.1}, {"label": "b", "score": 0.9}], [{"label": "a", "score": 1}]]),
            json!({"data": [{"index": 0, "label": "good", "probs": [0.1, 0.9]}, {"index": 1, "label": "bad", "probs": [1, 0]}]}),
            json!({"outputs": [1, 2]}),
            json!("fine"),
        ];
        let said = rows.map(|row| scores(&row, 2).unwrap_err());
        insta::assert_snapshot!(said.join("\n"));
    }
}
