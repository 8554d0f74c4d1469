//! Aligned ratings: answers of a policy, each rated in every objective, as HelpSteer's rows are. Made from rewards where nobody has rated answers.

use super::rows::{plain, samples};
use super::scored::{Asking, Source};
use super::{Makes, Ref, Work, rewards};
use crate::memory::{Footprint, Known};
use crate::names;
use crate::session::{Cx, Session};
use crate::stage::{Stage, objectives};
use crate::{Error, Result};
use motrain_core::data::{DataOptions, Part};
use motrain_core::levels::Levels;
use motrain_core::options::{Checked, Options};
use motrain_core::plan::{GenerationConfig, ModelRef, StageId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Answers to plain prompts, each with a column per objective: the level nearest to its scaled score. What a `reward_model` stage with
/// `attributes` learns from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratings {
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    /// The lowest and the highest rating: scaled scores of 0 and 1.
    #[serde(default = "usual")]
    pub range: Levels,
    /// Completions a prompt.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
    #[serde(default)]
    pub generate: GenerationConfig,
}

fn usual() -> Levels {
    Levels([0, 4])
}

fn one() -> usize {
    1
}

/// Columns of a row that no objective may be called.
const OWN: [&str; 3] = ["prompt", "completion", "finished"];

impl Options for Ratings {
    fn check(&self) -> Checked {
        self.range.check()
    }
}

impl Ratings {
    fn source(&self) -> Source<'_> {
        let Self { policy, prompts, rewards, completions, generate, .. } = self;
        Source { policy, prompts, rewards, completions: *completions, generate }
    }
}

impl Work for Ratings {
    const KIND: &'static str = "ratings";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Ratings];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![Ref::Model(&mut self.policy), Ref::Stage(Makes::Rewards, &mut self.rewards), Ref::Data(&mut self.prompts)]
    }

    fn made_of_rewards(&self) -> Option<&'static str> {
        Some("ratings made of the reward models' scores")
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        self.source().footprint(known, &plain)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let names = objectives(earlier, &self.rewards).unwrap_or_default();
        match names.iter().find(|name| OWN.contains(&name.as_str())) {
            Some(name) => Err(("rewards", format!("have an objective \"{name}\", a column of every row; rename it"))),
            None => Ok(()),
        }
    }
}

/// The share of conversations that is left for a held-out report.
const HELD_OUT: f64 = 0.1;

/// What a `ratings` stage made, as rows to train on. The same hash of a conversation tells its parts apart as those of its prompts, so the
/// share that is left is one of what they cover.
pub fn rows(session: &Session, id: &str) -> Result<DataOptions> {
    let found = session.stages.options(id).and_then(|options| options.downcast_ref::<Ratings>());
    let Ratings { prompts, .. } = found.ok_or_else(|| Error::invalid(format!("\"{id}\" is no ratings stage")))?;
    let (from, to) = match prompts.part {
        Part::All => (0.0, 1.0),
        Part::Train => (prompts.test_share, 1.0),
        Part::Test => (0.0, prompts.test_share),
    };
    let test_share = from + HELD_OUT * (to - from);
    Ok(DataOptions { part: Part::Train, test_share, ..samples(session, id) })
}

fn run(stage: Cx, options: &Ratings) -> Result<()> {
    let names = rewards::of(stage.session, &options.rewards)?.objectives();
    let plainly = Asking { draw: &|_, prompt| plain(prompt), longest: &plain };
    let mut lines = String::new();
    for answer in options.source().answers(stage, &plainly)? {
        let mut line = json!({ "prompt": answer.plain, "completion": answer.completion, "finished": answer.finished });
        for (name, score) in names.iter().zip(answer.scores) {
            line[name] = json!(options.range.rating(score));
        }
        lines += &format!("{line}\n");
    }
    let path = stage.folder().join(names::SAMPLES);
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}
