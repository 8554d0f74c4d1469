//! Encoders as a reward: the labels of classifiers (toxicity, sentiment, entailment), and the similarity of embeddings. Hugging Face folders of
//! transformers' BERT, RoBERTa, XLM-RoBERTa, DistilBERT, DeBERTa-v2/v3 and ModernBERT, read on the CPU by candle.

mod embedding;
mod family;
mod fields;
mod head;
mod labels;
mod model;
mod options;
mod reading;
mod tokens;
mod weights;

pub use model::Model;
pub use reading::{Cut, Reading};

use embedding::cosine;
use labels::Score;
use motrain_plugin::{Component, Reward, Sample};
use options::{Options, Output, Text};
use rayon::prelude::*;
use std::path::Path;

struct Encoder {
    options: Options,
    model: Model,
    measure: Measure,
}

/// What becomes of what a model says.
enum Measure {
    Label(Score),
    /// The cosine to an embedding; without one to that of the prompt.
    Near(Option<Vec<f64>>),
}

impl Component for Encoder {
    const NAME: &'static str = "motrain.encoder";
    const SUMMARY: &'static str = "a label of a BERT, RoBERTa, DeBERTa or ModernBERT classifier (toxicity, entailment), or the similarity of embeddings";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        check(&options)?;
        let folder = Path::new(&options.model);
        let (model, measure) = if options.output == Output::Cosine {
            let model = Model::encoder(folder, options.max_tokens)?;
            let reference =
                options.reference.as_deref().map(|text| model.embedding(&Reading::alone(text))).transpose()?;
            (model, Measure::Near(reference))
        } else {
            let model = Model::classifier(folder, options.max_tokens)?;
            let score = model.labels.score(&options)?;
            (model, Measure::Label(score))
        };
        Ok(Self { options, model, measure })
    }
}

/// Refuses options that do not go together.
fn check(options: &Options) -> Result<(), String> {
    let cosine = options.output == Output::Cosine;
    let reads_prompt = options.text != Text::Completion || (cosine && options.reference.is_none());
    let refused = [
        (options.scale == 0.0, "option \"scale\" must not be 0: every score would be"),
        (!cosine && options.reference.is_some(), "option \"reference\" goes with output \"cosine\" only"),
        (
            cosine && options.text != Text::Completion,
            "option \"text\" must be \"completion\" where output is \"cosine\"",
        ),
        (
            cosine && (options.label.is_some() || options.minus.is_some()),
            "options \"label\" and \"minus\" mean nothing where output is \"cosine\"",
        ),
        (
            !reads_prompt && (options.after.is_some() || options.before.is_some()),
            "options \"after\" and \"before\" are about the prompt, which is not read here; see option \"text\"",
        ),
    ];
    refused.iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, what)| Err((*what).into()))
}

impl Reward for Encoder {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let readings: Vec<[Reading; 2]> = samples.iter().map(|s| self.readings(s)).collect::<Result<_, _>>()?;
        readings.par_iter().map(|r| self.one(r)).collect()
    }
}

impl Encoder {
    /// What is scored, and the prompt where that is compared with it.
    fn readings(&self, sample: &Sample) -> Result<[Reading; 2], String> {
        let prompt = if matches!(self.measure, Measure::Near(None)) {
            reading::prompt(sample, &self.options)?
        } else {
            String::new()
        };
        Ok([Reading::of(sample, &self.options)?, Reading::alone(&prompt)])
    }

    fn one(&self, [read, prompt]: &[Reading; 2]) -> Result<f64, String> {
        match &self.measure {
            Measure::Label(score) => Ok(score.of(&self.model.logits(read)?)),
            Measure::Near(Some(reference)) => Ok(self.options.scale * cosine(&self.model.embedding(read)?, reference)),
            Measure::Near(None) => {
                Ok(self.options.scale * cosine(&self.model.embedding(read)?, &self.model.embedding(prompt)?))
            }
        }
    }
}

motrain_plugin::export! { rewards: [Encoder] }
