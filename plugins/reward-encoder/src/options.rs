//! What a script may say.

use motrain_plugin::{schemars, serde};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of `motrain.encoder`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(crate = "motrain_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "motrain_plugin::schemars")]
pub struct Options {
    /// A Hugging Face folder with config.json, tokenizer.json and safetensors of a BERT, RoBERTa, XLM-RoBERTa, DistilBERT, DeBERTa-v2/v3 or
    /// ModernBERT sequence classifier; for "cosine" of any model on such an encoder.
    #[schemars(length(min = 1, max = 4096), extend("format" = "path"))]
    pub model: String,
    /// The label whose value is the score: a name of config.json's id2label, or its index. Only a model with one label needs none.
    #[serde(default)]
    pub label: Option<Label>,
    /// The label that "difference" takes away; of two labels the other one.
    #[serde(default)]
    pub minus: Option<Label>,
    /// What becomes of the logits. "probability" is what transformers' text-classification pipeline gives: the softmax over the labels, or the
    /// sigmoid of one label or of problem_type "multi_label_classification". "log_probability" and "logit" keep telling apart what is far
    /// from 0 and 1; "difference" is the label's logit less that of `minus`. "cosine" reads no label: it is the similarity of the completion's
    /// embedding, pooled as a sentence-transformers folder says or by the mean, to that of `reference`, or of the prompt.
    #[serde(default)]
    pub output: Output,
    /// What is read: the completion; the prompt, a line break and the completion; or a pair of the prompt as premise and the completion as
    /// hypothesis, in the order that the model was trained on. Where it is too long, a completion alone loses its end, a prompt before it its
    /// beginning, a premise its end; a hypothesis only what does not fit by itself.
    #[serde(default)]
    pub text: Text,
    /// The prompt, which is the last turn of the user, begins after this text: "POST: ".
    #[serde(default)]
    #[schemars(length(min = 1, max = 1000))]
    pub after: Option<String>,
    /// The prompt ends before this text: "\n\nTL;DR:".
    #[serde(default)]
    #[schemars(length(min = 1, max = 1000))]
    pub before: Option<String>,
    /// What output "cosine" compares completions with; without it each with its prompt.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100_000))]
    pub reference: Option<String>,
    /// What the score is multiplied by: -1 where the label is what completions should not be.
    #[serde(default = "one")]
    #[schemars(range(min = -1e6, max = 1e6))]
    pub scale: f64,
    /// Tokens of a text or a pair; 512, or what model and tokenizer are made for if that is less.
    #[serde(default)]
    #[schemars(range(min = 8, max = 1_000_000))]
    pub max_tokens: Option<usize>,
}

fn one() -> f64 {
    1.0
}

/// A label by its index or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(crate = "motrain_plugin::serde", untagged)]
#[schemars(crate = "motrain_plugin::schemars")]
pub enum Label {
    /// Counted from 0.
    Index(#[schemars(range(min = 0, max = 1_000_000))] usize),
    /// As id2label has it.
    Name(#[schemars(length(min = 1, max = 1000))] String),
}

/// What becomes of the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(crate = "motrain_plugin::serde", rename_all = "snake_case")]
#[schemars(crate = "motrain_plugin::schemars")]
pub enum Output {
    #[default]
    Probability,
    LogProbability,
    Logit,
    Difference,
    Cosine,
}

/// What is read of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(crate = "motrain_plugin::serde", rename_all = "snake_case")]
#[schemars(crate = "motrain_plugin::schemars")]
pub enum Text {
    #[default]
    Completion,
    PromptCompletion,
    PremiseHypothesis,
    HypothesisPremise,
}
