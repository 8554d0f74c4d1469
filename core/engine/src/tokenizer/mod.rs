//! The text side of a Hugging Face folder, read as transformers reads it: tokens of prompts, answers and conversations, and text of tokens.

mod bounded;
pub mod clock;
mod codec;
mod ending;
mod guard;
mod methods;
mod python;
mod same;
mod settings;
mod special;
mod template;

use crate::files::{Beside, read_fields, warn, write_json};
use crate::generation;
use crate::model::Config;
use crate::{Error, Result};
use codec::{Codec, Read};
use ending::Ending;
use motrain_core::Prompt;
use motrain_core::prompt::Message;
use serde_json::{Map, Value, json};
use special::Special;
use std::path::Path;
use template::{Template, Templates};

type Fields = Map<String, Value>;

/// Turns prompts into tokens and tokens into text.
#[derive(Clone)]
pub struct Tokenizer {
    codec: Codec,
    special: Special,
    templates: Templates,
    /// Whether turns are joined by line breaks where there is no template, because somebody said so.
    joins: bool,
    ending: Ending,
    /// `tokenizer_config.json` and `generation_config.json`, kept so that saved folders carry them.
    config: Fields,
    generation: Fields,
    /// Tokens at which generation stops; training appends the first.
    pub eos: Vec<u32>,
    pub pad: u32,
    /// `pad_token_id` of config.json: most classes read a reward model's score at the last token that is not this one.
    unscored: Option<u32>,
}

/// A chat template for models that were trained on none.
const SOME_TEMPLATE: &str = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/// Tokens of a prompt and of what is behind it.
pub type Turn = (Vec<u32>, Vec<u32>);

impl Tokenizer {
    /// Loads the text files of a folder and checks that they fit the model.
    pub fn load(folder: &Path, model: &Config) -> Result<Self> {
        let config_file = folder.join("tokenizer_config.json");
        let config = read_fields(&config_file)?;
        let map = read_fields(&folder.join("special_tokens_map.json"))?;
        let added = read_fields(&folder.join("added_tokens.json"))?;
        let mut file = codec::read(&folder.join("tokenizer.json"))?;
        settings::check(&config, &file, &config_file).map_err(|what| Error::file(&config_file, what))?;
        let special = Special::read(&config, &map, &added, &mut file).map_err(|what| Error::file(folder, what))?;
        let templates = Templates::read(folder, &config)?;
        let generation_file = folder.join(generation::FILE);
        let generation = read_fields(&generation_file)?;
        let mut stops = generation::stops(&generation).map_err(|what| Error::file(&generation_file, what))?;
        // As in transformers: config.json counts where there is no generation_config.json, whatever that says.
        if !generation_file.is_file() {
            stops.extend(model.eos.iter().filter_map(|&id| u32::try_from(id).ok()));
        }
        Self::assemble(file.tokenizer, special, templates, (config, generation), stops, model)
            .map_err(|what| Error::file(folder, what))
    }

    /// Puts the parts of a new folder together and checks that they fit the model.
    pub fn new(
        tokenizer: tokenizers::Tokenizer,
        config: Value,
        template: Option<String>,
        eos: Vec<u32>,
        model: &Config,
    ) -> std::result::Result<Self, String> {
        let Value::Object(config) = config else { return Err("tokenizer_config.json is not a JSON object".into()) };
        let mut file = Read::of(tokenizer);
        let special = Special::read(&config, &Fields::new(), &Fields::new(), &mut file)?;
        let templates = Templates::one(template)?;
        Self::assemble(file.tokenizer, special, templates, (config, Fields::new()), eos, model)
    }

