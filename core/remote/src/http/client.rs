//! Posting JSON to one address: tries, waits, redirects, and messages that hold no secrets.

use super::failure::{Again, Failed, Fault, header, status, transport};
use super::proxy::{self, Proxy, WholeAddress};
use super::{Limits, address, body};
use motrain_core::rng::sub_seed;
use motrain_core::stop;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use url::Url;

const REDIRECTS: usize = 5;

/// Waits from this length on are told to the user.
const LONG: Duration = Duration::from_secs(5);

/// One server that is asked again and again.
pub struct Client {
    url: Url,
    limits: Limits,
    authorization: Option<String>,
    /// What messages must not hold, even where a server repeats it.
    secrets: Vec<String>,
    /// One for each server (redirects lead to others) and way to it.
    agents: Mutex<HashMap<String, ureq::Agent>>,
    /// Whether a connection may have been left open by an earlier request.
    answered: Arc<AtomicBool>,
    /// When the server wants to be asked again, by whichever thread.
    resume: Mutex<Option<Instant>>,
}

/// A server's answer, whatever its status.
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Client {
    /// For an address and a key that were checked.
    pub fn new(url: &Url, limits: &Limits) -> Self {
        let key = limits.key();
        let authorization = key.as_ref().map(|key| format!("Bearer {key}")).or_else(|| address::basic(url));
        Self {
            url: address::bare(url),
            limits: limits.clone(),
            authorization,
            secrets: key.into_iter().chain(address::secrets(url)).collect(),
            agents: Mutex::default(),
            answered: Arc::default(),
            resume: Mutex::default(),
        }
    }

    /// The address, as messages name it.
    pub fn name(&self) -> String {
        address::shown(&self.url)
    }

    /// Posts until `read` makes something of an answer, no other try is worth it, or there were enough of them.
    pub fn post<T>(&self, body: &Value, read: impl Fn(&Value) -> Result<T, Failed>) -> Result<T, Failed> {
        let body = body.to_string();
        let mut tried = 0;
        loop {
            let failed = match self.once(&body).and_then(|reply| read_reply(&reply, &read)) {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            tried += 1;
            if failed.again == Again::Never || tried > self.limits.retries {
                return Err(self.named(failed, tried));
            }
            match self.pause(&failed.again, &body, tried) {
                Some(pause) => self.wait(pause, &failed)?,
                None => return Err(self.too_long(failed, tried)),
            }
        }
    }

    /// How long to wait before the next try; `None` if the server asks for more than is allowed. It differs between requests, so
    /// that many do not come back at once, but not between runs.
    fn pause(&self, again: &Again, body: &str, tried: usize) -> Option<Duration> {
        let most = Duration::from_secs_f64(self.limits.max_wait_seconds);
        let part = sub_seed(tried as u64, body, 0) as f64 / u64::MAX as f64;
        let doubled = self.limits.backoff_seconds * f64::powi(2.0, tried.min(64) as i32 - 1);
        let backoff = Duration::try_from_secs_f64(doubled * (0.75 + 0.5 * part)).unwrap_or(most).min(most);
        match again {
            Again::After(told) if *told > most => None,
            Again::After(told) => Some((*told).max(backoff) + Duration::from_secs_f64(part * 0.25)),
            _ => Some(backoff),
        }
    }

    /// Waits; if the server said how long, so do the other threads that ask it.
    fn wait(&self, pause: Duration, failed: &Failed) -> Result<(), Failed> {
        let until = Instant::now() + pause;
        if matches!(failed.again, Again::After(_)) {
            let mut resume = lock(&self.resume);
            if resume.is_none_or(|at| at + LONG < until) && pause >= LONG {
                tracing::warn!("{}; waiting {:.0} s, as it asks", self.clean(&failed.what), pause.as_secs_f64());
            }
            *resume = Some(resume.map_or(until, |at| at.max(until)));
        } else if pause >= LONG {
            tracing::warn!("{}; trying again in {:.0} s", self.clean(&failed.what), pause.as_secs_f64());
        }
        stop::pause(pause).map_err(Failed::stopped)
    }

    fn named(&self, failed: Failed, tried: usize) -> Failed {
        let tries = if tried > 1 { format!("; tried {tried} times") } else { String::new() };
        Failed { what: self.clean(&format!("{}{tries}", failed.what)), ..failed }
    }

    fn too_long(&self, failed: Failed, tried: usize) -> Failed {
        let Again::After(told) = failed.again else { return self.named(failed, tried) };
        let most = self.limits.max_wait_seconds;
        let what =
            format!("{}; it asks to wait {} s, more than max_wait_seconds = {most}", failed.what, told.as_secs());
        self.named(Failed { what, ..failed }, tried)
    }

    /// The message under the address, without secrets.
    fn clean(&self, what: &str) -> String {
        format!("{} {}", self.name(), self.redacted(what))
    }

    fn redacted(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden]"))
    }

    /// One try, along redirects that keep the request as it is.
    fn once(&self, body: &str) -> Result<Value, Failed> {
        let resume = *lock(&self.resume);
        if let Some(early) = resume.and_then(|at| at.checked_duration_since(Instant::now())) {
            stop::pause(early).map_err(Failed::stopped)?;
        }
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS {
            // The key is for the server that the user named.
            let authorization = self.authorization.as_deref().filter(|_| url.origin() == self.url.origin());
            let proxy = proxy::of(&url).map_err(Failed::never)?;
            let through = |failed| through(failed, proxy.as_ref());
            let answer = self.send(&url, proxy.as_ref(), authorization, body).map_err(through)?;
            match answer.status {
                307 | 308 => url = target(&url, &answer)?,
                301..=303 => {
                    let to = target(&url, &answer)?;
                    return Err(Failed::never(format!(
                        "has moved to {} (status {}), and the request would lose its content on the way: give that address as url",
                        address::shown(&to),
                        answer.status
                    )));
                }
                200..=299 if answer.status != 204 && answer.status != 205 => {
                    return body::json(&answer.text).map_err(through);
                }
                code => {
                    let text = self.redacted(&answer.text);
                    let fault = body::json(&text).ok().as_ref().and_then(Fault::find);
                    return Err(through(status(code, &answer.headers, fault, &text)));
                }
            }
        }
        Err(Failed::never(format!("redirects more than {REDIRECTS} times, the last time to {}", address::shown(&url))))
    }

    /// One request. A connection that was kept open and is found closed says nothing about the server: a new one is opened.
    fn send(
        &self,
        url: &Url,
        proxy: Option<&Proxy>,
        authorization: Option<&str>,
        body: &str,
    ) -> Result<Answer, Failed> {
        let agent = self.agent(url, proxy).map_err(Failed::never)?;
        let (url, proxy, authorization) = (url.clone(), proxy.cloned(), authorization.map(str::to_owned));
        let (body, seconds, answered) = (body.to_owned(), self.limits.timeout_seconds, self.answered.clone());
        let exchange = move || {
            let send = || request(&agent, &url, proxy.as_ref(), authorization.as_deref(), &body);
            let sent = match send() {
                Err(ureq::Error::Io(e)) if lost(&e) && answered.load(Ordering::Relaxed) => send(),
                other => other,
            };
            let mut reply = sent.map_err(|e| transport(&e, seconds))?;
            answered.store(true, Ordering::Relaxed);
            let bytes = reply.body_mut().with_config().limit(body::LIMIT).read_to_vec().map_err(|e| match e {
                ureq::Error::BodyExceedsLimit(_) => body::too_large(),
                ureq::Error::Io(e) if lost(&e) => Failed::later("gave a reply that ends too early"),
                e => transport(&e, seconds),
            })?;
            Ok((reply.status().as_u16(), reply.headers().clone(), bytes))
        };
        let (status, headers, bytes) = stop::unless_asked(exchange).map_err(Failed::stopped)??;
        Ok(Answer { status, text: body::text(&headers, bytes)?, headers })
    }

    fn agent(&self, url: &Url, proxy: Option<&Proxy>) -> Result<ureq::Agent, String> {
        let origin = url.origin().ascii_serialization();
        let mut agents = lock(&self.agents);
        if let Some(agent) = agents.get(&origin) {
            return Ok(agent.clone());
        }
        let tunnel = proxy.filter(|p| !p.forwards(url)).map(proxy::tunnel).transpose()?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(self.limits.timeout_seconds)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("motrain/", env!("CARGO_PKG_VERSION")))
            .proxy(tunnel)
            .build();
        let agent = if proxy.is_some_and(|p| p.forwards(url)) {
            let connector = DefaultConnector::new().chain(WholeAddress { origin: origin.clone() });
            ureq::Agent::with_parts(config, connector, DefaultResolver::default())
        } else {
            config.into()
        };
        agents.insert(origin, agent.clone());
        Ok(agent)
    }
}

