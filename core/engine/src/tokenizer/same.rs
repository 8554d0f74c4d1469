//! Whether tokenizers of several folders mean the same by a token, and write prompts alike.

use super::Tokenizer;
use crate::{Error, Result};

impl Tokenizer {
    /// The first of the tokenizers, which ends an answer where any of them does. Others that have other tokens or write prompts in another way
    /// are refused: policies whose distributions are mixed read the same tokens.
    pub fn common(all: Vec<(String, Self)>) -> Result<Self> {
        let mut all = all.into_iter();
        let Some((first, mut common)) = all.next() else { return Err(Error::invalid("there is no tokenizer")) };
        for (name, other) in all {
            if let Some(what) = common.mismatch(&other) {
                return Err(Error::invalid(format!("{first} and {name} cannot be mixed: {what}")));
            }
            common.eos.extend(other.eos.iter().filter(|id| !common.eos.contains(id)).copied().collect::<Vec<_>>());
        }
        Ok(common)
    }

    /// What another tokenizer says otherwise.
    pub fn mismatch(&self, other: &Self) -> Option<String> {
        let size = self.codec.size().max(other.codec.size());
        let said = |own: &Self, id: u32| own.codec.token(id).map_or("nothing".into(), |token| format!("{token:?}"));
        if let Some(id) = (0..size).find(|&id| self.codec.token(id) != other.codec.token(id)) {
            let (one, two) = (said(self, id), said(other, id));
            return Some(format!(
                "token {id} is {one} in the one and {two} in the other; take policies of one tokenizer, or mix them into one policy's answers by \
                 training (online_preference with both rewards)"
            ));
        }
        let source = |own: &Self| own.templates.default.as_ref().map(|template| template.source.clone());
        (source(self) != source(other)).then(|| {
            "their chat templates differ, and both read the same prompt; put one's chat_template.jinja into the other's folder".into()
        })
    }
}
