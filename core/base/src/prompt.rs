//! A prompt: the turns of a conversation, ending with the user's.

use crate::shown::quoted;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prompt {
    pub messages: Vec<Message>,
}

impl Prompt {
    /// A conversation of one user turn.
    pub fn user(text: impl Into<String>) -> Self {
        Self { messages: vec![Message { role: "user".into(), content: text.into() }] }
    }

    /// Reads Anthropic's `\n\nHuman: … \n\nAssistant: …` text; text without such turns is one user turn.
    pub fn from_dialogue(text: &str) -> Self {
        const TURNS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
        let mut starts: Vec<(usize, usize, &str)> = TURNS
            .iter()
            .flat_map(|(mark, role)| text.match_indices(mark).map(|(i, m)| (i, i + m.len(), *role)))
            .collect();
        starts.sort_unstable();
        if starts.is_empty() {
            return Self::user(text.trim());
        }
        let mut messages = Vec::new();
        for (i, &(_, from, role)) in starts.iter().enumerate() {
            let to = starts.get(i + 1).map_or(text.len(), |next| next.0);
            messages.push(Message { role: role.into(), content: text[from..to].trim().into() });
        }
        if messages.last().is_some_and(|m| m.role == "assistant" && m.content.is_empty()) {
            messages.pop();
        }
        Self { messages }
    }

    /// One turn as it is, several as an HH dialogue.
    pub fn to_dialogue(&self) -> String {
        match self.messages.as_slice() {
            [one] => one.content.clone(),
            several => {
                let turn = |m: &Message| {
                    let speaker = if m.role == "assistant" { "Assistant" } else { "Human" };
                    format!("\n\n{speaker}: {}", m.content)
                };
                several.iter().map(turn).chain(["\n\nAssistant:".into()]).collect()
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_dialogue() {
        let prompt = Prompt::from_dialogue("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:");
        let turns: Vec<(&str, &str)> = prompt.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(turns, [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]);
        assert_eq!(Prompt::from_dialogue("plain").last_user(), "plain");
    }
}
