//! Win rates (paper section 5.2): a judge compares two methods' answers to the same prompts, along one dimension at weights that favour it
//! and along the other at weights that favour that, each asked in both orders.

use super::evaluate::Evaluate;
use super::{Makes, Ref, Work, front};
use crate::files::write_json;
use crate::memory::{Footprint, Known, Parts};
use crate::names;
use crate::obey;
use crate::session::Cx;
use crate::stage::Stage;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::judge::{Asked, Duel, Verdict, in_both_orders, winner};
use motrain_core::metrics::stats::{bootstrap, mean, resamples};
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{Component, StageId};
use motrain_core::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Win rates of one evaluated method against others, by a judge that is asked in both orders (paper section 5.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The id of the method's `evaluate` stage.
    pub method: StageId,
    /// Ids of the others' `evaluate` stages, over the same prompts.
    #[schemars(length(min = 1, max = 1000))]
    pub against: Vec<StageId>,
    /// What is asked, and at which weights: two, as in the paper's rule.
    #[schemars(length(equal = 2))]
    pub dimensions: Vec<Dimension>,
}

/// A dimension along which answers at some weights are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    /// The evaluated weights whose answers are compared, such as [0.8, 0.2].
    pub weights: Weights,
    pub judge: Component,
}

impl Options for Compare {
    fn check(&self) -> Checked {
        let all: Vec<&StageId> = std::iter::once(&self.method).chain(&self.against).collect();
        match (1..all.len()).find(|&i| all[..i].contains(&all[i])) {
            Some(i) => Err(("against", format!("has \"{}\" compared with itself, or twice", all[i]))),
            None => Ok(()),
        }
    }
}

impl Work for Compare {
    const KIND: &'static str = "compare";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let methods = std::iter::once(&mut self.method).chain(&mut self.against).map(|id| Ref::Stage(Makes::Front, id));
        methods.chain(self.dimensions.iter_mut().map(|d| Ref::Component(Kind::Judge, &mut d.judge))).collect()
    }

    fn footprint(&self, _known: &Known) -> Result<Footprint> {
        let mut out = Footprint::default();
        out.moment("asking", Parts::default());
        let servers = self.dimensions.iter().filter(|d| d.judge.options.get("url").is_some());
        out.uncounted
            .extend(servers.map(|d| format!("judge of \"{}\": what its server takes, if it is this machine", d.name)));
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let evaluation = |id: &str| earlier.iter().find(|s| s.id == id)?.work.downcast_ref::<Evaluate>();
        let Some(own) = evaluation(&self.method) else { return Ok(()) };
        for (id, other) in
            std::iter::once(&self.method).chain(&self.against).filter_map(|id| Some((id, evaluation(id)?)))
        {
            if other.prompts != own.prompts {
                let what = format!("names \"{id}\", whose prompts are not those of \"{}\"", self.method);
                return Err(("against", what));
            }
            if other.completions != own.completions {
                let counts = (other.completions, own.completions);
                let what = format!(
                    "names \"{id}\", with {} completions a prompt; \"{}\" has {}",
                    counts.0, self.method, counts.1
                );
                return Err(("against", what));
            }
            if let Some(odd) = self.dimensions.iter().find(|d| !other.is_done_at(&d.weights, earlier)) {
                return Err((
                    "dimensions",
                    format!("hold {:?}, at which \"{id}\" is not evaluated", odd.weights.values()),
                ));
            }
        }
        Ok(())
    }
}

const RESAMPLES: usize = 1000;

/// One method against another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Match {
    pub method: String,
    pub against: String,
    pub prompts: usize,
    pub wins: usize,
    pub losses: usize,
    /// Duels (of each prompt as many as it has answers) that neither wins.
    pub none: usize,
    /// Duels that a judge left out along a dimension; they count nowhere else.
    #[serde(default)]
    pub unjudged: usize,
    /// Wins among duels that someone wins; 0.5 where nobody wins any.
    pub win_rate: f64,
    /// The same with half a win for duels that nobody wins, and its 95 % bootstrap interval over prompts.
    pub win_rate_half: f64,
    pub ci: [f64; 2],
    pub dimensions: Vec<Along>,
}