fn request(
    agent: &ureq::Agent,
    url: &Url,
    proxy: Option<&Proxy>,
    authorization: Option<&str>,
    body: &str,
) -> Result<Response<ureq::Body>, ureq::Error> {
    let forwarded = proxy.filter(|p| p.forwards(url));
    let asked = match forwarded {
        // Said to the proxy; `WholeAddress` adds whose path it is.
        Some(proxy) => {
            let mut asked = address::bare(&proxy.url);
            asked.set_path(url.path());
            asked.set_query(url.query());
            asked
        }
        None => url.clone(),
    };
    let mut request = agent.post(asked.as_str()).content_type("application/json").header("Accept", "application/json");
    request = request.header("Accept-Encoding", body::ENCODINGS);
    if let Some(proxy) = forwarded {
        let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        request = request.header("Host", host);
        if let Some(basic) = address::basic(&proxy.url) {
            request = request.header("Proxy-Authorization", basic);
        }
    }
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    request.send(body)
}

fn read_reply<T>(reply: &Value, read: &impl Fn(&Value) -> Result<T, Failed>) -> Result<T, Failed> {
    let failed = |fault: Fault| Failed {
        what: format!("answered with an error: {fault}"),
        again: fault.again(),
        fault: Some(fault),
    };
    match Fault::declared(reply) {
        Some(fault) => Err(failed(fault)),
        // What cannot be read may be an error that does not say so.
        None => read(reply).map_err(|unread| Fault::find(reply).map_or(unread, failed)),
    }
}

fn target(from: &Url, answer: &Answer) -> Result<Url, Failed> {
    let named = header(&answer.headers, "location");
    let to = named.and_then(|to| from.join(to).ok()).filter(|to| matches!(to.scheme(), "http" | "https"));
    to.map(|to| address::bare(&to))
        .ok_or_else(|| Failed::never(format!("redirects to no address (status {})", answer.status)))
}

/// A failure behind a proxy names it: it may be the proxy's.
fn through(failed: Failed, proxy: Option<&Proxy>) -> Failed {
    let Some(proxy) = proxy else { return failed };
    let what =
        format!("{} (through the proxy {}; no_proxy lists hosts that need none)", failed.what, proxy::shown(proxy));
    Failed { what, ..failed }
}

/// Whether the other side has closed the connection.
fn lost(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
