//! Data files: JSON lines or a JSON array, plain or gzipped, with prompts, demonstrations, preference pairs or ratings.

mod array;
pub(crate) mod columns;
pub mod forms;
mod lines;
mod messages;
mod mistaken;
mod notes;

pub use lines::{Lines, json_lines};
pub use notes::Notes;

use crate::rng::sub_seed;
use crate::{Error, Prompt, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Which part of a file is used. The parts are told apart by a hash of the first user turn, so that one conversation never
/// lies in both and the split stays when rows are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a comment on a variant would split the schema, and the messages made from it")]
pub enum Part {
    #[default]
    All,
    Train,
    Test,
}

/// Which rows of which files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataOptions {
    /// One file, or several that are read one after the other: .jsonl or .json, plain or gzipped.
    #[schemars(length(min = 1, max = 10_000), inner(length(min = 1, max = 4096)))]
    pub paths: Vec<String>,
    /// "train", "test" or "all".
    #[serde(default)]
    pub part: Part,
    /// The share of conversations that "test" gets.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0, max = 1))]
    pub test_share: f64,
    /// Keep at most this many rows, evenly from all files.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: Option<usize>,
    /// Leave out (and count) rows whose prompt is longer than this many tokens.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_prompt_tokens: Option<usize>,
}

fn tenth() -> f64 {
    0.1
}

impl DataOptions {
    /// Why there can be no rows, whatever the files hold.
    pub fn is_void(&self) -> Option<String> {
        let part = match (self.part, self.test_share) {
            (Part::Test, 0.0) => "test",
            (Part::Train, 1.0) => "train",
            _ => return None,
        };
        Some(format!("the {part} part of {} is empty, since test_share is {}", self.paths.join(", "), self.test_share))
    }
}

/// Where a row stands: which file of its `DataOptions`, and the line.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index into the paths of its `DataOptions`.
    pub file: usize,
    /// Of the file, from 1.
    pub line: usize,
}

impl Place {
    /// `path:line`.
    pub fn of(&self, options: &DataOptions) -> String {
        format!("{}:{}", options.paths.get(self.file).map_or("", String::as_str), self.line)
    }
}

/// One row: its prompt, and all columns.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the row asks.
    pub prompt: Prompt,
    /// The whole row, an object.
    pub columns: Value,
    /// For messages.
    pub place: Place,
}

/// A preference pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What both answer.
    pub prompt: Prompt,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
    /// By how much more the better one is to score.
    pub margin: f64,
    /// The whole row, an object.
    pub columns: Value,
    /// Whether the better and the worse one end there, rather than being cut.
    pub finished: [bool; 2],
    /// For messages.
    pub place: Place,
}

/// A prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Demonstration {
    /// What is asked.
    pub prompt: Prompt,
    /// The answer to learn.
    pub completion: String,
    /// Whether the completion ends here, rather than being cut.
    pub finished: bool,
    /// For messages.
    pub place: Place,
}

/// An answer that was rated.
#[derive(Clone, Debug)]
pub struct Rated {
    /// What is asked.
    pub prompt: Prompt,
    /// The answer.
    pub completion: String,
    /// Whether the answer ends there, rather than being cut.
    pub finished: bool,
    /// One for each attribute; none where nobody rated it.
    pub ratings: Vec<Option<f64>>,
    /// For messages.
    pub place: Place,
}

/// Reads the prompts of rows with `prompt`, `messages`, `conversations` or `chosen`.
pub fn prompts(options: &DataOptions) -> Result<Vec<Row>> {
    let form = |columns: Value, notes: &mut Notes| {
        let prompt = forms::prompt(&columns, notes)?;
        Ok(prompt.map(|prompt| (prompt, columns)))
    };
    let row = |((prompt, columns), place)| Row { prompt, columns, place };
    Ok(read(options, form, |(prompt, _)| prompt)?.into_iter().map(row).collect())
}