/// What was asked along one dimension.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Along {
    pub name: String,
    pub wins: usize,
    pub losses: usize,
    pub ties: usize,
    /// Share of duels in which the two orders gave different answers: the judge's preference for a place.
    pub inconsistent: f64,
}

fn run(stage: Cx, options: &Compare) -> Result<()> {
    let bar = stage.progress(options.against.len());
    let mut matches = Vec::new();
    for other in &options.against {
        matches.push(compare(stage, options, other)?);
        bar.inc(1);
        obey()?;
    }
    bar.finish();
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join(names::MATCHES), &json!(matches))
}

fn compare(stage: Cx, options: &Compare, other: &str) -> Result<Match> {
    let mut asked: Vec<Vec<Option<Asked>>> = Vec::new();
    let mut prompts = Vec::new();
    for d in &options.dimensions {
        let judge = stage.session.registry.judges.build(&d.judge.name, &d.judge.options)?;
        let ours = front::answers(stage.session, &options.method, &d.weights)?;
        let theirs = front::answers(stage.session, other, &d.weights)?;
        if ours.len() != theirs.len() || ours.iter().zip(&theirs).any(|(a, b)| a.prompt != b.prompt) {
            let both = format!("\"{}\" and \"{other}\"", options.method);
            return Err(Error::invalid(format!("compare: {both} were not evaluated on the same prompts")));
        }
        prompts = ours.chunk_by(|a, b| a.prompt == b.prompt).map(<[_]>::len).collect();
        let duels: Vec<Duel> = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| Duel { prompt: &a.prompt, first: &a.completion, second: &b.completion })
            .collect();
        let who = format!("judge \"{}\" of \"{}\"", d.judge.name, d.name);
        asked.push(in_both_orders(&who, judge.as_ref(), &duels)?);
    }
    let joined = |(a, b): (&Option<Asked>, &Option<Asked>)| Some(winner([(*a)?.verdict, (*b)?.verdict]));
    let winners: Vec<Option<Verdict>> = asked[0].iter().zip(&asked[1]).map(joined).collect();
    if winners.iter().all(Option::is_none) {
        return Err(Error::invalid(format!("compare: the judges gave no verdict on any of {} prompts", winners.len())));
    }
    let name = |id: &str| Ok::<_, Error>(front::load(&stage.session.stage_folder(id))?.1.name);
    let names = [name(&options.method)?, name(other)?];
    Ok(tally(names, &winners, &prompts, along(options, &asked), stage.session.stages.seed()))
}

fn along(options: &Compare, asked: &[Vec<Option<Asked>>]) -> Vec<Along> {
    let one = |(d, asked): (&Dimension, &Vec<Option<Asked>>)| {
        let asked: Vec<&Asked> = asked.iter().flatten().collect();
        let count = |v: Verdict| asked.iter().filter(|a| a.verdict == v).count();
        let odd = asked.iter().filter(|a| !a.consistent).count();
        Along {
            name: d.name.clone(),
            wins: count(Verdict::First),
            losses: count(Verdict::Second),
            ties: count(Verdict::Tie),
            inconsistent: odd as f64 / asked.len().max(1) as f64,
        }
    };
    options.dimensions.iter().zip(asked).map(one).collect()
}

