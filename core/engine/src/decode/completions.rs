//! Drawn completions, prompt by prompt.

use motrain_core::data;
use motrain_core::reward::Sample;
use std::ops::{Deref, Range};

/// One drawn completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Tokens, with the end-of-sequence token if it was drawn.
    pub tokens: Vec<u32>,
    /// Of each token when it was drawn, at the temperature and before `top_k` and `top_p`; empty where it was not drawn here.
    pub log_probs: Vec<f32>,
    pub text: String,
    /// Whether the policy ended it, rather than the length limit.
    pub finished: bool,
}

impl Completion {
    /// One that was not drawn here.
    pub fn written(text: &str, finished: bool) -> Self {
        Self { tokens: vec![], log_probs: vec![], text: text.to_owned(), finished }
    }

    /// What rewards see of it, as an answer to a plain prompt.
    pub fn sample<'a>(&'a self, row: &'a data::Row) -> Sample<'a> {
        Sample { prompt: &row.prompt, completion: &self.text, finished: self.finished, row: &row.columns }
    }
}

/// The completions of some prompts, as many of each: a flat list, prompt by prompt, in whose order scores stand too.
#[derive(Clone, Debug, PartialEq)]
pub struct Completions {
    per_prompt: usize,
    all: Vec<Completion>,
}

impl Completions {
    /// `all` holds `per_prompt` of each prompt.
    pub fn new(per_prompt: usize, all: Vec<Completion>) -> Self {
        Self { per_prompt, all }
    }

    /// Those of one prompt.
    pub fn of(&self, prompt: usize) -> &[Completion] {
        &self.all[self.span(prompt)]
    }

    /// Where those of one prompt stand.
    pub fn span(&self, prompt: usize) -> Range<usize> {
        prompt * self.per_prompt..(prompt + 1) * self.per_prompt
    }

    /// Which prompt a completion is of.
    pub fn prompt_of(&self, completion: usize) -> usize {
        completion / self.per_prompt
    }

    /// Each with what belongs to its prompt.
    pub fn with<'a, T>(&'a self, by_prompt: &'a [T]) -> impl Iterator<Item = (&'a T, &'a Completion)> {
        self.all.iter().enumerate().map(|(i, completion)| (&by_prompt[self.prompt_of(i)], completion))
    }

    /// Tokens of all.
    pub fn tokens(&self) -> usize {
        self.all.iter().map(|c| c.tokens.len()).sum()
    }
}

impl Deref for Completions {
    type Target = [Completion];

    fn deref(&self) -> &[Completion] {
        &self.all
    }
}

impl IntoIterator for Completions {
    type Item = Completion;
    type IntoIter = std::vec::IntoIter<Completion>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}
