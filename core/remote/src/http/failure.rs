//! What went wrong with a request, and whether it is worth another try: never, later, or when the server says.

use motrain_core::shown::quoted;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use ureq::http::HeaderMap;

/// Whether another try makes sense.
#[derive(Clone, Debug, PartialEq)]
pub enum Again {
    /// It would fail in the same way.
    Never,
    /// It may pass, after a while.
    Later,
    /// The server says when.
    After(Duration),
}

/// A request that gave nothing.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What went wrong, without keys and passwords.
    pub what: String,
    /// Whether another try makes sense.
    pub again: Again,
    /// The error that the server describes, if it does.
    pub fault: Option<Fault>,
}

impl Failed {
    /// A failure that another try would meet as well.
    pub fn never(what: impl Into<String>) -> Self {
        Self { what: what.into(), again: Again::Never, fault: None }
    }

    /// Whatever became of the request, nobody waits for it any more.
    pub fn stopped(error: motrain_core::Error) -> Self {
        Self::never(error.to_string())
    }

    /// A failure that may pass.
    pub fn later(what: impl Into<String>) -> Self {
        Self { what: what.into(), again: Again::Later, fault: None }
    }
}

/// An error as servers describe it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// All that names its kind: `code`, `type`, `status`.
    pub codes: Vec<String>,
    /// The field of the request that it is about.
    pub field: String,
    pub message: String,
}

impl Fault {
    /// The error in a reply, which may be in one of the forms of OpenAI, OpenRouter, Gemini, vLLM and FastAPI.
    pub fn find(reply: &Value) -> Option<Self> {
        let reply = reply.get(0).unwrap_or(reply);
        let inner =
            ["error", "errors", "detail", "base_resp"].iter().map(|key| &reply[*key]).find(|v| said(v) && **v != true);
        match inner {
            Some(inner) => Some(Self::from(inner.get(0).unwrap_or(inner), reply)),
            None if MESSAGE.iter().any(|key| reply[*key].is_string() && said(&reply[*key])) => {
                Some(Self::from(reply, &Value::Null))
            }
            None => None,
        }
    }

    /// The error of a reply that says outright that it is one, whatever else it holds.
    pub fn declared(reply: &Value) -> Option<Self> {
        let outright = said(&reply["error"])
            || reply["object"] == "error"
            || reply["success"] == false
            || reply["status"] == "error";
        if outright || reply.get(0).is_some_and(|first| said(&first["error"])) { Self::find(reply) } else { None }
    }

    fn from(error: &Value, around: &Value) -> Self {
        let text = |v: &Value| match v {
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            _ => None,
        };
        let codes = ["code", "type", "status", "error_code", "error_type", "status_code"];
        let codes = codes.iter().flat_map(|key| [&error[*key], &around[*key]]).filter_map(text).collect();
        let message =
            MESSAGE.iter().find_map(|key| text(&error[*key]).filter(|m| !m.is_empty())).or_else(|| text(error));
        let field = ["param", "field", "loc"].iter().find(|key| !error[**key].is_null());
        let field = field.map(|key| text(&error[*key]).unwrap_or_else(|| error[*key].to_string())).unwrap_or_default();
        Self { codes, field, message: message.unwrap_or_else(|| error.to_string()) }
    }

    /// Whether it is worth another try, by its own words; a fault that cannot be placed may pass.
    pub fn again(&self) -> Again {
        const NEVER: [&str; 12] = [
            "invalid",
            "unsupported",
            "notsupported",
            "notfound",
            "authentication",
            "permission",
            "unauthorized",
            "forbidden",
            "contextlength",
            "contentfilter",
            "contentpolicy",
            "badrequest",
        ];
        let numbers = || self.codes.iter().filter_map(|c| c.parse::<u16>().ok()).filter(|c| (400..600).contains(c));
        let never = self.is_quota() || self.has(&NEVER) || numbers().any(|status| !passes(status));
        if never { Again::Never } else { Again::Later }
    }

    /// A limit that waiting does not lift.
    fn is_quota(&self) -> bool {
        self.has(&["insufficient", "billing"])
    }

    /// Whether a code holds one of these words, in whatever way it is written.
    fn has(&self, words: &[&str]) -> bool {
        let plain = |code: &String| code.to_lowercase().replace(['_', '-', ' '], "");
        self.codes.iter().map(plain).any(|code| words.iter().any(|word| code.contains(word)))
    }
}

