//! From texts to token ids, as transformers' tokenizers do: each text by itself, cut to fit, then put together by the tokenizer's own
//! post-processor.

use crate::fields::{Fields, Said};
use crate::reading::{Cut, Reading};
use std::path::Path;
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection};

/// What a model takes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Tokens that it has an embedding for.
    pub vocab: usize,
    /// Tokens of a text.
    pub positions: usize,
    /// Token types that it tells apart; 0 where it knows none.
    pub types: usize,
}

pub struct Tokens {
    tokenizer: Tokenizer,
    room: Room,
    max: usize,
    typed: bool,
}

/// The tokens of a reading, and which of its texts each belongs to.
pub struct Ids {
    pub ids: Vec<u32>,
    pub types: Vec<u32>,
}

impl Tokens {
    pub fn load(folder: &Path, room: Room, wanted: Option<usize>) -> Said<Self> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(format!(
                "{} does not exist; make it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
                path.display()
            ));
        }
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| format!("{}: {e}", path.display()))?;
        let added = |pair| tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(pair));
        if added(false) == 0 || added(true) <= added(false) {
            return Err(format!(
                "{}: has no post_processor that marks the beginning and end of texts and pairs, so that the classifier would read \
                 something else than in its training; save the tokenizer again with transformers",
                path.display()
            ));
        }
        let (longest, typed) = settings(folder)?;
        let most = room.positions.min(longest);
        let max = match wanted {
            Some(max) if max > most => {
                return Err(format!(
                    "option \"max_tokens\" is {max}, but model and tokenizer are made for {most} tokens"
                ));
            }
            Some(max) => max,
            None => most.min(512),
        };
        if max < added(true) + 2 {
            return Err(format!("{}: {max} tokens have no room for a pair of texts", folder.display()));
        }
        Ok(Self { tokenizer, room, max, typed })
    }

    pub fn encode(&self, reading: &Reading) -> Said<Ids> {
        let tokens = |text: &str| self.tokenizer.encode(text, false).map_err(|e| format!("tokenizer.json: {e}"));
        let mut first = tokens(&reading.first)?;
        let mut second = reading.second.as_deref().map(tokens).transpose()?;
        let marks = self.tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        fit(&mut first, second.as_mut(), reading.cut, self.max - marks);
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]);
        }
        let whole = self.tokenizer.post_process(first, second, true).map_err(|e| format!("tokenizer.json: {e}"))?;
        if let Some(&id) = whole.get_ids().iter().find(|&&id| id as usize >= self.room.vocab) {
            let token = self.tokenizer.id_to_token(id).unwrap_or_default();
            return Err(format!("the token {token:?} ({id}) has no row in the model's {} embeddings", self.room.vocab));
        }
        let mut types = whole.get_type_ids().to_vec();
        if !self.typed || self.room.types == 0 {
            types.fill(0);
        }
        if let Some(kind) = types.iter().find(|&&t| t as usize >= self.room.types.max(1)) {
            return Err(format!("the tokenizer gives the token type {kind}, but the model has {}", self.room.types));
        }
        Ok(Ids { ids: whole.get_ids().to_vec(), types })
    }
}

/// Shortens what gives way first, then, if that was not enough, the other.
fn fit(first: &mut Encoding, second: Option<&mut Encoding>, cut: Cut, room: usize) {
    let Some(second) = second else {
        let side = if cut == Cut::Beginning { TruncationDirection::Left } else { TruncationDirection::Right };
        return keep(first, room, side);
    };
    let (yields, stays) = if cut == Cut::Second { (second, first) } else { (first, second) };
    keep(yields, room.saturating_sub(stays.len()), TruncationDirection::Right);
    keep(stays, room, TruncationDirection::Right);
}

/// What is cut off would be kept in pieces, and the post-processor would make a pair of each with each.
fn keep(text: &mut Encoding, room: usize, side: TruncationDirection) {
    text.truncate(room, 0, side);
    text.take_overflowing();
}

/// What tokenizer_config.json says of the tokens that a model is made for, and whether it is told of token types.
fn settings(folder: &Path) -> Said<(usize, bool)> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok((usize::MAX, true));
    }
    let read = || {
        let mut f = Fields::read(&path)?;
        let longest = f.take::<f64>("model_max_length")?.filter(|n| *n >= 1.0);
        let inputs = f.take::<Vec<String>>("model_input_names")?;
        // A float too large for a usize becomes the largest one: transformers writes 1e30 for no limit.
        Ok((longest.map_or(usize::MAX, |n| n as usize), inputs.is_none_or(|i| i.iter().any(|n| n == "token_type_ids"))))
    };
    read().map_err(|what: String| format!("{}: {what}", path.display()))
}