    fn assemble(
        mut tokenizer: tokenizers::Tokenizer,
        special: Special,
        templates: Templates,
        (config, generation): (Fields, Fields),
        stops: Vec<u32>,
        model: &Config,
    ) -> std::result::Result<Self, String> {
        let set = |key: &str| config.get(key) == Some(&Value::Bool(true));
        tokenizer.set_encode_special_tokens(set("split_special_tokens"));
        let codec = Codec::new(tokenizer, model.shape.vocab_size, set("clean_up_tokenization_spaces"))?;
        let last = model.eos.first().and_then(|&id| u32::try_from(id).ok());
        let Some(ending) = Ending::find(templates.default.as_ref(), &special, &codec, &stops, last) else {
            return Err("no end-of-sequence token: set eos_token_id in config.json".into());
        };
        let mut eos = vec![ending.id];
        for id in stops {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
        let row = |id: i64| u32::try_from(id).ok().filter(|_| id < model.shape.vocab_size);
        let padding = model.pad.and_then(row);
        let named = || special.get("pad_token").and_then(|token| codec.id(token));
        let pad = padding.or_else(named).unwrap_or(ending.id);
        let unscored = padding.filter(|_| model.head.skips_padding());
        Ok(Self { codec, special, templates, joins: false, ending, config, generation, eos, pad, unscored })
    }

    /// The text of a prompt as the model sees it, ready for the answer. Without a template a single turn is a text that stands for itself; how
    /// several are written, nobody knows.
    pub fn render(&self, prompt: &Prompt) -> Result<String> {
        match (&self.templates.default, prompt.messages.as_slice()) {
            (Some(template), _) => self.rendered(template, prompt, true),
            (None, [one]) => Ok(one.content.clone()),
            (None, turns) if self.joins => Ok(turns.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")),
            (None, turns) => Err(Error::invalid(format!(
                "the model's folder has no chat template, which says how the {} turns of this prompt are written: put chat_template.jinja into \
                 it, with the form that the model was trained on, or for instance {SOME_TEMPLATE}\n  {}",
                turns.len(),
                prompt.one_line()
            ))),
        }
    }

    /// Says how prompts are read of a folder that does not say it.
    pub fn tell_form(&self, folder: &Path) {
        if self.templates.default.is_none() {
            warn(
                folder,
                "has no chat template: a prompt of one turn is used as it is, and a conversation is refused; chat_template.jinja in the folder \
                 says how turns are written",
            );
        }
    }

    fn rendered(&self, template: &Template, prompt: &Prompt, answer_next: bool) -> Result<String> {
        template.render(&prompt.messages, answer_next, &self.special).map_err(|e| {
            Error::invalid(format!("the chat template fails on this prompt: {e}\n  {}", prompt.one_line()))
        })
    }

    /// The same with another chat template, or none.
    pub fn with_template(mut self, source: Option<&str>) -> std::result::Result<Self, String> {
        self.templates = Templates::one(source.map(str::to_owned))?;
        self.joins = source.is_none();
        let found = Ending::find(self.templates.default.as_ref(), &self.special, &self.codec, &self.eos, None);
        self.ending = found.unwrap_or(self.ending);
        Ok(self)
    }

    /// Tokens that lie between what the user says and an answer, from the one that ends the user's turn.
    pub fn opening(&self) -> Result<Vec<u32>> {
        let Some(template) = &self.templates.default else {
            return Err(Error::invalid(
                "has no chat template, which says where an answer begins; give it the model's own",
            ));
        };
        let prompt = Prompt::user("words-of-the-user");
        let [closed, opened] = [false, true].map(|answer_next| {
            let text = self.rendered(template, &prompt, answer_next)?;
            self.codec.encode(&text, false)
        });
        let (closed, opened) = (closed?, opened?);
        match closed.len().checked_sub(1) {
            Some(end) if opened.len() > closed.len() && opened.starts_with(&closed) => Ok(opened[end..].to_vec()),
            _ => Err(Error::invalid(
                "has a chat template that writes nothing before an answer (add_generation_prompt), so that it does not say where one begins",
            )),
        }
    }

    /// Tokens of a prompt. A chat template writes its own special tokens; without one the tokenizer adds them.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        self.codec.encode(&self.render(prompt)?, self.templates.default.is_none())
    }

    /// Tokens of a prompt and of an answer as the policy would write it: up to the token that ends it, or without one where it was cut.
    pub fn encode_answer(&self, prompt: &Prompt, answer: &str, finished: bool) -> Result<Turn> {
        let head = self.render(prompt)?;
        let ids = self.encode_prompt(prompt)?;
        let mut said = answer.to_owned();
        if let Some(template) = &self.templates.default {
            let whole = self.rendered(template, &with_answer(prompt, answer), false)?;
            let words = whole.strip_suffix(self.ending.text.as_str()).and_then(|w| w.strip_prefix(head.as_str()));
            said = words.map_or(said, str::to_owned);
        }
        if finished {
            said.push_str(self.ending.through_token());
        }
        // The words are tokenized where they stand, unless a token would reach over the end of the prompt.
        let whole = self.codec.encode(&format!("{head}{said}"), self.templates.default.is_none())?;
        let mut answer = match whole.strip_prefix(ids.as_slice()) {
            Some(rest) if self.templates.default.is_some() => rest.to_vec(),
            _ => self.codec.encode(&said, false)?,
        };
        if finished && answer.last() != Some(&self.ending.id) {
            answer.push(self.ending.id);
        }
        Ok((ids, answer))
    }

    /// Tokens of a prompt and of all behind it in the whole conversation, as a reward model reads it: with what the chat template writes
    /// behind an answer, unless it was cut, up to the token at which transformers reads the score.
    pub fn encode_conversation(&self, prompt: &Prompt, answer: &str, finished: bool) -> Result<Turn> {
        let Some(template) = &self.templates.default else { return self.encode_answer(prompt, answer, finished) };
        let whole = self.rendered(template, &with_answer(prompt, answer), false)?;
        let text = if finished { &whole } else { whole.strip_suffix(self.ending.text.as_str()).unwrap_or(&whole) };
        let mut tokens = self.codec.encode(text, false)?;
        while tokens.len() > 2 && tokens.last().copied() == self.unscored {
            tokens.pop();
        }
        let ids = self.encode_prompt(prompt)?;
        let shared = tokens.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let behind = tokens.split_off(shared.min(tokens.len().saturating_sub(1)));
        Ok((tokens, behind))
    }

    /// Tokenizer of tokens, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.codec.decode(ids)
    }
}

