//! Posting JSON with time-outs, retries, a bound on concurrency and a policy for what fails in the end.

use crate::options::Checked;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Options that every remote component has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Limits {
    /// Seconds after which a request is given up.
    #[serde(default = "timeout")]
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: f64,
    /// How often a request is tried again after a time-out, a lost connection, or a status of 429 or 500 and above.
    #[serde(default = "retries")]
    #[schemars(range(max = 1000))]
    pub retries: usize,
    /// Seconds before the first new try; doubled for each further one.
    #[serde(default = "backoff")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub backoff_seconds: f64,
    /// "stop" ends the run; "skip" leaves the samples out and counts them.
    #[serde(default)]
    pub on_failure: Failure,
    /// Requests under way at once.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    #[default]
    Stop,
    Skip,
}

fn timeout() -> f64 {
    60.0
}

fn retries() -> usize {
    3
}

fn backoff() -> f64 {
    0.5
}

fn concurrency() -> usize {
    4
}

impl Limits {
    /// Failures by policy: the first one, or `None` in their places.
    pub fn decide<T>(&self, results: Vec<Result<T, String>>) -> Result<Vec<Option<T>>, String> {
        let failed: Vec<String> = results.iter().filter_map(|r| r.as_ref().err().cloned()).collect();
        match (failed.first(), self.on_failure) {
            (Some(first), Failure::Stop) => Err(first.clone()),
            (first, _) => {
                if let Some(first) = first {
                    tracing::warn!("left out {} of {} requests; the first: {first}", failed.len(), results.len());
                }
                Ok(results.into_iter().map(Result::ok).collect())
            }
        }
    }
}

/// Posts JSON and reads JSON.
pub struct Client {
    agent: ureq::Agent,
    limits: Limits,
    key: Option<String>,
}

/// What came of one try: a final result, or what went wrong and may go away.
type Try = std::ops::ControlFlow<Result<Value, String>, String>;

impl Client {
    pub fn new(limits: &Limits, key: Option<String>) -> Self {
        let timeout = Duration::from_secs_f64(limits.timeout_seconds);
        let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
        Self { agent: config.build().into(), limits: limits.clone(), key }
    }

    pub fn post(&self, url: &str, body: &Value) -> Result<Value, String> {
        let mut last = String::new();
        for tried in 0..=self.limits.retries {
            if tried > 0 {
                let wait = self.limits.backoff_seconds * f64::powi(2.0, tried as i32 - 1);
                std::thread::sleep(Duration::from_secs_f64(wait.min(60.0)));
            }
            match self.once(url, body) {
                Try::Break(done) => return done,
                Try::Continue(what) => last = what,
            }
        }
        Err(format!("{last}; tried {} times", self.limits.retries + 1))
    }

    fn once(&self, url: &str, body: &Value) -> Try {
        let mut request = self.agent.post(url);
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let answered =
            request.send_json(body).and_then(|mut r| Ok((r.status().as_u16(), r.body_mut().read_to_string()?)));
        let (status, text) = match answered {
            Ok(answered) => answered,
            Err(ureq::Error::Timeout(_)) => {
                return Try::Continue(format!("{url} did not answer within {} s", self.limits.timeout_seconds));
            }
            Err(e) => return Try::Continue(format!("{url} cannot be reached: {e}")),
        };
        let shown = || text.chars().take(200).collect::<String>();
        match status {
            200..300 => Try::Break(serde_json::from_str(&text).map_err(|_| format!("{url} gave no JSON: {}", shown()))),
            429 | 500.. => Try::Continue(format!("{url} answered with status {status}: {}", shown())),
            _ => Try::Break(Err(format!("{url} answered with status {status}: {}", shown()))),
        }
    }
}

/// Where and how a language model behind an OpenAI-compatible server is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ChatServer {
    /// The address up to the version, such as "http://localhost:8000/v1".
    #[schemars(length(min = 8, max = 4096))]
    pub url: String,
    /// The model's name as the server knows it.
    #[schemars(length(min = 1, max = 1000))]
    pub model: String,
    /// The environment variable that holds the key, if the server wants one.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub api_key_env: String,
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: usize,
    #[serde(flatten)]
    pub limits: Limits,
}

fn max_tokens() -> usize {
    32
}

impl ChatServer {
    pub fn check(&self) -> Checked {
        check_url(&self.url)?;
        if !self.api_key_env.is_empty() && std::env::var_os(&self.api_key_env).is_none() {
            return Err(("api_key_env", format!("names {}, which is not set", self.api_key_env)));
        }
        Ok(())
    }
}

/// A language model that answers questions.
pub struct Chat {
    url: String,
    model: String,
    max_tokens: usize,
    client: Client,
}

impl Chat {
    pub fn new(server: &ChatServer) -> Self {
        let client = Client::new(&server.limits, std::env::var(&server.api_key_env).ok());
        let url = format!("{}/chat/completions", server.url.trim_end_matches('/'));
        Self { url, model: server.model.clone(), max_tokens: server.max_tokens, client }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The model's reply to one message, at temperature 0.
    pub fn ask(&self, message: &str) -> Result<String, String> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": message }],
            "temperature": 0.0,
            "max_tokens": self.max_tokens,
        });
        let reply = self.client.post(&self.url, &body)?;
        let text = reply["choices"][0]["message"]["content"].as_str();
        text.map(str::to_owned).ok_or_else(|| format!("{} gave no message: {}", self.url, shortened(&reply)))
    }
}

pub fn check_url(url: &str) -> Checked {
    let known = url.starts_with("http://") || url.starts_with("https://");
    if known { Ok(()) } else { Err(("url", format!("must begin with http:// or https://, not \"{url}\""))) }
}

pub fn shortened(reply: &Value) -> String {
    let text = reply.to_string();
    if text.len() <= 200 { text } else { format!("{}…", text.chars().take(200).collect::<String>()) }
}

/// Fills all places of a template at once, so that braces in the texts are left alone.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = values.iter().find(|(name, _)| rest.starts_with(name)).copied();
        let (name, text) = known.unwrap_or(("{", "{"));
        out.push_str(text);
        rest = &rest[name.len()..];
    }
    out + rest
}

/// Runs `work` for each index on at most `threads` threads; results in order.
pub fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    let result = work(i);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_texts_are_left_alone() {
        let values = [("{prompt}", "{answer}"), ("{answer}", "{prompt}")];
        assert_eq!(fill("Q {prompt} A {answer} {x}", &values), "Q {answer} A {prompt} {x}");
    }

    #[test]
    fn results_keep_their_order_and_threads_their_bound() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let out = in_parallel(20, 3, |i| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
            i * i
        });
        assert_eq!(out, (0..20).map(|i| i * i).collect::<Vec<_>>());
        assert!(most.into_inner() <= 3);
    }
}
