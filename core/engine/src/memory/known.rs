//! What is known of a plan's models before they are there.

use super::{Footprint, Machine};
use crate::model::tokenizer_folder;
use crate::model::{Adapter, Config, SHARD, Trained, largest_file};
use crate::others::Others;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::plan::ModelRef;
use motrain_core::registry::Registry;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Stages, and what they have been found to make.
pub struct Known<'a> {
    pub others: &'a dyn Others,
    pub registry: &'a Registry,
    pub machine: Machine,
    models: BTreeMap<String, Shaped>,
    rows: BTreeMap<String, (f64, f64)>,
}

/// A model by its shape.
#[derive(Clone, Debug)]
pub struct Shaped {
    pub config: Config,
    /// Numbers of its parameters.
    pub numbers: f64,
    /// Those of the largest one.
    pub largest: f64,
    /// Bytes of the largest of its files.
    pub file: f64,
    /// Bytes of a number in them.
    pub stored: f64,
    /// Numbers of an adapter that it is, beside its base.
    pub adapter: Option<f64>,
    /// Whether that stays beside the base, since weights steer it.
    pub steered: bool,
    /// Soft tokens before every prompt.
    pub room: f64,
    /// Where its tokenizer lies.
    text: Option<PathBuf>,
}

impl<'a> Known<'a> {
    pub fn new(others: &'a dyn Others, registry: &'a Registry, machine: Machine) -> Self {
        Self { others, registry, machine, models: BTreeMap::new(), rows: BTreeMap::new() }
    }

    /// Takes up what a stage makes.
    pub fn learn(&mut self, stage: &str, footprint: &Footprint) {
        self.models.extend(footprint.makes.clone().map(|model| (stage.to_owned(), model)));
        self.rows.extend(footprint.rows.map(|rows| (stage.to_owned(), rows)));
    }

    pub fn model(&self, model: &ModelRef) -> Result<Shaped> {
        match model {
            ModelRef::Path(path) => Shaped::read(Path::new(path)),
            ModelRef::Stage { stage, .. } => self.models.get(stage).cloned().ok_or_else(|| {
                Error::invalid(format!("the shape of what stage \"{stage}\" makes is not known before it has run"))
            }),
        }
    }

    /// Tokens of the longest prompt and answer that a stage makes.
    pub fn rows(&self, stage: &str) -> Option<(f64, f64)> {
        self.rows.get(stage).copied()
    }
}

impl Shaped {
    /// A model whose weights a stage makes.
    pub fn made(config: Config, adapter: Option<f64>, like: Option<&Self>) -> Self {
        let whole = Trained::whole(&config);
        let (numbers, largest) = (whole.numbers(), whole.largest());
        let (file, stored) = match (adapter, like) {
            (Some(_), Some(base)) => (base.file, base.stored),
            _ => ((config.stored_bytes() * numbers).min(SHARD as f64), config.stored_bytes()),
        };
        let (steered, room) = (false, 0.0);
        Self {
            config,
            numbers,
            largest,
            file,
            stored,
            adapter,
            steered,
            room,
            text: like.and_then(|base| base.text.clone()),
        }
    }

    /// The same where weights steer it, with room before every prompt.
    pub fn steered(self, steered: bool, room: f64) -> Self {
        Self { steered, room, ..self }
    }

    /// A folder's config.json, and how large its files are; without weights, as large as they would be.
    fn read(folder: &Path) -> Result<Self> {
        let adapter = Adapter::is_one(folder) && !folder.join("config.json").is_file();
        let base = if adapter { Adapter::base_in(folder)? } else { folder.to_owned() };
        let config = Config::load(&base)?;
        let adapter = adapter.then(|| Adapter::numbers(folder, &config)).transpose()?;
        let (file, bytes) = (largest_file(&base, &config), config.stored_bytes());
        let text = tokenizer_folder(folder)?;
        let text = text.join("tokenizer.json").is_file().then_some(text);
        Ok(Self { file, stored: bytes, text, ..Self::made(config, adapter, None) })
    }

    /// Its tokenizer, if there is one already.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.text.as_deref().map(|folder| Tokenizer::load(folder, &self.config)).transpose()
    }
}
