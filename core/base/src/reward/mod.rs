//! Reward sources. They score plain text (the prompt without weights, and the completion), so any tokenizer or language
//! may stand behind them.

mod column;
mod length;
mod lexicon;
mod pattern;

use crate::Prompt;
use crate::error::{Error, Result};
use crate::registry::Builtin;
use crate::shown::quoted;
use crate::stop;
use serde_json::Value;

/// What a reward source sees of one completion.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// The plain prompt, never the conditioned one.
    pub prompt: &'a Prompt,
    /// The policy's answer.
    pub completion: &'a str,
    /// Whether the policy ended the completion; `false` if it was cut at the length limit.
    pub finished: bool,
    /// The prompt's row in the data file, with all its columns.
    pub row: &'a Value,
}

/// Scores completions along one objective; higher is better.
pub trait RewardSource: Send + Sync {
    /// One raw score per sample, in order. An error names what failed; the caller adds which reward it was.
    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String>;

    /// Whether it may be scored beside other rewards; not if it uses all cores by itself.
    fn beside_others(&self) -> bool {
        true
    }

    /// Whether it can score answers to this row; asked of every row before any work.
    fn check_row(&self, _row: &Value) -> std::result::Result<(), String> {
        Ok(())
    }

    /// As `score`, for sources that may leave out samples (a remote one whose policy is to skip failures, a plugin that says so).
    fn score_where_possible(&self, batch: &[Sample]) -> std::result::Result<Vec<Option<f64>>, String> {
        Ok(self.score(batch)?.into_iter().map(Some).collect())
    }
}

/// The scores of a source that may leave none out here.
pub fn all(scores: Vec<Option<f64>>) -> std::result::Result<Vec<f64>, String> {
    scores.into_iter().collect::<Option<_>>().ok_or_else(|| "left out samples".into())
}

/// What the core brings; a new reward is a file and a name here.
pub const BUILTINS: &[Builtin<dyn RewardSource>] =
    &[length::BUILTIN, lexicon::BUILTIN, pattern::BUILTIN, column::BUILTIN];

/// Scores a batch and refuses a failing source, a wrong count and anything that is not a number; `None` where a source left out a
/// sample.
pub fn score_checked(name: &str, source: &dyn RewardSource, batch: &[Sample]) -> Result<Vec<Option<f64>>> {
    let failed = |what: String| Error::RewardSource { reward: name.into(), what };
    let scores = source.score_where_possible(batch).map_err(|e| stop::or(failed(format!("failed: {e}"))))?;
    if scores.len() != batch.len() {
        return Err(failed(format!("gave {} scores for {} completions", scores.len(), batch.len())));
    }
    match scores.iter().position(|s| s.is_some_and(|s| !s.is_finite())) {
        None => Ok(scores),
        Some(i) => Err(Error::Reward {
            reward: name.into(),
            what: format!(
                "gave {} for this completion; a score must be a finite number",
                scores[i].unwrap_or(f64::NAN)
            ),
            prompt: batch[i].prompt.one_line(),
            completion: quoted(batch[i].completion),
        }),
    }
}

/// Lower-case words of a text.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use serde_json::json;

    fn score(name: &str, options: Value, completion: &str, row: Value) -> std::result::Result<Vec<f64>, String> {
        let prompt = Prompt::user("p");
        let source = Registry::builtin().rewards.build(name, &options).map_err(|e| e.to_string())?;
        source.score(&[Sample { prompt: &prompt, completion, finished: true, row: &row }])
    }

    #[test]
    fn builtin_rewards() {
        assert_eq!(score("length", json!({}), "one two three", Value::Null).unwrap(), [3.0]);
        assert_eq!(
            score("length", json!({"unit": "characters", "target": 5}), "1234567", Value::Null).unwrap(),
            [-2.0]
        );
        let lexicon = json!({"words": {"good": 1, "bad": -2}});
        assert_eq!(score("lexicon", lexicon.clone(), "Good, good. Bad!", Value::Null).unwrap(), [0.0]);
        let per_word = json!({"words": {"good": 1}, "per_word": true});
        assert_eq!(score("lexicon", per_word, "good one", Value::Null).unwrap(), [0.5]);
        assert_eq!(score("regex", json!({"pattern": "(?i)sorry"}), "Sorry, sorry", Value::Null).unwrap(), [2.0]);
        assert_eq!(score("column", json!({"column": "s"}), "x", json!({"s": 0.25})).unwrap(), [0.25]);
        assert!(score("regex", json!({"pattern": "("}), "x", Value::Null).unwrap_err().contains("option \"pattern\""));
    }

    #[test]
    fn a_column_without_a_number_says_what_it_has() {
        let column = |row: Value| {
            let prompt = Prompt::user("why?");
            let source = Registry::builtin().rewards.build("column", &json!({"column": "score"})).unwrap();
            let sample = Sample { prompt: &prompt, completion: "x", finished: true, row: &row };
            let scores = source.score_where_possible(&[sample]);
            assert_eq!(scores.as_ref().err(), source.check_row(&row).as_ref().err());
            scores.map(|s| s[0])
        };
        assert_eq!(column(json!({"score": u64::MAX})), Ok(Some(u64::MAX as f64)));
        assert_eq!(column(json!({"score": null})), Ok(None));
        assert_eq!(
            column(json!({"score": "0.5"})).unwrap_err(),
            "column \"score\" is the text \"0.5\"; a score is a number without quotes, or null where there is none"
        );
        assert_eq!(
            column(json!({"scores": 1})).unwrap_err(),
            "the row has no column \"score\", only \"scores\"; did you mean \"score\"? (write null in rows without a score)"
        );
    }

    struct Broken(Vec<f64>);
    impl RewardSource for Broken {
        fn score(&self, _batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn refuses_nan_and_wrong_counts() {
        let prompt = Prompt::user("why?");
        let sample = Sample { prompt: &prompt, completion: "because", finished: true, row: &Value::Null };
        let nan = score_checked("r", &Broken(vec![f64::NAN]), &[sample]).unwrap_err().to_string();
        assert_eq!(
            nan,
            "reward \"r\" gave NaN for this completion; a score must be a finite number\n  prompt:     [user] why?\n  completion: because"
        );
        let count = score_checked("r", &Broken(vec![1.0, 2.0]), &[sample]).unwrap_err().to_string();
        assert_eq!(count, "reward \"r\" gave 2 scores for 1 completions");
    }
}
