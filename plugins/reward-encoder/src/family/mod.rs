//! The families: a file and a line each. Encoders are candle's; the classifiers on top of them are those of transformers' classes.

mod bert;
mod deberta;
mod modernbert;
mod roberta;

use crate::fields::{Fields, Said};
use crate::head::{Head, Top};
use crate::tokens::Room;
use crate::weights::Weights;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// An encoder: the states of `[1, tokens]` ids with their types, `[1, tokens, hidden]`.
pub type Body = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

/// An encoder, the classifier on top of it, and what it takes.
pub struct Network {
    pub body: Body,
    pub head: Option<Head>,
    pub room: Room,
}

/// Makes a network of what config.json says and the weights: a classifier with so many labels, or the encoder alone.
type Make = fn(&mut Fields, Weights, Option<usize>) -> Said<Network>;

/// What a family says of itself beside its encoder.
pub struct Parts {
    pub hidden: usize,
    pub top: Top,
    pub room: Room,
}

/// The beginnings of tensors that stand on an encoder for the sake of its pre-training.
const PRETRAINING: &[&str] =
    &["cls.", "decoder.", "lm_head.", "lm_predictions.", "mask_predictions.", "roberta.pooler.", "vocab_"];
/// And of those that a classifier has there.
const CLASSIFIERS: &[&str] = &["bert.pooler.", "classifier.", "head.", "pooler.", "pre_classifier."];

impl Parts {
    pub fn build(
        self,
        weights: Weights,
        labels: Option<usize>,
        encoder: impl FnOnce(VarBuilder) -> Result<Body>,
    ) -> Said<Network> {
        let load = || {
            let vb = weights.builder();
            let body = encoder(vb.clone())?;
            let head = labels.map(|count| self.top.load(&vb, self.hidden, count)).transpose()?;
            Ok((body, head))
        };
        let loaded: Result<_> = load();
        let spare = [PRETRAINING, if labels.is_none() { CLASSIFIERS } else { &[] }].concat();
        // The weights know better than candle what was wrong with them.
        weights.end(&spare)?;
        let (body, head) = loaded.map_err(|e| e.to_string())?;
        Ok(Network { body, head, room: self.room })
    }
}

/// A family, by config.json's model_type.
pub struct Family {
    pub name: &'static str,
    /// The class of transformers whose folders are classifiers.
    pub class: &'static str,
    /// What the names of the encoder's tensors begin with in a classifier's file.
    pub prefix: &'static str,
    /// Fields of config.json without a meaning for what is computed.
    pub harmless: &'static [&'static str],
    pub make: Make,
}

pub const FAMILIES: &[Family] = &[
    family("bert", "BertForSequenceClassification", "bert.", bert::HARMLESS, bert::make),
    family(
        "distilbert",
        "DistilBertForSequenceClassification",
        "distilbert.",
        bert::DISTILLED_HARMLESS,
        bert::make_distilled,
    ),
    family("roberta", "RobertaForSequenceClassification", "roberta.", &[], roberta::make),
    family("xlm-roberta", "XLMRobertaForSequenceClassification", "roberta.", &[], roberta::make),
    family("deberta-v2", "DebertaV2ForSequenceClassification", "deberta.", deberta::HARMLESS, deberta::make),
    family("modernbert", "ModernBertForSequenceClassification", "model.", modernbert::HARMLESS, modernbert::make),
];

const fn family(
    name: &'static str,
    class: &'static str,
    prefix: &'static str,
    harmless: &'static [&'static str],
    make: Make,
) -> Family {
    Family { name, class, prefix, harmless, make }
}

/// An activation by its name in config.json.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Tanh,
}

impl Activation {
    /// What candle's encoders have between their layers.
    pub const INNER: &[Self] = &[Self::Gelu, Self::GeluTanh, Self::Relu];

    /// One of `known`, of which the first is what transformers assumes.
    pub fn take(f: &mut Fields, field: &str, known: &[Self]) -> Said<Self> {
        let Some(name) = f.take::<String>(field)? else { return Ok(known[0]) };
        let found = match name.as_str() {
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "tanh" => Some(Self::Tanh),
            _ => None,
        };
        found.filter(|act| known.contains(act)).ok_or_else(|| {
            let known: Vec<&str> = known.iter().map(Self::name).collect();
            format!("says {field} = \"{name}\"; this plugin knows {}", known.join(", "))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
        }
    }

    pub fn of(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
            Self::Tanh => x.tanh(),
        }
    }
}

/// Sizes that every family has, under the names of its config.json.
pub struct Sizes {
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
    pub positions: usize,
}

impl Sizes {
    pub fn take(f: &mut Fields) -> Said<Self> {
        Self::named(f, ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"])
    }

    pub fn named(f: &mut Fields, [hidden, layers, heads, inner]: [&str; 4]) -> Said<Self> {
        let sizes = Self {
            vocab: f.size("vocab_size")?,
            hidden: f.size(hidden)?,
            layers: f.size(layers)?,
            heads: f.size(heads)?,
            inner: f.size(inner)?,
            positions: f.size("max_position_embeddings")?,
        };
        if !sizes.hidden.is_multiple_of(sizes.heads) {
            return Err(format!("says {hidden} = {}, which {heads} = {} does not divide", sizes.hidden, sizes.heads));
        }
        Ok(sizes)
    }
}
