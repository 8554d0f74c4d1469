//! tokenizer.json, read as it stands, and calls into the tokenizers crate that cannot panic.

use super::guard::guarded;
use crate::files::{read_text, warn};
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// How much longer a normalizer or decoder may make a text: chains of replacements grow it exponentially.
const LARGEST_GROWTH: f64 = 1e5;

/// A tokenizer whose tokens all have a row in the model.
#[derive(Clone)]
pub struct Codec {
    inner: Inner,
    /// Rows of the model's embedding.
    rows: u32,
    clean_up: bool,
}

/// What tokenizer.json says beside the tokenizer itself.
pub struct Read {
    pub tokenizer: Inner,
    pub added: Vec<(u32, AddedToken)>,
    pub byte_level: bool,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    /// The token that the file's padding names: transformers takes it where no other is named.
    pub padding_token: Option<String>,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    model: Model,
}

#[derive(Deserialize, Default)]
struct Model {
    #[serde(default)]
    dropout: Option<f64>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// Reads tokenizer.json. Truncation and padding are settings of a call, which transformers does not take from the file.
pub fn read(path: &Path) -> Result<Read> {
    let Some(text) = read_text(path)? else {
        return Err(Error::file(
            path,
            "is missing; write it with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        ));
    };
    let unreadable = |e: String| Error::file(path, format!("cannot be read as a tokenizer: {e}"));
    let parts: Parts = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    parts.check().map_err(|what| Error::file(path, what))?;
    let mut tokenizer =
        guarded(|| Inner::from_bytes(&text)).and_then(|r| r.map_err(|e| e.to_string())).map_err(unreadable)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| unreadable(e.to_string()))?;
    for Added { id, token } in &parts.added_tokens {
        let given = tokenizer.token_to_id(&token.content);
        if given != Some(*id) && !token.content.is_empty() {
            let given = given.map_or("none".into(), |id| id.to_string());
            warn(
                path,
                &format!(
                    "the added token {:?} has id {id} there, but here and in transformers token {given}",
                    token.content
                ),
            );
        }
    }
    Ok(Read {
        tokenizer,
        byte_level: text.contains("\"ByteLevel\""),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        padding_token: parts.padding.get("pad_token").and_then(Value::as_str).map(str::to_owned),
        added: parts.added_tokens.into_iter().map(|a| (a.id, a.token)).collect(),
    })
}

impl Read {
    /// A tokenizer that no file holds yet.
    pub fn of(tokenizer: Inner) -> Self {
        let added = tokenizer.get_added_tokens_decoder().into_iter().collect();
        let (normalizer, pre_tokenizer) = (Value::Null, Value::Null);
        Self { tokenizer, added, byte_level: true, normalizer, pre_tokenizer, padding_token: None }
    }
}

impl Parts {
    fn check(&self) -> std::result::Result<(), String> {
        if let Some(dropout) = self.model.dropout.filter(|d| *d > 0.0) {
            return Err(format!(
                "model.dropout = {dropout} makes the tokens of a text a matter of chance; set it to null"
            ));
        }
        for (name, part, inner) in
            [("normalizer", &self.normalizer, "normalizers"), ("decoder", &self.decoder, "decoders")]
        {
            if growth(part, inner) > LARGEST_GROWTH {
                return Err(format!(
                    "its {name} can make a text more than {LARGEST_GROWTH} times as long; shorten its replacements"
                ));
            }
        }
        Ok(())
    }
}

/// The factor by which a chain of replacements can lengthen a text, an upper bound.
fn growth(part: &Value, inner: &str) -> f64 {
    if let Some(list) = part.get(inner).and_then(Value::as_array) {
        return list.iter().map(|part| growth(part, inner)).product();
    }
    let Some(content) = part.get("content").and_then(Value::as_str) else { return 1.0 };
    let pattern = part.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str).unwrap_or("").len();
    (content.len() as f64 / pattern.max(1) as f64).max(1.0)
}

impl Codec {
    /// Checks that the vocabulary fits a model of `rows` rows. Tokens that were added behind it may lie beyond: they do no harm until a
    /// text holds them.
    pub fn new(inner: Inner, rows: i64, clean_up: bool) -> std::result::Result<Self, String> {
        let highest = inner.get_vocab(false).values().copied().max().unwrap_or(0);
        if i64::from(highest) >= rows {
            return Err(format!(
                "the tokenizer has token {highest}, but the model's vocabulary has only {rows} entries; \
                 tokenizer.json and model.safetensors are of different models"
            ));
        }
        // The clean-up was made for WordPiece; transformers leaves it out for BPE.
        let clean_up = clean_up && !matches!(inner.get_model(), tokenizers::ModelWrapper::BPE(_));
        Ok(Self { inner, rows: u32::try_from(rows).unwrap_or(u32::MAX), clean_up })
    }

    /// The id of a token that the model has a row for.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token).filter(|id| *id < self.rows)
    }

    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The number of tokens that it may name.
    pub fn size(&self) -> u32 {
        self.inner.get_vocab(true).values().copied().max().map_or(0, |highest| highest + 1)
    }

    /// Contents of the added tokens that are left out of decoded text.
    pub fn special(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_values().filter(|t| t.special).map(|t| t.content).collect()
    }

    /// Tokens of a text, with those that the file's post-processor adds if `special`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, special))
            .and_then(|r| r.map_err(|e| e.to_string()))
            .map_err(|e| Error::invalid(format!("tokenizer.json fails on a text of {} bytes: {e}", text.len())))?;
        let ids = encoding.get_ids();
        if let Some(&beyond) = ids.iter().find(|id| **id >= self.rows) {
            return Err(Error::invalid(format!(
                "a text holds the token {:?} (id {beyond}), for which the model has no row (vocab_size is {}); \
                 leave the token out of texts and chat template, or add a row to the model",
                self.token(beyond).unwrap_or_default(),
                self.rows
            )));
        }
        Ok(ids.to_vec())
    }

    /// Text of tokens, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = guarded(|| self.inner.decode(ids, true))
            .and_then(|r| r.map_err(|e| e.to_string()))
            .map_err(|e| Error::invalid(format!("tokenizer.json fails on {} tokens: {e}", ids.len())))?;
        Ok(if self.clean_up { clean_up(text) } else { text })
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        self.inner.save(path, false).map_err(|e| Error::file(path, e.to_string()))
    }
}

/// transformers' `clean_up_tokenization_spaces`.
fn clean_up(text: String) -> String {
    const SPACES: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    SPACES.iter().fold(text, |text, (from, to)| text.replace(from, to))
}
