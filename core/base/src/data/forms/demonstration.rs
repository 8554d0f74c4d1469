//! Demonstrations for supervised fine-tuning.

use super::{Found, NO_ANSWER, SEVERAL_TURNS, chat, conversation, ending_with_user, prompt};
use crate::Prompt;
use crate::data::columns::{column, flag, found, missing};
use crate::data::messages::{is_conversation, turns, untrained};
use crate::data::notes::Notes;
use serde_json::Value;

/// A prompt, how to answer it, and whether the answer ends there.
pub fn demonstration(columns: &Value, notes: &mut Notes) -> Found<(Prompt, String, bool)> {
    let finished = flag(columns, "finished", true)?;
    let found = match column(columns, "completion") {
        Some(completion) => with_completion(columns, completion, notes)?,
        None => last_turn(columns, notes)?,
    };
    let Some((prompt, completion)) = found else { return Ok(None) };
    let ends_at_once = finished && column(columns, "finished").is_some();
    if completion.is_empty() && !ends_at_once {
        return Ok(notes.leave_out("the completion is empty"));
    }
    Ok(Some((prompt, completion, finished)))
}

fn with_completion(columns: &Value, completion: &Value, notes: &mut Notes) -> Found<(Prompt, String)> {
    let answer = match completion {
        Value::String(text) => text.clone(),
        value if is_conversation(value) => match turns("completion", value, notes)?.as_slice() {
            [one] if one.role == "assistant" => one.content.clone(),
            [.., last] if last.role == "assistant" => return Ok(notes.leave_out(SEVERAL_TURNS)),
            _ => return Ok(notes.leave_out(NO_ANSWER)),
        },
        other => {
            return Err(format!("column \"completion\" is {}; expected a text or a list of one message", found(other)));
        }
    };
    Ok(prompt(columns, notes)?.map(|prompt| (prompt, answer)))
}

/// A conversation whose last turn is the completion.
fn last_turn(columns: &Value, notes: &mut Notes) -> Found<(Prompt, String)> {
    let Some((name, value)) = chat(columns) else {
        return Err(missing(columns, &["completion", "messages", "conversations"]));
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
