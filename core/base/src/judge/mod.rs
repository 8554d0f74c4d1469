//! Judges: which of two answers is better along one dimension (the paper's autorater, section 5.2).

use crate::stop;
use crate::{Error, Prompt, Result};

/// Two answers to a plain prompt.
pub struct Duel<'a> {
    /// What both answer, without weights.
    pub prompt: &'a Prompt,
    /// The answer that is shown first.
    pub first: &'a str,
    /// The answer that is shown second.
    pub second: &'a str,
}

/// Which of two answers is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither.
    Tie,
}

/// Compares answers. It may prefer a place, such as the first: whoever asks does so in both orders.
pub trait Judge: Send + Sync {
    /// A verdict per duel, in order, `None` where the judge left one out; the message of what went wrong otherwise.
    fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String>;
}

/// What asking in both orders gives: a verdict that names the same answer both times, else a tie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of both orders.
    pub verdict: Verdict,
    /// Whether the two answers agreed (a tie both times included).
    pub consistent: bool,
}

/// Asks a judge twice, with the answers swapped the second time; `None` for duels that it left out in either order. `who` is the judge in
/// errors: `judge "chat" of "Helpfulness"`.
pub fn in_both_orders(who: &str, judge: &dyn Judge, duels: &[Duel]) -> Result<Vec<Option<Asked>>> {
    let swapped: Vec<Duel> =
        duels.iter().map(|d| Duel { prompt: d.prompt, first: d.second, second: d.first }).collect();
    let ask = |duels: &[Duel]| {
        let verdicts = judge.judge(duels).map_err(|e| stop::or(Error::Invalid(format!("{who} failed: {e}"))))?;
        if verdicts.len() == duels.len() {
            return Ok(verdicts);
        }
        Err(Error::Invalid(format!("{who} gave {} verdicts for {} duels", verdicts.len(), duels.len())))
    };
    let joined = |(straight, swapped): (Verdict, Verdict)| match (straight, swapped) {
        (Verdict::First, Verdict::Second) => Asked { verdict: Verdict::First, consistent: true },
        (Verdict::Second, Verdict::First) => Asked { verdict: Verdict::Second, consistent: true },
        (a, b) => Asked { verdict: Verdict::Tie, consistent: a == Verdict::Tie && b == Verdict::Tie },
    };
    Ok(ask(duels)?.into_iter().zip(ask(&swapped)?).map(|(a, b)| Some(joined((a?, b?)))).collect())
}

/// Who wins a prompt: better on one dimension and not worse on the other (paper section 5.2).
pub fn winner(dimensions: [Verdict; 2]) -> Verdict {
    let won = |who: Verdict| dimensions.contains(&who) && dimensions.iter().all(|d| *d == who || *d == Verdict::Tie);
    [Verdict::First, Verdict::Second].into_iter().find(|who| won(*who)).unwrap_or(Verdict::Tie)
}

#[cfg(test)]
mod tests {
    use super::Verdict::{First, Second, Tie};
    use super::*;

    #[test]
    fn the_papers_nine_rows() {
        let rows = [
            (First, First, First),
            (First, Tie, First),
            (Tie, First, First),
            (First, Second, Tie),
            (Second, First, Tie),
            (Tie, Tie, Tie),
            (Second, Tie, Second),
            (Tie, Second, Second),
            (Second, Second, Second),
        ];
        for (one, two, wins) in rows {
            assert_eq!(winner([one, two]), wins, "{one:?} {two:?}");
        }
    }

    struct AlwaysFirst;

    impl Judge for AlwaysFirst {
        fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
            Ok(vec![Some(First); duels.len()])
        }
    }

    struct Longest;

    impl Judge for Longest {
        fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
            let by_length = |d: &Duel| match d.first.len().cmp(&d.second.len()) {
                std::cmp::Ordering::Greater => First,
                std::cmp::Ordering::Less => Second,
                std::cmp::Ordering::Equal => Tie,
            };
            Ok(duels.iter().map(|d| Some(by_length(d))).collect())
        }
    }

    #[test]
    fn a_judge_that_always_says_first_yields_only_ties() {
        let prompt = Prompt::user("Why?");
        let duels =
            [("a", "bb"), ("ccc", "d"), ("e", "f")].map(|(first, second)| Duel { prompt: &prompt, first, second });
        let tie = Asked { verdict: Tie, consistent: false };
        assert_eq!(in_both_orders("it", &AlwaysFirst, &duels).unwrap(), vec![Some(tie); 3]);
        let by_length: Vec<Verdict> =
            in_both_orders("it", &Longest, &duels).unwrap().iter().flatten().map(|a| a.verdict).collect();
        assert_eq!(by_length, [Second, First, Tie]);
    }

    struct Half;

    impl Judge for Half {
        fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
            Ok(vec![None; duels.len() / 2])
        }
    }

    #[test]
    fn a_wrong_count_is_refused_by_name() {
        let prompt = Prompt::user("Why?");
        let duels = [("a", "b"), ("c", "d")].map(|(first, second)| Duel { prompt: &prompt, first, second });
        let said = in_both_orders("judge \"half\"", &Half, &duels).unwrap_err().to_string();
        assert_eq!(said, "judge \"half\" gave 1 verdicts for 2 duels");
    }
}
