//! Chat templates: which one a folder has, and how it is rendered, as transformers does both.

use super::special::Special;
use super::{bounded, clock, methods, python};
use crate::files::read_text;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error as TemplateError, ErrorKind, Value, context};
use motrain_core::prompt::Message;
use regex::Regex;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// Steps that a template may take at first; a conversation of ten turns takes about a thousand.
const FEW_STEPS: u64 = 10_000;
/// Steps that it may take in all, half a second's worth.
const MOST_STEPS: u64 = 500_000;
/// Templates are parsed, and the values that they nest are freed, by recursion: there is a stack for as many levels as source and steps
/// allow.
const STACK: usize = 256 << 20;
const STACK_OF_FEW: usize = 8 << 20;
const LARGEST_SOURCE: usize = 256 << 10;
const NAME: &str = "chat template";

/// `{% generation %}` marks what the assistant wrote. Nothing is made of it here, but what is set inside stays inside.
static GENERATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?\s*)(end)?generation(\s*[-+]?)%\}").ok());

/// The templates of a folder.
#[derive(Clone, Default)]
pub struct Templates {
    /// The one that prompts are rendered with.
    pub default: Option<Template>,
    /// All by name, where the folder has several.
    named: Vec<(String, String)>,
}

#[derive(Clone)]
pub struct Template {
    /// As the folder has it.
    pub source: Arc<str>,
    /// With the template in it, under `NAME`.
    environment: Arc<Environment<'static>>,
}

impl Templates {
    /// The templates of a folder: its .jinja files, else `chat_template` of tokenizer_config.json.
    pub fn read(folder: &Path, config: &Map<String, Json>) -> Result<Self> {
        let config_file = folder.join("tokenizer_config.json");
        let mut named = template_files(folder)?;
        let mut place = folder.join("chat_template.jinja");
        if named.is_empty() {
            named = in_config(config.get("chat_template")).map_err(|what| Error::file(&config_file, what))?;
            place = config_file;
        }
        let processor = folder.join("chat_template.json");
        if named.is_empty() && processor.is_file() {
            return Err(Error::file(
                &processor,
                "is read by processors only, not by tokenizers: transformers finds no chat template in this folder; \
                 put its chat_template into chat_template.jinja",
            ));
        }
        if named.is_empty() {
            return Ok(Self::default());
        }
        let Some((_, default)) = named.iter().find(|(name, _)| name == "default") else {
            let names: Vec<String> = named.iter().map(|(name, _)| format!("{name:?}")).collect();
            let what = format!(
                "has the chat templates {} and none called \"default\"; rename the one to use",
                names.join(", ")
            );
            return Err(Error::file(&place, what));
        };
        let default = Template::new(default).map_err(|what| Error::file(&place, what))?;
        Ok(Self { default: Some(default), named: if named.len() > 1 { named } else { vec![] } })
    }

    /// One template, or none.
    pub fn one(source: Option<String>) -> std::result::Result<Self, String> {
        Ok(Self { default: source.map(|s| Template::new(&s)).transpose()?, named: vec![] })
    }

    /// Writes chat_template.jinja; several go into `config`, where all versions of transformers find them.
    pub fn save(&self, folder: &Path, config: &mut Map<String, Json>) -> Result<()> {
        let Some(template) = &self.default else { return Ok(()) };
        config.shift_remove("chat_template");
        if self.named.is_empty() {
            let path = folder.join("chat_template.jinja");
            return std::fs::write(&path, template.source.as_bytes()).map_err(|e| Error::io(&path, e));
        }
        let list = self.named.iter().map(|(name, template)| json!({ "name": name, "template": template }));
        config.insert("chat_template".into(), list.collect());
        Ok(())
    }
}

