//! Demonstrations for supervised fine-tuning.

use super::{Found, NO_ANSWER, SEVERAL_TURNS, chat, conversation, ending_with_user, prompt};
use crate::Prompt;
use crate::data::columns::{column, flag, found, missing};
use crate::data::messages::{is_conversation, turns, untrained};
use crate::data::notes::Notes;
use serde_json::Value;

/// A prompt, how to answer it, and whether the answer ends there.
pub type Answered = (Prompt, String, bool);

/// A demonstration, whose answer stands in `completion`, or ends a conversation.
pub fn demonstration(columns: &Value, notes: &mut Notes) -> Found<Answered> {
    answered(columns, &["completion"], notes)
}

/// The same where the answer stands in one of these columns.
pub(super) fn answered(columns: &Value, names: &[&str], notes: &mut Notes) -> Found<Answered> {
    let finished = flag(columns, "finished", true)?;
    let found = match names.iter().find_map(|name| column(columns, name).map(|value| (name, value))) {
        Some((name, answer)) => with_answer(columns, name, answer, notes)?,
        None => last_turn(columns, names, notes)?,
    };
    let Some((prompt, completion)) = found else { return Ok(None) };
    let ends_at_once = finished && column(columns, "finished").is_some();
    if completion.is_empty() && !ends_at_once {
        return Ok(notes.leave_out("the completion is empty"));
    }
    Ok(Some((prompt, completion, finished)))
}

fn with_answer(columns: &Value, name: &str, answer: &Value, notes: &mut Notes) -> Found<(Prompt, String)> {
    let answer = match answer {
        Value::String(text) => text.clone(),
        value if is_conversation(value) => match turns(name, value, notes)?.as_slice() {
            [one] if one.role == "assistant" => one.content.clone(),
            [.., last] if last.role == "assistant" => return Ok(notes.leave_out(SEVERAL_TURNS)),
            _ => return Ok(notes.leave_out(NO_ANSWER)),
        },
        other => {
            return Err(format!("column \"{name}\" is {}; expected a text or a list of one message", found(other)));
        }
    };
    Ok(prompt(columns, notes)?.map(|prompt| (prompt, answer)))
}

/// A conversation whose last turn is the completion.
fn last_turn(columns: &Value, names: &[&str], notes: &mut Notes) -> Found<(Prompt, String)> {
    let Some((name, value)) = chat(columns) else {
        return Err(missing(columns, &[names, &["messages", "conversations"]].concat()));
    };
    let mut messages = conversation(columns, name, value, notes)?;
    let Some(answer) = messages.pop_if(|last| last.role == "assistant") else {
        return Ok(notes.leave_out(NO_ANSWER));
    };
    if untrained(name, value)? {
        return Ok(notes.leave_out("the weight of the last message is 0"));
    }
    Ok(ending_with_user(Prompt { messages }, notes).map(|prompt| (prompt, answer.content)))
}
