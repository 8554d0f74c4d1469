//! Special and added tokens: tokenizer_config.json, special_tokens_map.json and added_tokens.json as transformers merges them.

use super::codec::Read;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tokenizers::{AddedToken, Tokenizer};

type Fields = Map<String, Value>;
type Result<T> = std::result::Result<T, String>;

const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokens by name, as the chat template sees them.
#[derive(Clone, Debug, Default)]
pub struct Special {
    named: Vec<(String, AddedToken)>,
}

/// The files' settings once they are merged, before the tokenizer has the tokens.
struct Merged {
    /// tokenizer_config.json under special_tokens_map.json.
    fields: Fields,
    /// Added tokens by id, with their flags.
    added: BTreeMap<u32, AddedToken>,
}

impl Special {
    /// Merges what the folder's files say, and adds to the tokenizer what tokenizer.json does not have.
    pub fn read(config: &Fields, map: &Fields, added: &Fields, file: &mut Read) -> Result<Self> {
        let merged = merge(config, map, added, file)?;
        let find = |token: AddedToken| {
            merged.added.values().rev().find(|t| t.content == token.content).cloned().unwrap_or(token)
        };
        let mut named = Vec::new();
        for key in NAMED {
            let usual = default_token(key, config, file);
            if let Some(said) = merged.fields.get(key).cloned().or(usual.map(Value::from))
                && let Some(token) = token(key, &said)?
            {
                named.push((key.to_owned(), find(token)));
            }
        }
        let mut extra = Vec::new();
        for (key, value) in &merged.fields {
            match (key.as_str(), value) {
                ("extra_special_tokens", Value::Array(list)) => {
                    for value in list {
                        extra.extend(token(key, value)?);
                    }
                }
                ("extra_special_tokens", Value::Object(tokens)) => {
                    for (name, value) in tokens {
                        named.extend(token(name, value)?.map(|t| (name.clone(), t)));
                    }
                }
                ("extra_special_tokens", Value::Null) => {}
                ("extra_special_tokens", other) => {
                    return Err(format!("{key} is {other}; a list of tokens is expected"));
                }
                (name, Value::String(_) | Value::Object(_)) if name.ends_with("_token") && !NAMED.contains(&name) => {
                    named.extend(token(name, value)?.map(|t| (name.to_owned(), t)));
                }
                _ => {}
            }
        }
        let special = Self { named };
        special.add(merged.added, extra, file)?;
        Ok(special)
    }

    fn add(&self, listed: BTreeMap<u32, AddedToken>, extra: Vec<AddedToken>, file: &mut Read) -> Result<()> {
        let mut known: Vec<String> = file.added.iter().map(|(_, t)| t.content.clone()).collect();
        let mut adding: Vec<AddedToken> = listed.into_values().collect();
        known.extend(adding.iter().map(|t| t.content.clone()));
        for token in self.named.iter().map(|(_, t)| t).chain(&extra) {
            if !known.contains(&token.content) && !adding.contains(token) {
                adding.push(token.clone());
            }
        }
        for token in &mut adding {
            token.special |= self.named.iter().any(|(_, t)| t.content == token.content);
        }
        add_tokens(&mut file.tokenizer, adding)
    }

    /// The content of a named token.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(key, _)| key == name).map(|(_, token)| token.content.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(name, token)| (name.as_str(), token.content.as_str()))
    }

    /// The names written into `config`, so that a saved folder needs no other file for them.
    pub fn write(&self, config: &mut Fields) {
        for (name, content) in self.iter() {
            let said = config.get(name);
            let same = said.and_then(|v| v.as_str().or(v.get("content")?.as_str())) == Some(content);
            // A token of a dictionary of extra tokens is named there.
            let extra = config.get("extra_special_tokens").and_then(|e| e.get(name)).is_some();
            if !same && !extra {
                config.insert(name.into(), json!(content));
            }
        }
    }
}

fn add_tokens(tokenizer: &mut Tokenizer, tokens: Vec<AddedToken>) -> Result<()> {
    super::guard::guarded(|| tokenizer.add_tokens(tokens).map_err(|e| e.to_string()))??;
    Ok(())
}

