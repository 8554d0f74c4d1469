//! A language model behind an OpenAI-compatible server: what it is asked and what it says, without its reasoning.

use super::failure::{Again, Failed, Fault};
use super::{Client, Limits, check_url, parse_url, reasoning, secret};
use motrain_core::options::Checked;
use motrain_core::shown::quoted;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

/// Where and how a language model behind an OpenAI-compatible server is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ChatServer {
    /// The address up to the version, such as "http://localhost:8000/v1". Secrets in it are named: ${VARIABLE}.
    #[schemars(length(min = 8, max = 4096))]
    pub url: String,
    /// The model's name as the server knows it.
    #[schemars(length(min = 1, max = 1000))]
    pub model: String,
    /// Tokens that the model may say, its reasoning included; a reply that is cut there is no answer.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: usize,
    /// Fields that the request has besides, or with other values, such as #{ reasoning_effort: "low" }.
    #[serde(default)]
    #[schemars(extend("x-any" = true))]
    pub request: Map<String, Value>,
    /// Fields that the request must not have, such as ["temperature"] for a model that refuses it.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 100)))]
    pub leave_out: Vec<String>,
    /// Tries, waits and what becomes of failures.
    #[serde(flatten)]
    pub limits: Limits,
}

fn max_tokens() -> usize {
    1024
}

/// Fields that are what motrain asks; a stream or several answers it could not read.
const OWN: [&str; 4] = ["messages", "model", "stream", "n"];
const LENGTHS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

impl ChatServer {
    /// Whether the options make sense together; the option at fault and what is wrong with it otherwise.
    pub fn check(&self) -> Checked {
        check_url(&self.url)?;
        if let Some(own) = OWN.iter().find(|own| self.request.contains_key(**own)) {
            return Err(("request", format!("must not hold \"{own}\", which motrain sets itself")));
        }
        if let Some(name) = self.request.keys().find(|name| secret::is_name(name)) {
            let what = format!(
                "holds \"{name}\", and options are kept in run folders: give the name of a variable as api_key_env"
            );
            return Err(("request", what));
        }
        if let Some(own) = OWN.iter().find(|own| self.leave_out.iter().any(|name| name == *own)) {
            return Err(("leave_out", format!("must not hold \"{own}\": no answer comes without it")));
        }
        self.limits.check()
    }
}

/// A language model that answers questions.
pub struct Chat {
    server: ChatServer,
    client: Client,
    /// Whether the server knows the bound on the answer only as `max_completion_tokens`.
    renamed: AtomicBool,
}

impl Chat {
    /// For options that were checked.
    pub fn new(server: &ChatServer) -> Result<Self, String> {
        let url = completions(parse_url(&server.url)?);
        Ok(Self { client: Client::new(&url, &server.limits), server: server.clone(), renamed: AtomicBool::default() })
    }

    /// The server as messages name it, without passwords.
    pub fn name(&self) -> String {
        self.client.name()
    }

    /// The model's answer to one message, at temperature 0.
    pub fn ask(&self, message: &str) -> Result<String, String> {
        let renamed = self.renamed.load(Ordering::Relaxed);
        let asked = self.client.post(&self.body(message, renamed), |reply| self.read(reply));
        let answer = match asked {
            Err(failed) if !renamed && wants_other_name(&failed) => {
                self.renamed.store(true, Ordering::Relaxed);
                self.client.post(&self.body(message, true), |reply| self.read(reply))
            }
            other => other,
        };
        answer.map_err(|failed| format!("{}{}", failed.what, self.hint(&failed)))
    }

    fn body(&self, message: &str, renamed: bool) -> Value {
        let length = LENGTHS[usize::from(renamed)];
        let mut body = json!({
            "model": self.server.model,
            "messages": [{ "role": "user", "content": message }],
            "temperature": 0.0,
            length: self.server.max_tokens,
        });
        if let Some(fields) = body.as_object_mut() {
            if LENGTHS.iter().any(|name| self.server.request.contains_key(*name)) {
                fields.shift_remove(length);
            }
            fields.extend(self.server.request.clone());
            fields.retain(|name, _| !self.server.leave_out.contains(name));
        }
        body
    }

