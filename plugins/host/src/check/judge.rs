//! Judges.

use super::{ORDINARY, Trials, hostile, same};
use motrain_core::Prompt;
use motrain_core::judge::{Asked, Duel, Judge, Verdict, in_both_orders};

/// A prompt and two answers.
type Texts = [String; 3];

fn asked(judge: &dyn Judge, texts: &[Texts]) -> Result<Vec<Option<Asked>>, String> {
    let prompts: Vec<Prompt> = texts.iter().map(|[prompt, ..]| Prompt::user(prompt.clone())).collect();
    let duels: Vec<Duel> =
        prompts.iter().zip(texts).map(|(prompt, [_, first, second])| Duel { prompt, first, second }).collect();
    in_both_orders("the judge", judge, &duels).map_err(|e| e.to_string())
}

fn told(verdicts: &[Option<Asked>]) -> String {
    let one = |asked: &Option<Asked>| match asked {
        None => "left out",
        Some(Asked { consistent: false, .. }) => "by place",
        Some(Asked { verdict: Verdict::First, .. }) => "first",
        Some(Asked { verdict: Verdict::Second, .. }) => "second",
        Some(Asked { verdict: Verdict::Tie, .. }) => "tie",
    };
    format!("asked in both orders: {}", verdicts.iter().map(one).collect::<Vec<_>>().join(", "))
}

pub fn judge(t: &mut Trials, judge: &dyn Judge, again: &dyn Judge) {
    let [good, kind, rude] = ORDINARY;
    let of = |prompt: &str, first: &str, second: &str| [prompt, first, second].map(str::to_owned);
    let texts = [of(good.0, good.1, rude.1), of(kind.0, rude.1, kind.1), of(rude.0, rude.1, rude.1)];
    let Some(ordinary) = t.value("ordinary input", || asked(judge, &texts), |v| told(v)) else { return };
    let hostile = hostile();
    let hostile: Vec<Texts> =
        (0..hostile.len()).map(|i| [i, i, i + 1].map(|at| hostile[at % hostile.len()].clone())).collect();
    t.run("hostile input", || {
        asked(judge, &hostile).map(|v| format!("verdicts on {} of {} duels", v.iter().flatten().count(), v.len()))
    });
    t.run("empty batch", || asked(judge, &[]).map(|_| "no verdicts".into()));
    t.run("repeatable", || asked(again, &texts).and_then(|v| same(v, ordinary.clone())));
    t.run("one by one", || {
        for (text, expected) in texts.iter().zip(&ordinary) {
            if asked(judge, std::slice::from_ref(text))?[0] != *expected {
                return Err("a verdict depends on what else is in the batch".into());
            }
        }
        Ok("as in a batch".into())
    });
}
