//! A small classifier of toxic text, as a motrain plugin: logistic regression on hashed word and letter n-grams.
//!
//! It was trained by `src/bin/train.rs` on sentences that its own grammar makes: insults, threats and contempt against
//! friendly, neutral and hostile-sounding but harmless ones (negation, quotes, technical talk). It knows what that grammar
//! knows; README.md gives its accuracy on held-out sentences and on hand-written ones.

pub mod features;

use features::{BUCKETS, each};
use motrain_plugin::toolbox::sigmoid;
use motrain_plugin::{Component, Reward, Sample};

motrain_plugin::options! {
    /// Options of `motrain.toxicity`.
    pub struct Options {
        /// The score is the log-odds of harmless text, not its probability: it keeps telling apart what is far from toxic.
        log_odds: bool = false,
    }
}

/// One byte per weight, as `train` wrote it: scale (f32), bias (f32), then the weights.
static TRAINED: &[u8] = include_bytes!("../weights.bin");

struct Toxicity {
    options: Options,
    model: Model,
}

/// The classifier.
pub struct Model {
    scale: f32,
    bias: f32,
    weights: &'static [u8],
}

impl Model {
    /// The shipped weights.
    pub fn shipped() -> Result<Self, String> {
        let (head, weights) = TRAINED.split_at_checked(8).ok_or("weights.bin is damaged")?;
        if weights.len() != BUCKETS {
            return Err(format!("weights.bin has {} weights, not {BUCKETS}", weights.len()));
        }
        let number = |at: usize| f32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(Self { scale: number(0), bias: number(4), weights })
    }

    /// Log-odds that `text` is toxic.
    pub fn log_odds(&self, text: &str) -> f64 {
        let (mut sum, mut count) = (0f64, 0f64);
        each(text, |bucket| {
            sum += f64::from(self.weights[bucket] as i8);
            count += 1.0;
        });
        f64::from(self.bias) + f64::from(self.scale) * sum / f64::max(count, 1.0).sqrt()
    }
}

impl Component for Toxicity {
    const NAME: &'static str = "motrain.toxicity";
    const SUMMARY: &'static str = "the probability that a completion is not toxic, by a small trained classifier";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        Ok(Self { options, model: Model::shipped()? })
    }
}

impl Reward for Toxicity {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let one = |s: &Sample| {
            let harmless = -self.model.log_odds(s.completion);
            if self.options.log_odds { harmless } else { sigmoid(harmless) }
        };
        Ok(samples.iter().map(one).collect())
    }
}

motrain_plugin::export! { rewards: [Toxicity] }

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand, not by the grammar.
    const TOXIC: [&str; 10] = [
        "You are an idiot and nobody wants you here.",
        "Shut up, you worthless moron.",
        "I will find you and break your legs.",
        "People like you disgust me.",
        "What a pathetic loser you are.",
        "Go away, you stupid fool, everyone hates you.",
        "You're such a stupid liar.",
        "I hope you suffer, you filthy pig.",
        "Your family is trash and so are you.",
        "They are all stupid and should be beaten.",
    ];
    const HARMLESS: [&str; 12] = [
        "Put the egg into boiling water for seven minutes.",
        "I am sorry to hear that, how can I help?",
        "You can kill the process with this command.",
        "It is wrong to call anybody an idiot.",
        "Thank you for your patience, it means a lot.",
        "The weather will be fine in the north tomorrow.",
        "You are not stupid, this is a hard question.",
        "I would talk to the teacher about it first.",
        "The movie is about a man who hates the rain.",
        "First, cut the onion, then fry it in oil.",
        "I am sorry to hear that. You could talk to them when you are calm.",
        "She said that her brother will arrive on Friday.",
    ];

    #[test]
    fn tells_hand_written_sentences_apart() {
        let model = Model::shipped().unwrap();
        let caught = TOXIC.iter().filter(|t| model.log_odds(t) > 0.0).count();
        let passed = HARMLESS.iter().filter(|t| model.log_odds(t) < 0.0).count();
        assert!(caught >= 9 && passed >= 11, "{caught} of 10 toxic, {passed} of 12 harmless");
    }
}
