//! Which text of a sample the encoder reads.

use crate::options::{Options, Text};
use motrain_plugin::Sample;

/// A text, or a pair of them, and which of them gives way where both are too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub first: String,
    pub second: Option<String>,
    pub cut: Cut,
}

/// What a reading that is too long loses first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The beginning of the first text.
    Beginning,
    /// The end of the first text.
    First,
    /// The end of the second text.
    Second,
}

impl Reading {
    /// A text by itself, which loses its end.
    pub fn alone(text: &str) -> Self {
        Self { first: text.to_owned(), second: None, cut: Cut::First }
    }

    pub fn of(sample: &Sample, options: &Options) -> Result<Self, String> {
        if options.text == Text::Completion {
            return Ok(Self::alone(sample.completion));
        }
        let (prompt, completion) = (prompt(sample, options)?, sample.completion.to_owned());
        Ok(match options.text {
            Text::Completion | Text::PromptCompletion => {
                Self { first: format!("{prompt}\n{completion}"), second: None, cut: Cut::Beginning }
            }
            Text::PremiseHypothesis => Self { first: prompt, second: Some(completion), cut: Cut::First },
            Text::HypothesisPremise => Self { first: completion, second: Some(prompt), cut: Cut::Second },
        })
    }
}

/// The last turn of the user, from `after` to `before`.
pub fn prompt(sample: &Sample, options: &Options) -> Result<String, String> {
    let last = sample.prompt.iter().rfind(|turn| turn.role() == "user").ok_or("the prompt has no turn of the user")?;
    let mut text = last.content();
    let lacks = |option: &str, marker: &str| {
        format!(
            "option \"{option}\": the prompt does not contain {marker:?}; it begins {:?}",
            beginning(last.content())
        )
    };
    if let Some(marker) = &options.after {
        text = text.split_once(marker.as_str()).ok_or_else(|| lacks("after", marker))?.1;
    }
    if let Some(marker) = &options.before {
        text = text.rsplit_once(marker.as_str()).ok_or_else(|| lacks("before", marker))?.0;
    }
    Ok(text.to_owned())
}

fn beginning(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}
