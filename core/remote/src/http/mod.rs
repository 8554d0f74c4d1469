//! Asking servers: limits that every remote component has, many requests at once, and what happens to those that fail in the end.

mod address;
mod body;
mod chat;
mod client;
mod failure;
mod proxy;
mod reasoning;
mod secret;

pub use address::{check as check_url, parse as parse_url};
pub use chat::{Chat, ChatServer};
pub use client::Client;
pub use failure::Failed;

use motrain_core::options::Checked;
use motrain_core::stop;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Options that every remote component has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Limits {
    /// The environment variable that holds the key, if the server wants one.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub api_key_env: String,
    /// Seconds after which a request is given up.
    #[serde(default = "timeout")]
    #[schemars(range(max = 86400), extend("exclusiveMinimum" = 0))]
    pub timeout_seconds: f64,
    /// How often a request is tried again after a failure that may pass: a time-out, a lost connection, a status such as 429 or 503.
    #[serde(default = "retries")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: usize,
    /// Seconds before the first new try, more or less; doubled for each further one.
    #[serde(default = "backoff")]
    #[schemars(range(min = 0, max = 86400))]
    pub backoff_seconds: f64,
    /// The longest wait between two tries; a server that asks for a longer one (Retry-After) has failed.
    #[serde(default = "max_wait")]
    #[schemars(range(min = 0, max = 86400))]
    pub max_wait_seconds: f64,
    /// "stop" ends the run; "skip" leaves the samples out and counts them.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Requests under way at once.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: usize,
}

/// What becomes of scores that a server does not give, once all tries have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a comment on a variant would split the schema, and the messages made from it")]
pub enum OnFailure {
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

fn max_wait() -> f64 {
    300.0
}

fn concurrency() -> usize {
    4
}

impl Limits {
    /// What the schema cannot say: whether there is a key.
    pub fn check(&self) -> Checked {
        if self.api_key_env.is_empty() {
            return Ok(());
        }
        let wrong = match self.key() {
            // The name may be the key itself, put there by mistake: it is not repeated.
            None => "names a variable that is not set or empty",
            Some(key) if key.chars().any(|c| !c.is_ascii_graphic()) => {
                "names a variable whose value is no key: it holds a blank, a line break or a letter beyond ASCII"
            }
            Some(_) => return Ok(()),
        };
        Err(("api_key_env", wrong.into()))
    }

    /// The key, without the line break that often follows it in files.
    fn key(&self) -> Option<String> {
        let named = Some(&self.api_key_env).filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
        let key = std::env::var(named?).ok()?.trim().to_owned();
        Some(key).filter(|key| !key.is_empty())
    }

    /// Runs requests, at most `concurrency` at once, and treats those that fail as the user wants: none follows the first one, whose
    /// message is the error, or `None` is in their places.
    pub fn ask<T: Send>(
        &self,
        count: usize,
        request: impl Fn(usize) -> Result<T, String> + Sync,
    ) -> Result<Vec<Option<T>>, String> {
        let over = AtomicBool::new(false);
        let results = in_parallel(count, self.concurrency, |i| {
            if over.load(Ordering::Relaxed) {
                return None;
            }
            let result = request(i);
            over.fetch_or(result.is_err() && self.on_failure == OnFailure::Stop, Ordering::Relaxed);
            Some(result)
        });
        // Requests that were given up have not failed, and leaving them out would change the results.
        stop::obey().map_err(|e| e.to_string())?;
        self.decide(results.into_iter().flatten().collect(), "requests")
    }

    /// Failures by policy: the first one, or `None` in their places.
    pub fn decide<T>(&self, results: Vec<Result<T, String>>, of: &str) -> Result<Vec<Option<T>>, String> {
        let failed: Vec<&String> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        match (failed.first(), self.on_failure) {
            (Some(first), OnFailure::Stop) => Err((*first).clone()),
            (first, _) => {
                if let Some(first) = first {
                    tracing::warn!("left out {} of {} {of}; the first: {first}", failed.len(), results.len());
                }
                Ok(results.into_iter().map(Result::ok).collect())
            }
        }
    }
}

/// An address that a component cannot ask.
pub fn bad_url(owner: &str, what: String) -> motrain_core::Error {
    motrain_core::Error::BadOption { owner: owner.into(), option: "url".into(), what }
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
fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
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
    use serde_json::{Value, json};
    use std::time::Duration;

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

    fn limits(options: Value) -> Limits {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn after_a_failure_that_stops_no_other_request_begins() {
        let begun = AtomicUsize::new(0);
        let fail = |i: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if i == 2 { Err("broken".to_owned()) } else { Ok(i) }
        };
        assert_eq!(limits(json!({"concurrency": 1})).ask(100, fail).unwrap_err(), "broken");
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        let kept = limits(json!({"on_failure": "skip"})).ask(4, fail).unwrap();
        assert_eq!(kept, [Some(0), Some(1), None, Some(3)]);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let wrong = [
            json!({"retries": 1_u64 << 63}),
            json!({"timeout_seconds": 0}),
            json!({"timeout_seconds": 1e9}),
            json!({"backoff_seconds": -0.5}),
            json!({"max_wait_seconds": 1e9}),
            json!({"concurrency": 0}),
            json!({"concurrency": 1_000_000}),
            json!({"api_key_env": "sk-secret"}),
            json!({"api_key_env": "A=B"}),
        ];
        let said = wrong.map(|mut options| {
            options["url"] = json!("http://host/get_reward");
            let mut registry = motrain_core::Registry::builtin();
            crate::register(&mut registry).unwrap();
            registry.rewards.check("remote", &options).unwrap_err().to_string()
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