/// Reads preference pairs: `chosen` and `rejected` with or without `prompt`, and with a `margin` or none; `"chosen_finished": false` and
/// `"rejected_finished": false` mark answers that were cut.
pub fn pairs(options: &DataOptions) -> Result<Vec<Pair>> {
    let form = |columns: Value, notes: &mut Notes| {
        let (margin, finished) = (forms::margin(&columns)?, forms::finished(&columns)?);
        let pair = forms::pair(&columns, notes)?;
        Ok(pair.map(|pair| (pair, (margin, finished, columns))))
    };
    let pair = |(((prompt, chosen, rejected), (margin, finished, columns)), place)| Pair {
        prompt,
        chosen,
        rejected,
        margin,
        columns,
        finished,
        place,
    };
    Ok(read(options, form, |((prompt, ..), _)| prompt)?.into_iter().map(pair).collect())
}

/// Reads answers with ratings: `prompt` and `completion` or `response`, or a conversation that ends with the answer, and a column for each of
/// `attributes`.
pub fn ratings(options: &DataOptions, attributes: &[String]) -> Result<Vec<Rated>> {
    let form = |columns: Value, notes: &mut Notes| forms::rating(&columns, attributes, notes);
    let one =
        |(((prompt, completion, finished), ratings), place)| Rated { prompt, completion, finished, ratings, place };
    Ok(read(options, form, |((prompt, ..), _)| prompt)?.into_iter().map(one).collect())
}

/// Reads rows for supervised fine-tuning: `prompt` and `completion`, or a conversation that ends with the completion;
/// `"finished": false` marks a completion that was cut.
pub fn completions(options: &DataOptions) -> Result<Vec<Demonstration>> {
    let form = |columns: Value, notes: &mut Notes| forms::demonstration(&columns, notes);
    let one = |((prompt, completion, finished), place)| Demonstration { prompt, completion, finished, place };
    Ok(read(options, form, |(prompt, ..)| prompt)?.into_iter().map(one).collect())
}

fn read<T>(
    options: &DataOptions,
    form: impl Fn(Value, &mut Notes) -> std::result::Result<Option<T>, String>,
    prompt: impl Fn(&T) -> &Prompt,
) -> Result<Vec<(T, Place)>> {
    let (mut files, mut said, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (file, path) in options.paths.iter().enumerate() {
        let path = Path::new(path);
        let (mut rows, mut notes) = (Vec::new(), Notes::default());
        for row in Lines::open(path)? {
            let (line, columns) = row?;
            notes.line = line;
            if !seen.insert(hash(&columns)) {
                notes.remark("the same as an earlier row");
            }
            let found = form(columns, &mut notes).map_err(|what| Error::Data { path: path.to_owned(), line, what })?;
            rows.extend(
                found.filter(|f| options.part.holds(prompt(f), options.test_share)).map(|f| (f, Place { file, line })),
            );
        }
        if notes.line == 0 {
            return Err(Error::file(path, "holds no rows"));
        }
        notes.say(path);
        said.extend(notes.sentences().into_iter().map(|s| format!("\n  {}: {s}", path.display())));
        files.push(rows);
    }
    let rows = interleave(files, options.limit);
    if rows.is_empty() {
        let paths = options.paths.join(", ");
        return Err(Error::Invalid(format!("no rows in {paths} ({:?} part){}", options.part, said.concat())));
    }
    Ok(rows)
}

fn hash(columns: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    columns.hash(&mut hasher);
    hasher.finish()
}

/// Takes rows from each file in proportion, so that a limit does not drop the last file.
fn interleave<T>(files: Vec<Vec<T>>, limit: Option<usize>) -> Vec<T> {
    let total: usize = files.iter().map(Vec::len).sum();
    let keep = limit.unwrap_or(total).min(total);
    let mut out = Vec::with_capacity(keep);
    let mut left = keep;
    let mut rows_left = total;
    for rows in files {
        let share = if rows_left == 0 { 0 } else { (rows.len() * left).div_ceil(rows_left).min(left) };
        rows_left -= rows.len();
        left -= share;
        out.extend(rows.into_iter().take(share));
    }
    out
}

impl Part {
    /// Whether a row of this prompt belongs to the part. All prompts with the same first user turn are in one part.
    pub fn holds(self, prompt: &Prompt, test_share: f64) -> bool {
        let hash = sub_seed(0, prompt.first_user(), 0) as f64 / u64::MAX as f64;
        match self {
            Part::All => true,
            Part::Train => hash >= test_share,
            Part::Test => hash < test_share,
        }
    }
}

#[cfg(test)]
mod tests;