    /// How to send another request, if the server complains about a field of it.
    fn hint(&self, failed: &Failed) -> String {
        let Some(fault) = failed.fault.as_ref().filter(|_| failed.again == Again::Never) else { return String::new() };
        let body = self.body("", self.renamed.load(Ordering::Relaxed));
        let mut fields = body.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        match fields.find(|name| !OWN.contains(name) && (fault.field == *name || fault.message.contains(name))) {
            Some(name) => {
                format!("; leave_out: [\"{name}\"] sends the request without it, `request` with another value")
            }
            None => String::new(),
        }
    }

    fn read(&self, reply: &Value) -> Result<String, Failed> {
        let Some(choice) = reply["choices"].get(0).filter(|c| !c.is_null()) else {
            let what = format!("gave no \"choices\": {}", quoted(&reply.to_string()));
            let empty = reply.get("choices").is_some();
            return Err(if empty { Failed::later(what) } else { Failed::never(what) });
        };
        if let Some(fault) = Fault::declared(choice) {
            let (what, again) = (format!("answered with an error: {fault}"), fault.again());
            return Err(Failed { what, again, fault: Some(fault) });
        }
        let message = &choice["message"];
        let text = text_of(&message["content"]);
        self.finished(choice, &text)?;
        if let Some(refusal) = message["refusal"].as_str().filter(|r| !r.trim().is_empty()) {
            return Err(Failed::never(format!("gave a refusal instead of an answer: {}", quoted(refusal))));
        }
        let answer = reasoning::stripped(&text).map_err(|what| Failed::never(self.cut(what, &text)))?;
        if !answer.is_empty() {
            return Ok(answer);
        }
        let thought = ["reasoning_content", "reasoning", "thinking"]
            .iter()
            .any(|key| !message[*key].is_null() && message[*key] != "");
        if thought || !text.trim().is_empty() {
            return Err(Failed::never(self.cut("gave only reasoning and no answer", &text)));
        }
        Err(Failed::later(format!("gave an empty message: {}", quoted(&reply.to_string()))))
    }

    /// Refuses what the model did not say to its end.
    fn finished(&self, choice: &Value, text: &str) -> Result<(), Failed> {
        match choice["finish_reason"].as_str().unwrap_or("").to_lowercase().as_str() {
            "length" | "max_tokens" | "max_output_tokens" => {
                Err(Failed::never(self.cut("gave an answer that was cut (finish_reason \"length\")", text)))
            }
            "error" => Err(Failed::later(format!("broke off (finish_reason \"error\"): {}", quoted(text)))),
            reason @ ("content_filter" | "safety" | "recitation") => Err(Failed::never(format!(
                "gave no answer, its filter stepped in (finish_reason \"{reason}\"): {}",
                quoted(text)
            ))),
            reason @ ("tool_calls" | "function_call") => Err(Failed::never(format!(
                "called a tool instead of answering (finish_reason \"{reason}\"); turn its tools off"
            ))),
            _ => Ok(()),
        }
    }

    fn cut(&self, what: &str, text: &str) -> String {
        let said = if text.trim().is_empty() { String::new() } else { format!(": {}", quoted(text)) };
        format!("{what}{said}; raise max_tokens (now {})", self.server.max_tokens)
    }
}

/// The text of a message, which some servers give in parts.
fn text_of(content: &Value) -> String {
    let part = |part: &Value| match part["type"].as_str() {
        None | Some("text" | "output_text") => part["text"].as_str().or(part.as_str()).map(str::to_owned),
        Some(_) => None,
    };
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(part).collect(),
        _ => String::new(),
    }
}