/// `prompts` are how many of the duels, in their order, each prompt has.
fn tally(
    [method, against]: [String; 2],
    winners: &[Option<Verdict>],
    prompts: &[usize],
    dimensions: Vec<Along>,
    seed: u64,
) -> Match {
    let unjudged = winners.iter().filter(|w| w.is_none()).count();
    let count = |v: Verdict| winners.iter().flatten().filter(|w| **w == v).count();
    let (wins, losses, none) = (count(Verdict::First), count(Verdict::Second), count(Verdict::Tie));
    let point = |w: &Verdict| match w {
        Verdict::First => 1.0,
        Verdict::Second => 0.0,
        Verdict::Tie => 0.5,
    };
    let mut left = winners;
    let mut by_prompt: Vec<Vec<f64>> = Vec::new();
    for &duels in prompts {
        let (own, others) = left.split_at(duels.min(left.len()));
        by_prompt.push(own.iter().flatten().map(point).collect());
        left = others;
    }
    by_prompt.retain(|points| !points.is_empty());
    let resamples = resamples(by_prompt.len(), RESAMPLES, seed);
    let ci = bootstrap(&resamples, |r| mean(&r.iter().flat_map(|&i| by_prompt[i].iter().copied()).collect::<Vec<_>>()));
    let decided = wins + losses;
    let win_rate = if decided == 0 { 0.5 } else { wins as f64 / decided as f64 };
    Match {
        method,
        against,
        prompts: by_prompt.len(),
        wins,
        losses,
        none,
        unjudged,
        win_rate,
        win_rate_half: mean(&by_prompt.concat()),
        ci,
        dimensions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{First, Second, Tie};

    fn of(winners: &[Option<Verdict>]) -> Match {
        tally(["ours", "theirs"].map(str::to_owned), winners, &vec![1; winners.len()], vec![], 3)
    }

    /// Duels of one prompt are no evidence of their own: four of each give an interval twice as wide as as many prompts would.
    #[test]
    fn intervals_are_over_prompts() {
        let known: Vec<_> = (0..200).flat_map(|i| [Some(if i % 2 == 0 { First } else { Second }); 4]).collect();
        let m = tally(["ours", "theirs"].map(str::to_owned), &known, &[4; 200], vec![], 3);
        assert_eq!((m.prompts, m.wins, m.losses), (200, 400, 400));
        assert!((m.win_rate_half - 0.5).abs() < 1e-9);
        let half = 1.96 * 0.5 / 200f64.sqrt();
        assert!([0.5 - m.ci[0], m.ci[1] - 0.5].iter().all(|s| (s / half - 1.0).abs() < 0.2), "{:?}", m.ci);
    }

    #[test]
    fn known_verdicts_give_known_rates() {
        let known = [First, First, First, First, First, First, Second, Second, Tie, Tie].map(Some);
        let m = of(&[known.repeat(20).as_slice(), &[None; 7]].concat());
        assert_eq!((m.prompts, m.wins, m.losses, m.none, m.unjudged), (200, 120, 40, 40, 7));
        assert_eq!((m.win_rate, m.method.as_str(), m.against.as_str()), (0.75, "ours", "theirs"));
        assert!((m.win_rate_half - 0.7).abs() < 1e-12);
        // Half points deviate by 0.4: 1.96 standard errors on each side of the mean.
        let half = 1.96 * 0.4 / 200f64.sqrt();
        let sides = [m.win_rate_half - m.ci[0], m.ci[1] - m.win_rate_half];
        assert!(sides.iter().all(|s| (s / half - 1.0).abs() < 0.2), "{:?}, {half} on each side", m.ci);
        let all = |v: Verdict| of(&[Some(v); 5]);
        assert_eq!((all(First).win_rate, all(Second).win_rate, all(Tie).win_rate), (1.0, 0.0, 0.5));
        assert_eq!((all(Second).ci, all(Tie).win_rate_half), ([0.0, 0.0], 0.5));
    }

    #[test]
    fn each_dimension_is_counted_by_itself() {
        let options = json!({ "method": "a", "against": ["b"], "dimensions": [
            { "name": "one", "weights": [0.8, 0.2], "judge": { "name": "gold" } },
            { "name": "two", "weights": [0.2, 0.8], "judge": { "name": "gold" } },
        ] });
        let options: Compare = serde_json::from_value(options).unwrap();
        let asked = |verdict, consistent| Some(Asked { verdict, consistent });
        let one = vec![asked(First, true), asked(First, true), asked(Tie, false), None];
        let two = vec![asked(Second, true), asked(Tie, true), asked(Tie, false), asked(Tie, false)];
        let found = along(&options, &[one, two]);
        let counts: Vec<_> = found.iter().map(|a| (a.name.as_str(), a.wins, a.losses, a.ties)).collect();
        assert_eq!(counts, [("one", 2, 0, 1), ("two", 0, 1, 3)]);
        assert_eq!((found[0].inconsistent, found[1].inconsistent), (1.0 / 3.0, 0.5));
    }
}