/// Templates in files of their own: `default` and those of additional_chat_templates.
fn template_files(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut named = Vec::new();
    if let Some(text) = read_text(&folder.join("chat_template.jinja"))? {
        named.push(("default".to_owned(), text));
    }
    let more = folder.join("additional_chat_templates");
    if !more.is_dir() {
        return Ok(named);
    }
    let mut paths: Vec<_> =
        std::fs::read_dir(&more).map_err(|e| Error::io(&more, e))?.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jinja"));
        if let Some(name) = name
            && let Some(text) = read_text(&path)?
        {
            named.retain(|(other, _)| other != name);
            named.push((name.to_owned(), text));
        }
    }
    Ok(named)
}

/// `chat_template` as a string, a list of named templates, or an object of them.
fn in_config(said: Option<&Json>) -> std::result::Result<Vec<(String, String)>, String> {
    let entry = |name: Option<&str>, template: Option<&str>| match (name, template) {
        (Some(name), Some(template)) => Ok((name.to_owned(), template.to_owned())),
        _ => Err("chat_template is a list with an entry that has no \"name\" and \"template\" in text".to_owned()),
    };
    match said {
        None | Some(Json::Null) => Ok(vec![]),
        Some(Json::String(template)) => Ok(vec![("default".into(), template.clone())]),
        Some(Json::Array(list)) => list.iter().map(|t| entry(t["name"].as_str(), t["template"].as_str())).collect(),
        Some(Json::Object(map)) => map.iter().map(|(name, t)| entry(Some(name), t.as_str())).collect(),
        Some(_) => Err("chat_template is neither a template nor a list of named ones".into()),
    }
}

type Rendered = std::result::Result<String, TemplateError>;

impl Template {
    fn new(source: &str) -> std::result::Result<Self, String> {
        if source.len() > LARGEST_SOURCE {
            return Err(format!("its chat template is longer than {} KB", LARGEST_SOURCE >> 10));
        }
        let lines = source.replace("\r\n", "\n").replace('\r', "\n");
        let plain = match GENERATION.as_ref() {
            Some(marks) => marks.replace_all(&lines, "{%${1}${2}with${3}%}").into_owned(),
            None => lines,
        };
        let compiled = bounded::run(STACK, || {
            let mut environment = environment()?;
            environment.add_template_owned(NAME, plain)?;
            Ok(environment)
        });
        Ok(Self { source: source.into(), environment: Arc::new(compiled?.map_err(|e| reason(&e))?) })
    }

    /// The text of a conversation. The variables are those that transformers gives a template.
    pub fn render(
        &self,
        messages: &[Message],
        answer_next: bool,
        special: &Special,
    ) -> std::result::Result<String, String> {
        let tokens = special.iter().map(|(name, token)| (name.to_owned(), Value::from(token)));
        let tokens = Value::from(tokens.collect::<BTreeMap<_, _>>());
        let context = context! {
            messages => Serde(messages),
            tools => (),
            documents => (),
            add_generation_prompt => answer_next,
            ..tokens
        };
        match self.steps(FEW_STEPS, STACK_OF_FEW, context.clone())? {
            Err(e) if e.kind() == ErrorKind::OutOfFuel => self.steps(MOST_STEPS, STACK, context)?,
            done => done,
        }
        .map_err(|e| reason(&e))
    }

    fn steps(&self, steps: u64, stack: usize, context: Value) -> std::result::Result<Rendered, String> {
        let mut environment = self.environment.as_ref().clone();
        environment.set_fuel(Some(steps));
        bounded::run(stack, move || environment.get_template(NAME)?.render(context))
    }
}

/// Jinja as transformers sets it up.
fn environment() -> std::result::Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(python::print);
    environment.add_filter("string", python::string);
    environment.add_filter("tojson", python::tojson);
    environment.add_function("strftime_now", |format: &str| clock::strftime_now(format));
    environment.add_function("raise_exception", |reason: String| -> std::result::Result<Value, TemplateError> {
        Err(TemplateError::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(reason)))
    });
    Ok(environment)
}

/// What a template says where it calls raise_exception.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn reason(error: &TemplateError) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(reason)) = cause.downcast_ref() {
            return format!("it refuses: {reason}");
        }
        source = cause.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it takes more than {MOST_STEPS} steps; does it loop for ever?");
    }
    error.to_string()
}