/// Whether a server refuses `max_tokens` and names the field that it wants instead.
fn wants_other_name(failed: &Failed) -> bool {
    let said = failed.fault.as_ref().map_or(&failed.what, |fault| &fault.message).to_lowercase();
    said.contains(LENGTHS[1]) && ["support", "instead", "deprecated", "unknown"].iter().any(|word| said.contains(word))
}

/// The path of chat completions, behind an address that ends with the version or with the whole path.
fn completions(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with("/chat/completions") { path } else { format!("{path}/chat/completions") };
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(more: Value) -> ChatServer {
        let mut options = json!({"url": "http://h/v1", "model": "m", "max_tokens": 64});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn the_path_is_added_once_and_before_the_query() {
        for (given, asked) in [
            ("http://h/v1", "http://h/v1/chat/completions"),
            ("http://h/v1//", "http://h/v1/chat/completions"),
            ("http://h", "http://h/chat/completions"),
            ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
            ("https://h/d?api-version=1", "https://h/d/chat/completions?api-version=1"),
        ] {
            assert_eq!(completions(Url::parse(given).unwrap()).as_str(), asked);
        }
    }

    #[test]
    fn fields_are_added_renamed_and_left_out() {
        let chat = |more: Value| Chat::new(&server(more)).unwrap();
        assert_eq!(chat(json!({})).body("q", true)["max_completion_tokens"], 64);
        let own = chat(json!({"request": {"max_completion_tokens": 9, "seed": 1}, "leave_out": ["temperature"]}));
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "q"}], "max_completion_tokens": 9, "seed": 1});
        assert_eq!(own.body("q", false), expected);
        for (more, option) in [
            (json!({"request": {"stream": true}}), "request"),
            (json!({"request": {"api_key": "x"}}), "request"),
            (json!({"leave_out": ["messages"]}), "leave_out"),
        ] {
            assert_eq!(server(more).check().unwrap_err().0, option);
        }
    }

    #[test]
    fn only_a_finished_answer_is_read() {
        let chat = Chat::new(&server(json!({}))).unwrap();
        let said = |message: Value, finish: &str| json!({"choices": [{"finish_reason": finish, "message": message}]});
        let text = |content: &str| json!({"role": "assistant", "content": content});
        let rows = [
            said(text(" 8 "), "stop"),
            said(text("8"), "length"),
            said(text("<think>7 of 10"), "stop"),
            said(text("<think>7 of 10"), "length"),
            said(text("<think>7 of 10</think>"), "stop"),
            said(text("<think>7 of 10</think>8"), "stop"),
            said(json!({"content": null, "reasoning_content": "7 of 10"}), "stop"),
            said(json!({"content": "8", "reasoning_content": "7 of 10"}), "stop"),
            said(json!({"content": null, "refusal": "I cannot rate this."}), "stop"),
            said(json!({"content": [{"type": "thinking", "text": "7"}, {"type": "text", "text": "8"}]}), "stop"),
            said(json!({"content": null, "tool_calls": [{}]}), "tool_calls"),
            said(text("8"), "content_filter"),
            said(text(""), "stop"),
            said(text("8"), "error"),
            json!({"choices": []}),
            json!({"choices": null}),
            json!({"choices": [{"error": {"code": 502, "message": "upstream"}, "message": {"content": "8"}}]}),
            json!({"message": {"content": "8"}, "done": true}),
        ];
        let read = rows.map(|row| match chat.read(&row) {
            Ok(text) => format!("ok: {text}"),
            Err(failed) => format!("{:?}: {}", failed.again, failed.what),
        });
        insta::assert_snapshot!(read.join("\n"));
    }

    #[test]
    fn only_a_refused_name_is_changed() {
        let fails = |message: &str| {
            let fault = Fault { message: message.into(), ..Fault::default() };
            wants_other_name(&Failed { fault: Some(fault), ..Failed::never("") })
        };
        assert!(fails("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."));
        assert!(!fails("'max_tokens' or 'max_completion_tokens' is too large: 1024."));
    }
}