/// special_tokens_map.json and added_tokens.json count only where tokenizer_config.json has no added_tokens_decoder.
fn merge(config: &Fields, map: &Fields, added_file: &Fields, file: &Read) -> Result<Merged> {
    let mut fields = config.clone();
    let mut added = BTreeMap::new();
    if let Some(listed) = fields.remove("added_tokens_decoder").filter(|v| !v.is_null()) {
        let listed = listed.as_object().ok_or("added_tokens_decoder is no object of tokens by id")?;
        for (id, value) in listed {
            let number = id.parse().map_err(|_| format!("added_tokens_decoder has the key {id:?}, which is no id"))?;
            added.extend(token("added_tokens_decoder", value)?.map(|t| (number, t)));
        }
        take_additional(&mut fields);
        return Ok(Merged { fields, added });
    }
    take_additional(&mut fields);
    for (key, value) in map {
        match (key.as_str(), value) {
            ("extra_special_tokens", Value::Array(more)) => {
                let mut list = fields.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                list.extend(more.iter().filter(|v| !list.contains(v)).cloned().collect::<Vec<_>>());
                fields.insert(key.clone(), list.into());
            }
            (_, Value::Object(token)) if key != "extra_special_tokens" => {
                let mut token = token.clone();
                token.insert("special".into(), true.into());
                fields.insert(key.clone(), token.into());
            }
            _ => {
                fields.insert(key.clone(), value.clone());
            }
        }
    }
    take_additional(&mut fields);
    let special = |content: &str| {
        let is = |v: &Value| v.as_str().or_else(|| v.get("content")?.as_str()) == Some(content);
        let extra = fields.get("extra_special_tokens").and_then(Value::as_array);
        NAMED.iter().filter_map(|key| fields.get(*key)).chain(extra.into_iter().flatten()).any(is)
    };
    for (content, id) in added_file {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| format!("added_tokens.json gives {content:?} no id"))?;
        added.insert(id, AddedToken::from(content, special(content)));
    }
    added.extend(file.added.iter().cloned());
    Ok(Merged { fields, added })
}

/// `additional_special_tokens` is the older name.
fn take_additional(fields: &mut Fields) {
    let said = |v: &Value| !matches!(v, Value::Null) && v.as_array().is_none_or(|l| !l.is_empty());
    if let Some(list) = fields.remove("additional_special_tokens")
        && !fields.get("extra_special_tokens").is_some_and(said)
    {
        fields.insert("extra_special_tokens".into(), list);
    }
}

/// A token as a string, or as an object with flags; none for null.
fn token(key: &str, value: &Value) -> Result<Option<AddedToken>> {
    match value {
        Value::Null => Ok(None),
        Value::String(content) => Ok(Some(AddedToken::from(content.as_str(), true))),
        Value::Object(object) => {
            let flag = |name: &str| object.get(name).and_then(Value::as_bool);
            let content = object.get("content").and_then(Value::as_str);
            let content = content.ok_or_else(|| format!("{key} is {value}, without a \"content\""))?;
            let special = flag("special").unwrap_or(false);
            Ok(Some(
                AddedToken::from(content, special)
                    .single_word(flag("single_word").unwrap_or(false))
                    .lstrip(flag("lstrip").unwrap_or(false))
                    .rstrip(flag("rstrip").unwrap_or(false))
                    .normalized(flag("normalized").unwrap_or(!special)),
            ))
        }
        other => Err(format!("{key} is {other}; a token is a string, or an object with \"content\"")),
    }
}

/// What transformers takes for a token that no file names: the class's own, and for padding the one of tokenizer.json.
fn default_token<'a>(key: &str, config: &Fields, file: &'a Read) -> Option<&'a str> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    match (class.trim_end_matches("Fast"), key) {
        (_, "pad_token") => file.padding_token.as_deref(),
        ("LlamaTokenizer", "bos_token") if !file.byte_level => Some("<s>"),
        ("LlamaTokenizer", "eos_token") if !file.byte_level => Some("</s>"),
        ("LlamaTokenizer", "unk_token") if !file.byte_level => Some("<unk>"),
        ("GPT2Tokenizer", "bos_token" | "eos_token" | "unk_token") => Some("<|endoftext|>"),
        _ => None,
    }
}
