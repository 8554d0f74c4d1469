//! Data files: JSON lines, plain or gzipped, with prompts or preference pairs.

use crate::rng::sub_seed;
use crate::{Error, Message, Prompt, Result};
use flate2::read::MultiGzDecoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Which part of a file is used. The parts are told apart by a hash of the first user turn, so that one conversation never
/// lies in both and the split stays when rows are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    #[default]
    All,
    Train,
    Test,
}

/// Which rows of which files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// One file, or several that are read one after the other: .jsonl or .jsonl.gz.
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

impl DataSpec {
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

/// One row: its prompt, and all columns.
#[derive(Clone, Debug)]
pub struct Row {
    pub prompt: Prompt,
    pub columns: Value,
    pub file: usize,
    pub line: usize,
}

/// A preference pair.
#[derive(Clone, Debug)]
pub struct Pair {
    pub prompt: Prompt,
    pub chosen: String,
    pub rejected: String,
}

/// Reads the prompts: rows with `prompt` (text or messages), `messages`, or `chosen` as in HH.
pub fn prompts(spec: &DataSpec) -> Result<Vec<Row>> {
    read(
        spec,
        |columns| Ok(usable_prompt(columns)?.map(|prompt| (prompt, ()))),
        |prompt, (), columns, file, line| Row { prompt, columns, file, line },
    )
}

/// Reads preference pairs: HH's own `{"chosen", "rejected"}` dialogues, or `{"prompt", "chosen", "rejected"}`.
pub fn pairs(spec: &DataSpec) -> Result<Vec<Pair>> {
    read(
        spec,
        |columns| pair_of(columns).map(Some),
        |prompt, (chosen, rejected), _, _, _| Pair { prompt, chosen, rejected },
    )
}

/// A prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Demonstration {
    pub prompt: Prompt,
    pub completion: String,
    /// Whether the completion ends here, rather than being cut.
    pub finished: bool,
}

/// Reads `{"prompt", "completion"}` rows for supervised fine-tuning; `"finished": false` marks a completion that was cut.
pub fn completions(spec: &DataSpec) -> Result<Vec<Demonstration>> {
    let one = |columns: &Value| {
        let finished = columns.get("finished").and_then(Value::as_bool).unwrap_or(true);
        Ok(Some((prompt_of(columns)?, (text(columns, "completion")?.to_owned(), finished))))
    };
    read(spec, one, |prompt, (completion, finished), _, _, _| Demonstration { prompt, completion, finished })
}

fn read<T, Out>(
    spec: &DataSpec,
    parse: impl Fn(&Value) -> std::result::Result<Option<(Prompt, T)>, String>,
    make: impl Fn(Prompt, T, Value, usize, usize) -> Out,
) -> Result<Vec<Out>> {
    let mut files = Vec::new();
    for (file, path) in spec.paths.iter().enumerate() {
        let path = Path::new(path);
        let mut rows = Vec::new();
        let mut left_out = Vec::new();
        for (line, columns) in json_lines(path)? {
            let found = parse(&columns).map_err(|what| Error::Data { path: path.to_owned(), line, what })?;
            let Some((prompt, value)) = found else {
                left_out.push(line);
                continue;
            };
            if spec.part.holds(&prompt, spec.test_share) {
                rows.push(make(prompt, value, columns, file, line));
            }
        }
        if let Some(first) = left_out.first() {
            tracing::info!(
                "{}: left out {} dialogues whose last answer follows no user turn (the first in line {first})",
                path.display(),
                left_out.len()
            );
        }
        files.push(rows);
    }
    let rows = interleave(files, spec.limit);
    if rows.is_empty() {
        return Err(Error::Invalid(format!("no rows in {} ({:?} part)", spec.paths.join(", "), spec.part)));
    }
    Ok(rows)
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
    fn holds(self, prompt: &Prompt, test_share: f64) -> bool {
        let hash = sub_seed(0, prompt.first_user(), 0) as f64 / u64::MAX as f64;
        match self {
            Part::All => true,
            Part::Train => hash >= test_share,
            Part::Test => hash < test_share,
        }
    }
}

/// The lines of a JSON-lines file with their numbers; blank lines are skipped.
pub fn json_lines(path: &Path) -> Result<Vec<(usize, Value)>> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut magic = [0u8; 2];
    let gzipped = file.read(&mut magic).map_err(|e| Error::io(path, e))? == 2 && magic == [0x1f, 0x8b];
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let reader: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut out = Vec::new();
    for (i, text) in BufReader::new(reader).lines().enumerate() {
        let at = |what: String| Error::Data { path: path.to_owned(), line: i + 1, what };
        let text = text.map_err(|e| at(format!("cannot be read ({e}); the file may be truncated")))?;
        if text.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&text).map_err(|e| at(format!("is not JSON: {e}")))?;
        if !value.is_object() {
            return Err(at("is JSON but no object".into()));
        }
        out.push((i + 1, value));
    }
    if out.is_empty() {
        return Err(Error::file(path, "holds no rows"));
    }
    Ok(out)
}

fn text<'a>(columns: &'a Value, column: &str) -> std::result::Result<&'a str, String> {
    match columns.get(column) {
        Some(Value::String(s)) => Ok(s),
        Some(_) => Err(format!("column \"{column}\" is no text")),
        None => Err(format!("has no column \"{column}\"")),
    }
}

/// `None` for a dialogue of HH in which two answers follow each other: some dozens of its rows are so.
fn usable_prompt(columns: &Value) -> std::result::Result<Option<Prompt>, String> {
    let dialogue = columns.get("chosen").filter(|_| columns.get("prompt").or(columns.get("messages")).is_none());
    if let Some(Value::String(chosen)) = dialogue {
        let prompt = Prompt::from_dialogue(split_last_answer(chosen)?.0);
        return Ok(ends_with_user(&prompt).then_some(prompt));
    }
    prompt_of(columns).map(Some)
}

