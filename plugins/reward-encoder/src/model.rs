//! A Hugging Face folder: texts in, logits or embeddings out.

use crate::embedding::Embedding;
use crate::family::{FAMILIES, Family, Network};
use crate::fields::{Fields, Said};
use crate::head::Pool;
use crate::labels::Labels;
use crate::reading::Reading;
use crate::tokens::Tokens;
use crate::weights::Weights;
use candle_core::{Device, Result, Tensor};
use std::path::Path;

pub struct Model {
    network: Network,
    tokens: Tokens,
    pub(crate) labels: Labels,
    /// Of embeddings.
    pool: Pool,
}

impl Model {
    /// A sequence classifier.
    pub fn classifier(folder: &Path, max_tokens: Option<usize>) -> Said<Self> {
        Self::load(folder, max_tokens, None)
    }

    /// The encoder of any model of the families.
    pub fn encoder(folder: &Path, max_tokens: Option<usize>) -> Said<Self> {
        Self::load(folder, max_tokens, Some(Embedding::read(folder)?))
    }

    fn load(folder: &Path, max_tokens: Option<usize>, embedding: Option<Embedding>) -> Said<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Err(format!("option \"model\": {} does not exist; name a Hugging Face folder", path.display()));
        }
        let told = |what| format!("{}: {what}", path.display());
        let mut f = Fields::read(&path).map_err(told)?;
        let family = family(&mut f, embedding.is_none()).map_err(told)?;
        let labels = Labels::read(&mut f).map_err(told)?;
        f.only("pruned_heads", serde_json::json!({})).map_err(told)?;
        let mut weights = Weights::read(folder)?;
        if embedding.is_some() {
            weights = weights.below(family.prefix);
        }
        let count = embedding.is_none().then_some(labels.names.len());
        let mut network =
            (family.make)(&mut f, weights, count).map_err(|what| format!("{}: {what}", folder.display()))?;
        f.end(family.harmless).map_err(told)?;
        let Embedding { pool, longest } = embedding.unwrap_or(Embedding { pool: Pool::Mean, longest: usize::MAX });
        network.room.positions = network.room.positions.min(longest);
        let tokens = Tokens::load(folder, network.room, max_tokens)?;
        Ok(Self { network, tokens, labels, pool })
    }

    /// The token ids of a text or a pair, with the marks of its beginning and end.
    pub fn ids(&self, reading: &Reading) -> Said<Vec<u32>> {
        Ok(self.tokens.encode(reading)?.ids)
    }

    /// One logit per label. Each text is read by itself, so that a score does not depend on those beside it.
    pub fn logits(&self, reading: &Reading) -> Said<Vec<f64>> {
        let head = self.network.head.as_ref().ok_or("the model was read without its classifier")?;
        self.numbers(reading, |states| head.logits(states))
    }

    /// The embedding of a text.
    pub fn embedding(&self, reading: &Reading) -> Said<Vec<f64>> {
        self.numbers(reading, |states| self.pool.of(states)?.squeeze(0))
    }

    fn numbers(&self, reading: &Reading, of: impl FnOnce(&Tensor) -> Result<Tensor>) -> Said<Vec<f64>> {
        let ids = self.tokens.encode(reading)?;
        let count = ids.ids.len();
        let row = |numbers: Vec<u32>| Tensor::from_vec(numbers, (1, count), &Device::Cpu);
        let compute = || of(&(self.network.body)(&row(ids.ids)?, &row(ids.types)?)?)?.to_vec1::<f32>();
        Ok(compute().map_err(|e| e.to_string())?.into_iter().map(f64::from).collect())
    }
}

/// The family of a model; refuses classes with another head or, where a classifier is wanted, with none.
fn family(f: &mut Fields, classifier: bool) -> Said<&'static Family> {
    let name: String = f.take("model_type")?.unwrap_or_default();
    let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        return Err(format!("says model_type = \"{name}\"; this plugin knows {}", known.join(", ")));
    };
    match f.take::<Vec<String>>("architectures")?.unwrap_or_default().first() {
        Some(other) if classifier && other != family.class => Err(format!(
            "says architectures = \"{other}\", which classifies no texts; this plugin reads {} of this family",
            family.class
        )),
        _ => Ok(family),
    }
}
