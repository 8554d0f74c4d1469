//! Tokenizer and chat template of a Hugging Face folder.

use crate::model::{Config, write_json};
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use motrain_core::Prompt;
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::Tokenizer;

/// Turns prompts into tokens and tokens into text.
#[derive(Clone)]
pub struct Text {
    tokenizer: Tokenizer,
    /// `tokenizer_config.json`, kept so that saved folders carry it unchanged.
    config: Value,
    template: Option<String>,
    /// Tokens that end a completion; training appends the first.
    pub eos: Vec<u32>,
    pub pad: u32,
}

impl Text {
    /// Loads the tokenizer of a folder and checks that it fits the model.
    pub fn load(folder: &Path, model: &Config) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|e| Error::file(&path, format!("cannot be read as a tokenizer: {e}")))?;
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_else(|| json!({}));
        let template = match std::fs::read_to_string(folder.join("chat_template.jinja")) {
            Ok(text) => Some(text),
            Err(_) => config.get("chat_template").and_then(Value::as_str).map(str::to_owned),
        };
        let generation = read_json(&folder.join("generation_config.json"))?.unwrap_or(Value::Null);
        let mut eos = ids(generation.get("eos_token_id"));
        eos.extend(model.eos.iter().filter_map(|&id| u32::try_from(id).ok()));
        if let Some(token) = config.get("eos_token").and_then(Value::as_str) {
            eos.extend(tokenizer.token_to_id(token));
        }
        let mut seen = std::collections::HashSet::new();
        eos.retain(|id| seen.insert(*id));
        Self::new(tokenizer, config, template, eos, model).map_err(|what| Error::file(folder, what))
    }

    /// Puts the parts together and checks that they fit the model.
    pub fn new(
        tokenizer: Tokenizer,
        config: Value,
        template: Option<String>,
        eos: Vec<u32>,
        model: &Config,
    ) -> std::result::Result<Self, String> {
        let highest = tokenizer.get_vocab(true).values().copied().max().unwrap_or(0);
        if i64::from(highest) >= model.vocab_size {
            return Err(format!(
                "the tokenizer has token {highest}, but the model's vocabulary has only {} entries; \
                 tokenizer.json and model.safetensors are of different models",
                model.vocab_size
            ));
        }
        let Some(&first) = eos.first() else {
            return Err("no end-of-sequence token: set eos_token_id in config.json".into());
        };
        let pad = model.pad.and_then(|p| u32::try_from(p).ok()).unwrap_or(first);
        Ok(Self { tokenizer, config, template, eos, pad })
    }

    /// The text of a prompt as the model sees it, ready for the answer.
    pub fn render(&self, prompt: &Prompt) -> Result<String> {
        let Some(template) = &self.template else {
            return Ok(prompt.messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n"));
        };
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::invalid(e.to_string()))?);
        let special = |name: &str| self.config.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        environment
            .render_str(
                template,
                context! {
                    messages => Serde(&prompt.messages),
                    add_generation_prompt => true,
                    bos_token => special("bos_token"),
                    eos_token => special("eos_token"),
                },
            )
            .map_err(|e| {
                Error::invalid(format!("the chat template fails on this prompt: {e}\n  {}", prompt.one_line()))
            })
    }

    /// Tokens of a prompt. A chat template writes its own special tokens; without one the tokenizer adds them.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        self.encode(&self.render(prompt)?, self.template.is_none())
    }

    /// Tokens of an answer, with the end-of-sequence token if the answer is `finished`.
    pub fn encode_completion(&self, completion: &str, finished: bool) -> Result<Vec<u32>> {
        let mut ids = self.encode(completion, false)?;
        if finished {
            ids.push(self.eos[0]);
        }
        Ok(ids)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.tokenizer.encode_fast(text, special).map_err(|e| Error::invalid(format!("tokenizer: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|e| Error::invalid(format!("tokenizer: {e}")))
    }

    /// Writes tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join("tokenizer.json");
        self.tokenizer.save(&path, false).map_err(|e| Error::file(&path, e.to_string()))?;
        let mut config = self.config.clone();
        if let (Some(template), Value::Object(map)) = (&self.template, &mut config) {
            map.remove("chat_template");
            let path = folder.join("chat_template.jinja");
            std::fs::write(&path, template).map_err(|e| Error::io(&path, e))?;
        }
        write_json(&folder.join("tokenizer_config.json"), &config)?;
        let eos = if self.eos.len() == 1 { json!(self.eos[0]) } else { json!(self.eos) };
        write_json(&folder.join("generation_config.json"), &json!({ "eos_token_id": eos, "pad_token_id": self.pad }))
    }
}

/// The content of a JSON file, or nothing where there is none.
pub fn read_json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read_to_string(path) {
        Err(_) => Ok(None),
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, format!("is not JSON: {e}"))),
    }
}

fn ids(value: Option<&Value>) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(one).collect(),
        Some(v) => one(v).into_iter().collect(),
        None => vec![],
    }
}
