//! Preference pairs: texts or conversations, with the prompt in a column or in both answers.

use super::{
    EMPTY_PROMPT, Found, NO_ANSWER, PROMPTS, SEVERAL_TURNS, has_prompt, last_answer, prompt, shared, shared_text,
};
use crate::data::columns::{column, flag, found, missing, needed, number};
use crate::data::messages::{is_conversation, turns};
use crate::data::notes::Notes;
use crate::prompt::turn_marks;
use crate::{Message, Prompt};
use serde_json::Value;

const EQUAL: &str = "chosen and rejected are equal";

/// A prompt, the better answer and the worse one.
pub fn pair(columns: &Value, notes: &mut Notes) -> Found<(Prompt, String, String)> {
    let (chosen, rejected) = (needed(columns, "chosen")?, needed(columns, "rejected")?);
    if chosen == rejected {
        return Ok(notes.leave_out(EQUAL));
    }
    let found = match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) => text_pair(columns, chosen, rejected, notes),
        (chosen, rejected) if is_conversation(chosen) && is_conversation(rejected) => {
            let (chosen, rejected) = (turns("chosen", chosen, notes)?, turns("rejected", rejected, notes)?);
            message_pair(columns, &chosen, &rejected, notes)
        }
        (chosen, rejected) => Err(format!(
            "column \"chosen\" is {} and column \"rejected\" {}; expected two texts or two lists of messages",
            found(chosen),
            found(rejected)
        )),
    }?;
    let Some((prompt, chosen, rejected)) = found else { return Ok(None) };
    if chosen == rejected {
        return Ok(notes.leave_out(EQUAL));
    }
    let asked = prompt.messages.iter().any(|m| m.role == "user");
    Ok(if asked { Some((prompt, chosen, rejected)) } else { notes.leave_out(EMPTY_PROMPT) })
}

/// By how much more the better answer is to score: nothing, if the row does not say.
pub fn margin(columns: &Value) -> Result<f64, String> {
    Ok(number(columns, "margin")?.unwrap_or(0.0))
}

/// Whether the better and the worse answer end there: they do, if the row does not say.
pub fn finished(columns: &Value) -> Result<[bool; 2], String> {
    Ok([flag(columns, "chosen_finished", true)?, flag(columns, "rejected_finished", true)?])
}

fn text_pair(columns: &Value, chosen: &str, rejected: &str, notes: &mut Notes) -> Found<(Prompt, String, String)> {
    if has_prompt(columns) {
        let Some(prompt) = prompt(columns, notes)? else { return Ok(None) };
        // Some files repeat the prompt's dialogue in both answers.
        let dialogue = column(columns, "prompt").and_then(Value::as_str).filter(|p| !turn_marks(p).is_empty());
        let behind = |text: &str| dialogue.and_then(|d| text.strip_prefix(d)).map(|rest| rest.trim().to_owned());
        let answers = behind(chosen).zip(behind(rejected));
        let (chosen, rejected) = answers.unwrap_or_else(|| (chosen.into(), rejected.into()));
        return Ok(Some((prompt, chosen, rejected)));
    }
    match (turn_marks(chosen).is_empty(), turn_marks(rejected).is_empty()) {
        (false, false) => dialogue_pair(chosen, rejected, notes),
        (true, true) => {
            let prompt = shared_text(chosen, rejected)?;
            notes.remark("the prompt is what chosen and rejected begin with, since there is no column \"prompt\"");
            let rest = |text: &str| text[prompt.len()..].to_owned();
            Ok(Some((Prompt::user(prompt.trim()), rest(chosen), rest(rejected))))
        }
        _ => {
            Err("only one of chosen and rejected is a dialogue with \"\\n\\nAssistant:\" turns; write both alike"
                .into())
        }
    }
}

/// HH's own form. Some of its rows diverge before the last turn: what both share is the prompt, the rest is the answer.
fn dialogue_pair(chosen: &str, rejected: &str, notes: &mut Notes) -> Found<(Prompt, String, String)> {
    let (Some((before, answer)), Some((other_before, other_answer))) = (last_answer(chosen), last_answer(rejected))
    else {
        return Ok(notes.leave_out(NO_ANSWER));
    };
    if before == other_before {
        return Ok(Some((Prompt::from_dialogue(before), answer.into(), other_answer.into())));
    }
    let common = &chosen[..shared(chosen, rejected)];
    let last = turn_marks(common).into_iter().rfind(|m| m.role == "assistant").ok_or(
        "chosen and rejected share no turn of the user, so they answer different prompts; add a column \"prompt\"",
    )?;
    let rest = |dialogue: &str| dialogue[last.end..].trim().to_owned();
    Ok(Some((Prompt::from_dialogue(&common[..last.end]), rest(chosen), rest(rejected))))
}

fn message_pair(
    columns: &Value,
    chosen: &[Message],
    rejected: &[Message],
    notes: &mut Notes,
) -> Found<(Prompt, String, String)> {
    let only_answers = |turns: &[Message]| turns.first().is_none_or(|m| m.role == "assistant");
    let (prompt, skip) = if only_answers(chosen) && only_answers(rejected) {
        if !has_prompt(columns) {
            return Err(missing(columns, &PROMPTS[..3]));
        }
        let Some(prompt) = prompt(columns, notes)? else { return Ok(None) };
        (prompt, 0)
    } else {
        let alike = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
        let asked = chosen[..alike].iter().rposition(|m| m.role == "user").map(|last| &chosen[..=last]);
        let asked =
            asked.ok_or("chosen and rejected share no user turn at their beginning; add a column \"prompt\"")?;
        (Prompt { messages: fuller(columns, asked, notes)? }, asked.len())
    };
    let one = |turns: &[Message]| match turns.get(skip..) {
        Some([answer]) if answer.role == "assistant" => Some(answer.content.clone()),
        _ => None,
    };
    if let (Some(chosen), Some(rejected)) = (one(chosen), one(rejected)) {
        return Ok(Some((prompt, chosen, rejected)));
    }
    let ends = [chosen, rejected].iter().all(|t| t.len() > skip && t.last().is_some_and(|m| m.role == "assistant"));
    Ok(notes.leave_out(if ends { SEVERAL_TURNS } else { NO_ANSWER }))
}

/// The prompt that both answers repeat, or the column `prompt` where that has turns before it.
fn fuller(columns: &Value, asked: &[Message], notes: &mut Notes) -> Result<Vec<Message>, String> {
    let given = match column(columns, "prompt") {
        Some(Value::String(text)) => Prompt::from_dialogue(text).messages,
        Some(value) => turns("prompt", value, notes)?,
        None => return Ok(asked.to_vec()),
    };
    let same = |a: &Message, b: &Message| a.role == b.role && a.content.trim() == b.content.trim();
    if !given.iter().rev().zip(asked.iter().rev()).all(|(a, b)| same(a, b)) {
        notes.remark("column \"prompt\" is not used, since chosen and rejected begin with another prompt");
    } else if given.len() > asked.len() {
        return Ok(given);
    }
    Ok(asked.to_vec())
}
