//! A prompt: the turns of a conversation, ending with the user's.

use crate::shown::quoted;
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A conversation whose last turn is the user's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prompt {
    /// In the order in which they were said.
    pub messages: Vec<Message>,
}

impl Prompt {
    /// A conversation of one user turn.
    pub fn user(text: impl Into<String>) -> Self {
        Self { messages: vec![Message { role: "user".into(), content: text.into() }] }
    }

    /// Reads Anthropic's `\n\nHuman: … \n\nAssistant: …` text: what stands before the first turn is the system's. Text without such turns is
    /// one user turn.
    pub fn from_dialogue(text: &str) -> Self {
        let marks = turn_marks(text);
        let Some(first) = marks.first() else { return Self::user(text.trim()) };
        let mut messages = Vec::new();
        let mut turn =
            |role: &str, text: &str| messages.push(Message { role: role.into(), content: text.trim().into() });
        let before = text[..first.start].trim();
        if !before.is_empty() {
            turn("system", before.strip_prefix("System:").unwrap_or(before));
        }
        for (i, mark) in marks.iter().enumerate() {
            turn(mark.role, &text[mark.end..marks.get(i + 1).map_or(text.len(), |next| next.start)]);
        }
        messages.pop_if(|last| last.role == "assistant" && last.content.is_empty());
        Self { messages }
    }

    /// One turn as it is, several as an HH dialogue; a system turn at the beginning stands before it as it is.
    pub fn to_dialogue(&self) -> String {
        if let [one] = self.messages.as_slice() {
            return one.content.clone();
        }
        let turn = |(i, m): (usize, &Message)| match (m.role.as_str(), i) {
            ("system", 0) => m.content.clone(),
            ("system", _) => format!("\n\nSystem: {}", m.content),
            ("assistant", _) => format!("\n\nAssistant: {}", m.content),
            _ => format!("\n\nHuman: {}", m.content),
        };
        self.messages.iter().enumerate().map(turn).chain(["\n\nAssistant:".into()]).collect()
    }

    /// What the user said last.
    pub fn last_user(&self) -> &str {
        self.messages.iter().rev().find(|m| m.role == "user").map_or("", |m| &m.content)
    }

    /// What the user said first: prompts that share it are one conversation.
    pub fn first_user(&self) -> &str {
        self.messages.iter().find(|m| m.role == "user").map_or("", |m| &m.content)
    }

    /// The conversation on one line, for logs and error messages.
    pub fn one_line(&self) -> String {
        let turns: Vec<String> = self.messages.iter().map(|m| format!("[{}] {}", m.role, m.content)).collect();
        quoted(&turns.join(" "))
    }
}

/// Where a turn of a dialogue begins, and where its text does.
pub(crate) struct Mark {
    pub start: usize,
    pub end: usize,
    pub role: &'static str,
}

/// The turns of a dialogue. A text that begins with a speaker may have its other turns behind single line ends.
pub(crate) fn turn_marks(text: &str) -> Vec<Mark> {
    let marks = marks_behind(text, 2);
    match marks.as_slice() {
        [only] if only.start == 0 => marks_behind(text, 1),
        _ => marks,
    }
}

/// Speakers at the beginning or behind this many line ends.
fn marks_behind(text: &str, line_ends: usize) -> Vec<Mark> {
    let beginning = text.len() - text.trim_start().len();
    let line_end = |text: &'_ str| text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t).len());
    let start = |at: usize| match at == beginning {
        true => Some(0),
        false => (0..line_ends).try_fold(at, |end, _| line_end(&text[..end])),
    };
    let of = |(speaker, role): (&'static str, &'static str)| {
        text.match_indices(speaker).filter_map(move |(at, _)| Some((start(at)?, at + speaker.len(), role)))
    };
    let mut marks: Vec<_> = [("Human:", "user"), ("Assistant:", "assistant")].into_iter().flat_map(of).collect();
    marks.sort_unstable();
    marks.into_iter().map(|(start, end, role)| Mark { start, end, role }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(text: &str) -> Vec<(String, String)> {
        Prompt::from_dialogue(text).messages.into_iter().map(|m| (m.role, m.content)).collect()
    }

    #[test]
    fn reads_a_dialogue_in_every_shape() {
        let whole = turns("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:");
        let expected = [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")].map(|(r, c)| (r.into(), c.into()));
        assert_eq!(whole, expected);
        for same in [
            "Human: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:",
            "  \nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye",
            "\r\n\r\nHuman: Hi\r\n\r\nAssistant: Hello!\r\n\r\nHuman: Bye\r\n\r\nAssistant:",
            "Human: Hi\nAssistant: Hello!\nHuman: Bye\nAssistant:",
        ] {
            assert_eq!(turns(same), expected, "{same:?}");
        }
        assert_eq!(turns(" plain "), [("user".into(), "plain".into())]);
        assert_eq!(turns("What does \"Human: x\" mean?"), [("user".into(), "What does \"Human: x\" mean?".into())]);
    }

    #[test]
    fn text_before_the_first_turn_is_the_systems() {
        for text in ["You are a pirate.\n\nHuman: Hi\n\nAssistant:", "System: You are a pirate.\n\nHuman: Hi"] {
            assert_eq!(turns(text), [("system".into(), "You are a pirate.".into()), ("user".into(), "Hi".into())]);
        }
        let prompt = Prompt::from_dialogue("Be brief.\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
        assert_eq!(prompt.to_dialogue(), "Be brief.\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
        assert_eq!(Prompt::from_dialogue(&prompt.to_dialogue()), prompt);
    }

    #[test]
    fn empty_turns_are_kept_where_they_mean_something() {
        assert_eq!(
            turns("\n\nHuman: \n\nAssistant: x"),
            [("user".into(), "".into()), ("assistant".into(), "x".into())]
        );
        assert_eq!(turns("\n\nHuman: x\n\nHuman:").len(), 2);
    }
}