/// Keys under which an error says what it is, first those that say most.
const MESSAGE: [&str; 6] = ["message", "msg", "error_msg", "error_message", "status_msg", "detail"];

/// Whether a value says anything: `"error": null`, `false`, `""`, `{}` and `[null]` are said by replies without error.
fn said(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(s) => !s.trim().is_empty(),
        Value::Array(items) => items.iter().any(said),
        Value::Object(map) => map.get("status_code").is_none_or(|code| *code != 0) && !map.is_empty(),
        _ => true,
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut codes: Vec<&str> =
            self.codes.iter().map(String::as_str).filter(|c| !self.message.contains(c)).collect();
        codes.dedup();
        let codes = if codes.is_empty() { String::new() } else { format!(" ({})", quoted(&codes.join(", "))) };
        write!(f, "{}{codes}", quoted(&self.message))
    }
}

/// A status that says no.
pub fn status(status: u16, headers: &HeaderMap, fault: Option<Fault>, text: &str) -> Failed {
    let said = match &fault {
        Some(fault) => fault.to_string(),
        None => quoted(text),
    };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let quota = fault.as_ref().is_some_and(Fault::is_quota);
    let (again, hint) = match header(headers, "x-should-retry") {
        _ if quota => (Again::Never, "; this does not pass by waiting: see to the account"),
        Some("true") => (wait(headers), ""),
        Some("false") => (Again::Never, hint(status)),
        _ if passes(status) => (wait(headers), ""),
        _ => (Again::Never, hint(status)),
    };
    Failed { what: format!("answered with status {status}{said}{hint}"), again, fault }
}

/// Whether a failure of this status may pass.
fn passes(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429) || (status >= 500 && !matches!(status, 501 | 505 | 511))
}

/// How to mend what does not pass.
fn hint(status: u16) -> &'static str {
    match status {
        204 | 205 | 304 => "; it should answer with JSON: check the path of url",
        400 | 422 => "; the server expects another request: check url, model and the fields that are sent",
        401 => "; check the key: api_key_env names the variable that holds it",
        402 => "; the account has no credit",
        403 => "; the key (api_key_env) may not use this, or the address of this machine may not",
        404 | 410 => "; check the path of url and the name of the model",
        405 => "; nothing takes a POST at this path: check url",
        407 => "; the proxy wants a user and a password: http://user:password@host:port",
        413 => "; the request is too large: lower batch_size, or the length of answers",
        415 => "; the server takes no JSON at this path: check url",
        501 | 505 => "; the server does not know this kind of request: check url",
        511 => "; the network wants a log-in first",
        _ => "",
    }
}

/// When the server wants to be asked again.
fn wait(headers: &HeaderMap) -> Again {
    let seconds = |name: &str, unit: f64| header(headers, name)?.trim().parse::<f64>().ok().map(|n| n * unit);
    let until = || {
        let date = |name: &str| httpdate::parse_http_date(header(headers, name)?.trim()).ok();
        // By the server's own clock, since the two may differ.
        let now = date("date").unwrap_or_else(SystemTime::now);
        date("retry-after").map(|at| at.duration_since(now).unwrap_or_default())
    };
    let told = seconds("retry-after-ms", 1e-3).or_else(|| seconds("retry-after", 1.0)).filter(|s| *s >= 0.0);
    let told = told.map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)).or_else(until);
    told.map_or(Again::Later, Again::After)
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// No answer at all.
pub fn transport(error: &ureq::Error, seconds: f64) -> Failed {
    use std::io::ErrorKind;
    use ureq::Error;
    match error {
        Error::Timeout(_) => Failed::later(format!("did not answer within {seconds} s (timeout_seconds)")),
        Error::HostNotFound => unknown_host(),
        Error::Io(e) => match e.kind() {
            ErrorKind::ConnectionRefused => {
                Failed::later("cannot be reached: nothing listens at this port; is the server running?")
            }
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Failed::later("cannot be reached: the connection was closed without an answer"),
            ErrorKind::InvalidData => tls(&e.to_string()),
            // The standard library has no kind for it.
            _ if e.to_string().contains("lookup address") => unknown_host(),
            _ => Failed::later(format!("cannot be reached: {}", quoted(&e.to_string()))),
        },
        Error::Rustls(e) => tls(&e.to_string()),
        Error::Tls(what) => tls(what),
        Error::Protocol(e) => {
            Failed::later(format!("answered with something that is not HTTP: {}", quoted(&e.to_string())))
        }
        Error::ConnectProxyFailed(what) => {
            let refused =
                what.split(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse::<u16>().ok().filter(|n| *n >= 400));
            let what = format!("cannot be reached: {}{}", quoted(what), refused.map_or("", hint));
            if refused.is_none_or(passes) { Failed::later(what) } else { Failed::never(what) }
        }
        other => Failed::never(format!("cannot be reached: {}", quoted(&other.to_string()))),
    }
}

