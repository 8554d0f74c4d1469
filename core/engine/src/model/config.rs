//! The configuration of a model, and `config.json` as it is written. `config_json.rs` reads it.

use super::adapter::Adapter;
use super::arch::Arch;
use super::config_json;
use super::head::Head;
use super::labels::Labels;
use super::shape::Shape;
use crate::files::warn;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Kind;

#[derive(Clone, Debug)]
pub struct Config {
    pub arch: &'static dyn Arch,
    pub shape: Shape,
    pub bos: Option<i64>,
    /// Tokens that end a completion; the first is the one that training appends.
    pub eos: Vec<i64>,
    pub pad: Option<i64>,
    pub head: Head,
    /// Names of a reward model's labels; none for language models.
    pub labels: Vec<String>,
    /// config.json as it was read.
    pub(super) said: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of a Hugging Face folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if let Some(what) = other_than_a_model(folder) {
            return Err(Error::file(folder, what));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let (config, unknown) = Self::parse(&text).map_err(|what| Error::file(&path, what))?;
        if !unknown.is_empty() {
            let class = config.arch.class();
            warn(&path, &format!("has no meaning for a {class} model: {}", unknown.join(", ")));
        }
        Ok(config)
    }

    /// The configuration of what `Model::open` makes of a folder: its own, or of an adapter its base's with the adapter's head. Of an adapter's
    /// weights names and shapes are looked at.
    pub fn of(folder: &Path) -> Result<Self> {
        if !Adapter::is_one(folder) || folder.join("config.json").is_file() {
            return Self::load(folder);
        }
        Adapter::outline(folder)?.in_base(Self::load(&Adapter::base_in(folder)?)?)
    }

    /// The configuration that the text of a `config.json` says, and what of it has no meaning for a model of its family.
    pub fn parse(text: &str) -> std::result::Result<(Self, Vec<String>), String> {
        config_json::read(text)
    }

    /// The labels of its head, and what they are trained for.
    pub fn labelled(&self) -> Labels {
        Labels { names: self.labels.clone(), problem: self.problem_type().map(str::to_owned) }
    }

    /// Bytes of a number in the type that the file says weights are stored in; f32 where it does not.
    pub fn stored_bytes(&self) -> f64 {
        let said = ["dtype", "torch_dtype"].iter().find_map(|name| self.said.get(*name)).and_then(Value::as_str);
        if matches!(said, Some("bfloat16" | "float16")) { 2.0 } else { 4.0 }
    }

    /// `config.json` as `transformers` reads it: what was read, with what has changed since.
    pub fn to_json(&self) -> Value {
        let mut said = self.said.clone();
        let [lm, classifier] = self.arch.classes();
        let layers = self.shape.layers.len();
        let mut set = |name: &str, value: Value| drop(said.insert(name.into(), value));
        if !self.head.is_foreign() {
            let class = if self.head.scores() { classifier } else { lm };
            set("architectures", json!([class]));
            set("tie_word_embeddings", json!(self.head != Head::Lm));
        }
        set(self.arch.names().layer_count, json!(layers));
        if self.head == Head::Score {
            Labels::fields(&self.labels).into_iter().for_each(|(name, value)| set(name, value));
        }
        for by_layer in ["layer_types", "no_rope_layers"] {
            if let Some(Value::Array(list)) = said.get_mut(by_layer) {
                list.truncate(layers);
            }
        }
        Value::Object(said)
    }

    /// The type of the weights that lie beside it: f32 where it says none.
    pub fn stored(&self) -> Kind {
        let said = DTYPES.iter().find_map(|name| self.said.get(*name)?.as_str());
        match said {
            Some("bfloat16") => Kind::BFloat16,
            Some("float16") => Kind::Half,
            _ => Kind::Float,
        }
    }

    /// The same with weights of another type.
    pub(super) fn stored_as(&self, dtype: Kind) -> Self {
        let mut config = self.clone();
        let name = match dtype {
            Kind::BFloat16 => "bfloat16",
            Kind::Half => "float16",
            _ => "float32",
        };
        for key in DTYPES {
            if let Some(said) = config.said.get_mut(key) {
                *said = json!(name);
            }
        }
        config
    }
}

/// Fields of config.json that name the type of the weights; the first is the newer one, and the one that transformers obeys.
const DTYPES: [&str; 2] = ["dtype", "torch_dtype"];

/// Two files may say the same in other words.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let parts = |c: &Self| (c.arch.model_type(), c.bos, c.eos.clone(), c.pad, c.head, c.labels.clone());
        parts(self) == parts(other) && self.shape == other.shape
    }
}

/// What a folder is that holds no model, with the way from there; `None` for a model's folder.
fn other_than_a_model(folder: &Path) -> Option<String> {
    const NEEDED: &str = "a Hugging Face folder with config.json, model.safetensors and tokenizer.json is needed";
    if !folder.is_dir() {
        let gguf = folder.is_file() && folder.extension().is_some_and(|e| e == "gguf");
        return Some(if gguf {
            format!("is a GGUF file; turn it into a folder first: motrain import {} FOLDER", folder.display())
        } else {
            format!("is no model folder; {NEEDED}")
        });
    }
    let has_config = folder.join("config.json").is_file();
    if folder.join("adapter_config.json").is_file() {
        let besides = if has_config { " beside a model" } else { ", and no model" };
        let base = base_of(folder).map_or("its base".into(), |base| format!("its base, \"{base}\","));
        return Some(format!(
            "holds a PEFT adapter{besides}: mix it into {base} with soup() in a script, or merge them with peft's merge_and_unload() and save \
             the model into a folder of its own"
        ));
    }
    if has_config {
        return None;
    }
    let files: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    if let Some(file) = files.iter().filter(|f| f.ends_with(".gguf")).min() {
        return Some(format!(
            "holds a GGUF file; turn it into a folder first: motrain import {} FOLDER",
            folder.join(file).display()
        ));
    }
    let inside = files.iter().filter(|f| folder.join(f).join("config.json").is_file()).min();
    let hint = inside.map_or(String::new(), |inside| format!("; {} is a model", folder.join(inside).display()));
    Some(format!("has no config.json; {NEEDED}{hint}"))
}

/// The base that an adapter was made for.
fn base_of(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    Some(config.get("base_model_name_or_path")?.as_str()?.to_owned())
}