fn ends_with_user(prompt: &Prompt) -> bool {
    prompt.messages.last().is_some_and(|m| m.role == "user" && !m.content.trim().is_empty())
}

fn prompt_of(columns: &Value) -> std::result::Result<Prompt, String> {
    let prompt = match (columns.get("prompt"), columns.get("messages")) {
        (Some(Value::String(s)), _) => Prompt::from_dialogue(s),
        (Some(messages), _) | (None, Some(messages)) => messages_of(messages)?,
        _ => return Err("has none of the columns \"prompt\", \"messages\", \"chosen\"".into()),
    };
    if !ends_with_user(&prompt) {
        return Err("the prompt does not end with a user turn".into());
    }
    Ok(prompt)
}

fn messages_of(value: &Value) -> std::result::Result<Prompt, String> {
    let messages: Vec<Message> =
        serde_json::from_value(value.clone()).map_err(|e| format!("messages are not {{role, content}}: {e}"))?;
    Ok(Prompt { messages })
}

/// HH text is one dialogue; the answer follows the last `\n\nAssistant:`.
fn split_last_answer(dialogue: &str) -> std::result::Result<(&str, &str), String> {
    const MARK: &str = "\n\nAssistant:";
    let at = dialogue.rfind(MARK).ok_or("the dialogue has no \"\\n\\nAssistant:\" turn")?;
    Ok((&dialogue[..at + MARK.len()], dialogue[at + MARK.len()..].trim()))
}

fn pair_of(columns: &Value) -> std::result::Result<(Prompt, (String, String)), String> {
    let (chosen, rejected) = (text(columns, "chosen")?, text(columns, "rejected")?);
    if columns.get("prompt").is_some() || columns.get("messages").is_some() {
        return Ok((prompt_of(columns)?, (chosen.into(), rejected.into())));
    }
    // Some HH rows diverge before the last turn: what both share is the prompt, the rest is the answer.
    let (prompt, answer) = split_last_answer(chosen)?;
    let (other_prompt, other_answer) = split_last_answer(rejected)?;
    if prompt == other_prompt {
        return Ok((Prompt::from_dialogue(prompt), (answer.into(), other_answer.into())));
    }
    let shared = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
    let common = chosen.get(..shared).or_else(|| chosen.get(..shared.saturating_sub(1))).unwrap_or("");
    let (prompt, _) = split_last_answer(common).map_err(|_| "chosen and rejected share no prompt".to_owned())?;
    let rest = |dialogue: &str| dialogue[prompt.len()..].trim().to_owned();
    Ok((Prompt::from_dialogue(prompt), (rest(chosen), rest(rejected))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn spec(path: &Path) -> DataSpec {
        let paths = vec![path.to_string_lossy().into_owned()];
        DataSpec { paths, part: Part::All, test_share: 0.1, limit: None, max_prompt_tokens: None }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut f = tempfile::NamedTempFile::new().unwrap();
        f.write_all(text.as_bytes()).unwrap();
        f
    }

    #[test]
    fn reads_hh_pairs_even_when_they_diverge_early() {
        let f = file(concat!(
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: good","rejected":"\n\nHuman: q\n\nAssistant: bad"}"#,
            "\n\n",
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: a1\n\nHuman: r\n\nAssistant: c","rejected":"\n\nHuman: q\n\nAssistant: a2"}"#,
            "\n"
        ));
        let pairs = pairs(&spec(f.path())).unwrap();
        assert_eq!((pairs[0].chosen.as_str(), pairs[0].rejected.as_str()), ("good", "bad"));
        assert_eq!(pairs[1].prompt.messages.len(), 1);
        assert_eq!(pairs[1].chosen, "a1\n\nHuman: r\n\nAssistant: c");
    }

    #[test]
    fn a_dialogue_without_a_last_question_is_left_out() {
        let f = file(concat!(
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: a\n\nAssistant: b","rejected":"\n\nHuman: q\n\nAssistant: c"}"#,
            "\n",
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: q\n\nAssistant: c"}"#,
            "\n"
        ));
        let lines: Vec<usize> = prompts(&spec(f.path())).unwrap().iter().map(|r| r.line).collect();
        assert_eq!(lines, [2]);
    }

    #[test]
    fn bad_lines_are_named() {
        let f = file("{\"prompt\": \"a\"}\n{\"prompt\": \n");
        let message = prompts(&spec(f.path())).unwrap_err().to_string();
        assert!(message.contains(":2: is not JSON"), "{message}");
        let f = file("{\"text\": \"a\"}\n");
        let message = prompts(&spec(f.path())).unwrap_err().to_string();
        assert!(message.ends_with(":1: has none of the columns \"prompt\", \"messages\", \"chosen\""), "{message}");
        assert!(prompts(&spec(file("").path())).unwrap_err().to_string().ends_with("holds no rows"));
    }

    #[test]
    fn parts_are_disjoint_and_limits_are_fair() {
        let rows: String = (0..200).map(|i| format!("{{\"prompt\": \"p{i}\"}}\n")).collect();
        let f = file(&rows);
        let count = |part| prompts(&DataSpec { part, test_share: 0.2, ..spec(f.path()) }).unwrap().len();
        assert_eq!(count(Part::Train) + count(Part::Test), 200);
        assert!((20..60).contains(&count(Part::Test)));
        let taken = interleave(vec![vec![1; 30], vec![2; 10]], Some(8));
        assert_eq!((taken.len(), taken.iter().filter(|v| **v == 2).count()), (8, 2));
    }
}