fn unknown_host() -> Failed {
    Failed::later("cannot be reached: no such host is known; check the host of url, and the network")
}

fn tls(what: &str) -> Failed {
    Failed::never(format!(
        "cannot be reached by TLS: {}; check that the server speaks https at this port, and that a public authority signed its certificate",
        quoted(what)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn again(code: u16, pairs: &[(&'static str, &str)], body: Value) -> Again {
        status(code, &headers(pairs), Fault::find(&body), "").again
    }

    #[test]
    fn statuses_are_never_again_again_or_again_when_told() {
        for code in [300, 304, 400, 401, 402, 403, 404, 405, 407, 410, 413, 415, 422, 501, 505, 511] {
            assert_eq!(again(code, &[("retry-after", "3")], json!({})), Again::Never, "{code}");
        }
        for code in [408, 409, 425, 429, 500, 502, 503, 504, 520, 529] {
            assert_eq!(again(code, &[], json!({})), Again::Later, "{code}");
            assert_eq!(again(code, &[("retry-after", "3")], json!({})), Again::After(Duration::from_secs(3)), "{code}");
        }
        let quota = json!({"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}});
        assert_eq!(again(429, &[("retry-after", "3")], quota), Again::Never);
        assert_eq!(again(500, &[("x-should-retry", "false")], json!({})), Again::Never);
        assert_eq!(again(400, &[("x-should-retry", "true")], json!({})), Again::Later);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let told = |pairs: &[(&'static str, &str)]| wait(&headers(pairs));
        assert_eq!(told(&[("retry-after", "1.5")]), Again::After(Duration::from_millis(1500)));
        assert_eq!(told(&[("retry-after-ms", "250"), ("retry-after", "9")]), Again::After(Duration::from_millis(250)));
        let (date, at) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:07 GMT");
        assert_eq!(told(&[("date", date), ("retry-after", at)]), Again::After(Duration::from_secs(7)));
        assert_eq!(told(&[("retry-after", date)]), Again::After(Duration::ZERO), "long ago");
        assert_eq!(told(&[("retry-after", "1e300")]), Again::After(Duration::MAX));
        for nonsense in ["-3", "soon", "NaN", ""] {
            assert_eq!(told(&[("retry-after", nonsense)]), Again::Later, "{nonsense}");
        }
    }

    #[test]
    fn faults_are_found_in_the_forms_that_servers_use() {
        let rows = [
            json!({"error": {"message": "Provider returned error", "code": 429}}),
            json!({"error": {"message": "Rate limit", "type": "rate_limit_error", "param": null, "code": null}}),
            json!({"error": "model is loading", "error_type": "overloaded"}),
            json!([{"error": {"code": 400, "message": "bad key", "status": "INVALID_ARGUMENT"}}]),
            json!({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}),
            json!({"detail": "Not authenticated"}),
            json!({"detail": [{"loc": ["body", "query"], "msg": "field required", "type": "value_error.missing"}]}),
            json!({"code": "invalid_api_key", "message": "who are you?"}),
            json!({"error_code": 18, "error_msg": "Open api qps request limit reached"}),
            json!({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": null}),
            json!({"success": false, "msg": "no"}),
            json!({"error": true, "message": "broken"}),
            json!({"message": {"role": "assistant", "content": "8"}, "done": true}),
            json!({"error": null, "choices": []}),
            json!({"error": {}, "errors": [null], "base_resp": {"status_code": 0, "status_msg": "ok"}}),
        ];
        let said = rows.map(|row| match Fault::find(&row) {
            Some(fault) => format!("{fault} | {} | {:?}", fault.field, fault.again()),
            None => "none".into(),
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
