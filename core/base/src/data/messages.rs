//! Conversations as lists of messages: `{"role", "content"}`, ShareGPT's `{"from", "value"}`, content as text or as parts.

use super::columns::{found, is_empty, quoted};
use super::notes::Notes;
use crate::Message;
use crate::error::did_you_mean;
use serde_json::{Map, Value};

const MESSAGE: &str = "{\"role\", \"content\"}";
/// Names of the roles that are read, and what they are.
const ROLES: [(&str, &str); 6] = [
    ("user", "user"),
    ("assistant", "assistant"),
    ("system", "system"),
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
];
const TOOL_ROLES: [&str; 7] =
    ["tool", "function", "ipython", "observation", "function_call", "tool_call", "tool_response"];
/// Fields that change what a turn says: a row that has them is refused, since without them it would say something else.
const REFUSED: [&str; 11] = [
    "tool_calls",
    "function_call",
    "tool_call_id",
    "tool_responses",
    "reasoning_content",
    "reasoning",
    "thinking",
    "refusal",
    "images",
    "audio",
    "videos",
];
const READ: [&str; 6] = ["role", "from", "content", "value", "weight", "train"];

/// Whether a column holds a conversation rather than text.
pub fn is_conversation(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// The turns of a column: a list of messages, or one message.
pub fn turns(column: &str, value: &Value, notes: &mut Notes) -> Result<Vec<Message>, String> {
    match value {
        Value::Array(list) => {
            let turn = |(i, v)| message(&format!("column \"{column}\", message {}", i + 1), v, notes);
            list.iter().enumerate().map(turn).collect()
        }
        Value::Object(_) => Ok(vec![message(&format!("column \"{column}\""), value, notes)?]),
        other => Err(format!("column \"{column}\" is {}; expected a list of messages {MESSAGE}", found(other))),
    }
}

fn message(at: &str, value: &Value, notes: &mut Notes) -> Result<Message, String> {
    let Value::Object(fields) = value else {
        return Err(format!("{at} is {}; expected {MESSAGE}", found(value)));
    };
    if let Some(name) = REFUSED.into_iter().find(|name| fields.get(*name).is_some_and(|v| !is_empty(v))) {
        return Err(format!(
            "{at} has \"{name}\", which motrain does not read; write what the model is to see of it into the content, \
             as its chat template would, or leave such rows out"
        ));
    }
    for name in fields.iter().filter(|(name, v)| !READ.contains(&name.as_str()) && !is_empty(v)).map(|(name, _)| name) {
        notes.remark(&format!("the model does not see the message field {name:?}"));
    }
    let role = role(at, field(fields, "role", "from"))?;
    let content = content(at, field(fields, "content", "value"))?;
    Ok(Message { role: role.into(), content })
}

/// A field under either of its names.
fn field<'a>(fields: &'a Map<String, Value>, name: &str, sharegpt: &str) -> Option<&'a Value> {
    [name, sharegpt].into_iter().find_map(|n| fields.get(n).filter(|v| !v.is_null()))
}

fn role(at: &str, value: Option<&Value>) -> Result<&'static str, String> {
    let name = match value {
        Some(Value::String(name)) => name.as_str(),
        Some(other) => {
            return Err(format!("{at}: the role is {}; expected \"user\", \"assistant\" or \"system\"", found(other)));
        }
        None => return Err(format!("{at} has no role; expected {MESSAGE}")),
    };
    if let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == name) {
        return Ok(role);
    }
    if TOOL_ROLES.contains(&name) {
        return Err(format!(
            "{at} is a turn of the role \"{name}\", and motrain does not read tool calls; write what the model is to see \
             of them as user and assistant turns, or leave such rows out"
        ));
    }
    let near = did_you_mean(name, ["user", "assistant", "system"]);
    let near = if near.is_empty() { "; roles are \"user\", \"assistant\" and \"system\"".into() } else { near };
    Err(format!("{at}: the role is {}, which is none{near}", quoted(name)))
}

fn content(at: &str, value: Option<&Value>) -> Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let part = |(i, p)| part(&format!("{at}, part {}", i + 1), p);
            parts.iter().enumerate().map(part).collect()
        }
        Some(other) => Err(format!("{at}: the content is {}; expected a text or a list of text parts", found(other))),
        None => Err(format!("{at} has no content (null or missing); write a text, \"\" for an empty turn")),
    }
}

/// The text of a part. Templates write the parts one behind the other, with nothing between.
fn part<'a>(at: &str, value: &'a Value) -> Result<&'a str, String> {
    const TEXT: &str = "{\"type\": \"text\", \"text\": \"…\"}";
    if let Value::String(text) = value {
        return Ok(text);
    }
    let kind = value.get("type");
    match (kind, value.get("text")) {
        (Some(Value::String(kind)), Some(Value::String(text))) if kind == "text" => Ok(text),
        (Some(Value::String(kind)), _) if kind != "text" => {
            Err(format!("{at} is of the type {}; only text is read, as {TEXT}", quoted(kind)))
        }
        _ => Err(format!("{at} is {}; expected {TEXT}", found(value))),
    }
}

/// Whether a row asks not to train on its last message: `"weight": 0` or `"train": false`.
pub fn untrained(column: &str, value: &Value) -> Result<bool, String> {
    let last = match value {
        Value::Array(list) => list.last(),
        other => Some(other),
    };
    let field = |name: &str| last.and_then(|m| m.get(name)).filter(|v| !v.is_null());
    for (name, value) in ["weight", "train"].into_iter().filter_map(|n| field(n).map(|v| (n, v))) {
        match value.as_f64().or(value.as_bool().map(|b| f64::from(u8::from(b)))) {
            Some(0.0) => return Ok(true),
            Some(1.0) => (),
            _ => {
                return Err(format!(
                    "column \"{column}\": \"{name}\" of the last message is {}; it must be 0 or 1, false or true",
                    found(value)
                ));
            }
        }
    }
    Ok(false)
}
