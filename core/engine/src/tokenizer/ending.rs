//! The end of an answer: what the chat template writes behind it, and which token stops generation.

use super::codec::Codec;
use super::special::Special;
use super::template::Template;
use motrain_core::prompt::Message;

/// What stands behind an assistant's words in a rendered conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The token that ends an answer in training; generation stops at it.
    pub id: u32,
    /// All that the template writes behind the words.
    pub text: String,
    /// The length of that part of `text` which ends with the token; nothing where the template does not write it.
    through: usize,
}

impl Ending {
    /// The first special token that the template writes behind an answer, else the tokenizer's eos_token, else the first of `stops`,
    /// else `last`.
    pub fn find(
        template: Option<&Template>,
        special: &Special,
        tokenizer: &Codec,
        stops: &[u32],
        last: Option<u32>,
    ) -> Option<Self> {
        let text = template.and_then(|t| behind_an_answer(t, special)).unwrap_or_default();
        let contents = tokenizer.special().into_iter().chain(stops.iter().filter_map(|id| tokenizer.token(*id)));
        let ends = contents.filter_map(|token| {
            let at = text.find(&token).filter(|_| !token.is_empty())?;
            Some((at, std::cmp::Reverse(token.len()), tokenizer.id(&token)?))
        });
        if let Some((at, length, id)) = ends.min() {
            return Some(Self { id, through: at + length.0, text });
        }
        let eos = special.get("eos_token").and_then(|t| tokenizer.id(t));
        let id = eos.or(stops.first().copied()).or(last)?;
        Some(Self { id, text, through: 0 })
    }

    /// What follows the words up to the token that ends the answer.
    pub fn through_token(&self) -> &str {
        &self.text[..self.through]
    }
}

/// What a template writes behind an assistant's words; nothing where it does not take a plain exchange.
fn behind_an_answer(template: &Template, special: &Special) -> Option<String> {
    const WORDS: &str = "words-of-the-assistant";
    let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let turns = [turn("user", "words-of-the-user"), turn("assistant", WORDS)];
    let whole = template.render(&turns, false, special).ok()?;
    whole.rfind(WORDS).map(|at| whole[at + WORDS.len()..].to_owned())
}