impl Beside for Tokenizer {
    /// Writes tokenizer.json, tokenizer_config.json, the chat template and generation_config.json.
    fn save(&self, folder: &Path) -> Result<()> {
        self.codec.save(&folder.join("tokenizer.json"))?;
        let mut config = self.config.clone();
        self.special.write(&mut config);
        self.templates.save(folder, &mut config)?;
        write_json(&folder.join("tokenizer_config.json"), &Value::Object(config))?;
        let mut generation = self.generation.clone();
        let eos = if self.eos.len() == 1 { json!(self.eos[0]) } else { json!(self.eos) };
        generation.insert("eos_token_id".into(), eos);
        generation.insert("pad_token_id".into(), json!(self.pad));
        write_json(&folder.join(generation::FILE), &Value::Object(generation))
    }
}

/// Whether a folder has a chat template.
pub fn has_template(folder: &Path) -> Result<bool> {
    let config = read_fields(&folder.join("tokenizer_config.json"))?;
    Ok(Templates::read(folder, &config)?.default.is_some())
}

/// What is wrong with the text of a chat template.
pub fn check_template(source: &str) -> std::result::Result<(), String> {
    Templates::one(Some(source.into())).map(|_| ())
}

fn with_answer(prompt: &Prompt, answer: &str) -> Prompt {
    let mut whole = prompt.clone();
    whole.messages.push(Message { role: "assistant".into(), content: answer.into() });
    whole
}
