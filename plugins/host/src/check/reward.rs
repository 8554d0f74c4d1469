//! Rewards.

use super::{ORDINARY, Trials, hostile, same};
use motrain_core::Prompt;
use motrain_core::reward::{RewardSource, Sample, score_checked};
use serde_json::json;

type Scores = Vec<Option<f64>>;

fn scores(source: &dyn RewardSource, texts: &[(String, String)], finished: bool) -> Result<Scores, String> {
    let prompts: Vec<Prompt> = texts.iter().map(|(p, _)| Prompt::user(p.clone())).collect();
    let row = json!({ "prompt": "as in the data file", "score": 0.5 });
    let samples: Vec<Sample> = prompts
        .iter()
        .zip(texts)
        .map(|(prompt, (_, completion))| Sample { prompt, completion, finished, row: &row })
        .collect();
    score_checked("checked", source, &samples).map_err(|e| e.to_string())
}

fn told(scores: &[Option<f64>]) -> String {
    let one = |score: &Option<f64>| score.map_or("left out".into(), |score| format!("{score:.4?}"));
    format!("scores [{}]", scores.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn counted(scores: &[Option<f64>]) -> String {
    let scored = scores.iter().flatten().count();
    match scores.len() - scored {
        0 => format!("{scored} texts scored"),
        skipped => format!("{scored} texts scored, {skipped} left out"),
    }
}

fn near(score: Option<f64>, expected: Option<f64>) -> bool {
    match (score, expected) {
        (Some(score), Some(expected)) => (score - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
        (score, expected) => score == expected,
    }
}

pub fn reward(t: &mut Trials, source: &dyn RewardSource, again: &dyn RewardSource) {
    let texts = ORDINARY.map(|(p, c)| (p.to_owned(), c.to_owned()));
    let Some(ordinary) = t.value("ordinary input", || scores(source, &texts, true), |s| told(s)) else { return };
    let hostile: Vec<(String, String)> = hostile().into_iter().map(|text| (text.clone(), text)).collect();
    t.run("hostile input", || scores(source, &hostile, false).map(|s| counted(&s)));
    t.run("empty batch", || scores(source, &[], true).map(|_| "no scores".into()));
    t.run("repeatable", || scores(again, &texts, true).and_then(|s| same(s, ordinary.clone())));
    t.run("one by one", || {
        for (text, expected) in texts.iter().zip(&ordinary) {
            let alone = scores(source, std::slice::from_ref(text), true)?;
            if !near(alone[0], *expected) {
                return Err("a score depends on what else is in the batch".into());
            }
        }
        Ok("as in a batch".into())
    });
}
