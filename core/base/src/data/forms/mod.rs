//! The forms of a row: HH's dialogues, text columns, and conversations as TRL documents them. A form gives nothing where the row is left
//! out, and says so in the notes; a row that is wrong is an error.

mod demonstration;
mod pair;
mod rating;

pub use demonstration::demonstration;
pub use pair::{finished, margin, pair};
pub use rating::rating;

use super::columns::{column, found, is_empty, missing};
use super::messages::turns;
use super::notes::Notes;
use crate::prompt::{Mark, turn_marks};
use crate::{Message, Prompt};
use serde_json::Value;

/// What a row of some form gives; `None` where it has nothing of the kind, and an error where it has it wrong.
pub type Found<T> = Result<Option<T>, String>;

const PROMPTS: [&str; 4] = ["prompt", "messages", "conversations", "chosen"];
/// Columns of other trainers that chat templates get.
const UNSEEN: [&str; 7] = ["tools", "documents", "chat_template_kwargs", "images", "image", "videos", "audio"];

const EMPTY_PROMPT: &str = "the prompt is empty";
const NO_QUESTION: &str = "the end is neither a user turn nor one and its answer";
const NO_ANSWER: &str = "the end is no answer";
const SEVERAL_TURNS: &str = "the answers are more than one turn";

/// The prompt of a row: `prompt`, else a conversation or `chosen` without its last answer.
pub fn prompt(columns: &Value, notes: &mut Notes) -> Found<Prompt> {
    for name in UNSEEN.iter().filter(|name| columns.get(**name).is_some_and(|v| !is_empty(v))) {
        notes.remark(&format!("the model does not see the column \"{name}\""));
    }
    if let Some(value) = column(columns, "prompt") {
        return given(value, notes);
    }
    if let Some((name, value)) = chat(columns) {
        return Ok(without_answer(conversation(columns, name, value, notes)?, notes));
    }
    match (column(columns, "chosen"), column(columns, "rejected")) {
        (Some(Value::String(chosen)), Some(Value::String(rejected))) if turn_marks(chosen).is_empty() => {
            Ok(Some(Prompt::user(shared_text(chosen, rejected)?.trim())))
        }
        (Some(Value::String(chosen)), _) => {
            let asked = last_answer(chosen).map_or(chosen.as_str(), |(before, _)| before);
            Ok(ending_with_user(Prompt::from_dialogue(asked), notes))
        }
        (Some(chosen), _) => Ok(without_answer(turns("chosen", chosen, notes)?, notes)),
        (None, _) => Err(missing(columns, &PROMPTS)),
    }
}

/// The column `prompt`, which must end with a user turn.
fn given(value: &Value, notes: &mut Notes) -> Found<Prompt> {
    let prompt = match value {
        Value::String(text) => Prompt::from_dialogue(text),
        Value::Array(_) => Prompt { messages: turns("prompt", value, notes)? },
        other => return Err(format!("column \"prompt\" is {}; expected a text or a list of messages", found(other))),
    };
    match prompt.messages.last() {
        Some(last) if last.role != "user" => Err(format!(
            "column \"prompt\" ends with a turn of the role \"{}\"; a prompt ends with what the user says, and an answer to it \
             stands in \"completion\" or \"chosen\"",
            last.role
        )),
        Some(last) if !last.content.trim().is_empty() => Ok(Some(prompt)),
        _ => Ok(notes.leave_out(EMPTY_PROMPT)),
    }
}

/// A column that holds a whole conversation.
fn chat(columns: &Value) -> Option<(&'static str, &Value)> {
    ["messages", "conversations"].into_iter().find_map(|name| column(columns, name).map(|value| (name, value)))
}

/// The turns of a conversation; ShareGPT's system prompt stands in a column of its own.
fn conversation(columns: &Value, name: &str, value: &Value, notes: &mut Notes) -> Result<Vec<Message>, String> {
    let mut messages = turns(name, value, notes)?;
    let system = column(columns, "system").filter(|_| name == "conversations").and_then(Value::as_str);
    if let Some(system) = system.filter(|s| !s.is_empty() && messages.first().is_some_and(|m| m.role != "system")) {
        messages.insert(0, Message { role: "system".into(), content: system.into() });
    }
    Ok(messages)
}

fn without_answer(mut messages: Vec<Message>, notes: &mut Notes) -> Option<Prompt> {
    messages.pop_if(|last| last.role == "assistant");
    ending_with_user(Prompt { messages }, notes)
}

fn ending_with_user(prompt: Prompt, notes: &mut Notes) -> Option<Prompt> {
    let asks = prompt.messages.last().is_some_and(|m| m.role == "user" && !m.content.trim().is_empty());
    if asks { Some(prompt) } else { notes.leave_out(NO_QUESTION) }
}

fn has_prompt(columns: &Value) -> bool {
    PROMPTS[..3].iter().any(|name| column(columns, name).is_some())
}

/// What precedes the last answer of a dialogue, with its mark, and that answer.
fn last_answer(dialogue: &str) -> Option<(&str, &str)> {
    let Mark { end, role, .. } = turn_marks(dialogue).pop()?;
    (role == "assistant").then(|| (&dialogue[..end], dialogue[end..].trim()))
}

/// Bytes that two texts share at their beginning.
fn shared(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}

/// The prompt that two texts begin with; the space behind it belongs to the answers, as in TRL.
fn shared_text<'a>(chosen: &'a str, rejected: &str) -> Result<&'a str, String> {
    let common = &chosen[..shared(chosen, rejected)];
    let prompt = common.strip_suffix(' ').unwrap_or(common);
    if prompt.trim().is_empty() {
        return Err("has no column \"prompt\", and chosen and rejected do not begin alike; add the prompt".into());
    }
    Ok(prompt)
}
