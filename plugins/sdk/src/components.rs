//! What a plugin implements.

use motrain_abi as abi;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// What components of every kind have. `Sync`, because motrain calls an instance from several threads at once; use a
/// `Mutex` around what changes.
pub trait Component: Sized + Send + Sync + 'static {
    /// By convention `vendor.name`.
    const NAME: &'static str;
    /// One line for `motrain list`.
    const SUMMARY: &'static str;
    /// Made by `options!`.
    type Options: DeserializeOwned + JsonSchema;

    /// An error should name the option at fault. `seed` is the run's.
    fn create(options: Self::Options, seed: u64) -> Result<Self, String>;
}

/// One turn of a conversation.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Message<'a> {
    raw: abi::Message,
    borrowed: std::marker::PhantomData<&'a str>,
}

impl<'a> Message<'a> {
    /// "system", "user" or "assistant".
    pub fn role(&self) -> &'a str {
        // SAFETY: motrain's strings live as long as the call, which 'a does not outlast.
        unsafe { crate::call::text(self.raw.role) }
    }

    /// What was said.
    pub fn content(&self) -> &'a str {
        // SAFETY: as above.
        unsafe { crate::call::text(self.raw.content) }
    }
}

/// A turn that a conditioner makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The turns of a prompt, with `change` applied to the first turn of the user; `None` if there is none or `change` gives none.
pub fn user_turn(prompt: &[Message], change: impl FnOnce(&str) -> Option<String>) -> Option<Vec<Turn>> {
    let at = prompt.iter().position(|m| m.role() == "user")?;
    let mut turns: Vec<Turn> =
        prompt.iter().map(|m| Turn { role: m.role().to_owned(), content: m.content().to_owned() }).collect();
    turns[at].content = change(&turns[at].content)?;
    Some(turns)
}

/// A completion of a plain prompt: rewards never see weights.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// The conversation without weights, its last turn the user's.
    pub prompt: &'a [Message<'a>],
    /// The policy's answer.
    pub completion: &'a str,
    /// The prompt's row of the data file as JSON; empty unless `Reward::NEEDS_ROW`.
    pub row: &'a str,
    /// Whether the policy ended the completion; `false` if it was cut at the length limit.
    pub finished: bool,
}

/// Scores completions for one objective.
pub trait Reward: Component {
    /// Whether `Sample::row` is read.
    const NEEDS_ROW: bool = false;

    /// One finite score per sample, in order; higher is better. An error ends the run with its text.
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String>;
}

/// A reward that cannot score every sample. Every `Reward` is one too: implement either.
pub trait PartialReward: Component {
    /// Whether `Sample::row` is read.
    const NEEDS_ROW: bool = false;

    /// As `Reward::score`, `None` for what has no score: it is left out and counted. Needs a motrain whose interface is 1.3.
    fn score(&self, samples: &[Sample]) -> Result<Vec<Option<f64>>, String>;
}

impl<R: Reward> PartialReward for R {
    const NEEDS_ROW: bool = R::NEEDS_ROW;

    fn score(&self, samples: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        Ok(Reward::score(self, samples)?.into_iter().map(Some).collect())
    }
}

/// Mean rewards that an evaluation found at some weights.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontPoint {
    /// One per objective, adding up to 1.
    pub weights: Vec<f64>,
    /// Mean scaled reward per objective, over the evaluation's prompts.
    pub rewards: Vec<f64>,
}

/// Draws the weights that a prompt is trained under.
pub trait Sampler: Component {
    /// Whether `feedback` is called.
    const WANTS_FEEDBACK: bool = false;

    /// Weights (at least 0, adding up to 1) for the `index`-th prompt of the run. The same `index` and `seed` must give the
    /// same weights, or a resumed run would differ.
    fn sample(&self, objectives: usize, index: u64, seed: u64) -> Result<Vec<f64>, String>;

    /// The front so far, one point per weight vector of a grid.
    fn feedback(&self, _front: &[FrontPoint]) -> Result<(), String> {
        Ok(())
    }
}

/// Writes weights into prompts, in training, evaluation and use alike.
pub trait Conditioner: Component {
    /// The turns of `prompt` with the weights in them, one weight per objective.
    fn render(&self, objectives: &[&str], weights: &[f64], prompt: &[Message]) -> Result<Vec<Turn>, String>;

    /// The inverse: weights and plain prompt, or `None` where the prompt carries no weights.
    fn parse(&self, _objectives: &[&str], _conditioned: &[Message]) -> Option<(Vec<f64>, Vec<Turn>)> {
        None
    }
}

/// Turns two completions' scores and the weights into a preference.
pub trait LabelRule: Component {
    /// The probability that the first completion is better, or `None` for a tie. Scores are scaled, one per objective.
    fn label(&self, weights: &[f64], first: &[f64], second: &[f64]) -> Option<f64>;
}

/// A pair of completions.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The completion's log-prob sum under the policy, in nats.
    pub policy_first: f64,
    /// As `policy_first`.
    pub policy_second: f64,
    /// As `policy_first`, under the reference.
    pub reference_first: f64,
    /// As `policy_first`, under the reference.
    pub reference_second: f64,
    /// Tokens, the end of sequence included.
    pub tokens_first: u32,
    /// As `tokens_first`.
    pub tokens_second: u32,
    /// The probability that the first is better.
    pub label: f64,
    /// The weights that the pair was made under.
    pub weights: &'a [f64],
    /// Scaled score differences, first minus second.
    pub margins: &'a [f64],
}

impl Pair<'_> {
    /// `Δ₊ − Δ₋` in nats.
    pub fn log_ratio_gap(&self) -> f64 {
        (self.policy_first - self.reference_first) - (self.policy_second - self.reference_second)
    }
}

/// A pair's completions under the weights of another pair of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Other {
    /// The completion's log-prob sum under the policy, in nats.
    pub policy_first: f64,
    /// As `policy_first`.
    pub policy_second: f64,
    /// As `policy_first`, under the reference.
    pub reference_first: f64,
    /// As `policy_first`, under the reference.
    pub reference_second: f64,
}

/// A loss and its derivatives in `policy_first` and `policy_second`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// What is averaged over the batch.
    pub loss: f64,
    /// ∂loss/∂`policy_first`.
    pub d_first: f64,
    /// ∂loss/∂`policy_second`.
    pub d_second: f64,
}

/// A loss of pairs of completions, as numbers: motrain back-propagates its derivatives.
pub trait Loss: Component {
    /// The loss of one pair and its derivatives.
    fn evaluate(&self, pair: &Pair) -> PairLoss;

    /// Whether the loss reads the completions' log-probs under other weights, which take another pass.
    const NEEDS_OTHER: bool = false;

    /// The same with those log-probs, and its derivatives in `policy_first` and `policy_second` of `other`. Called where `NEEDS_OTHER` is set,
    /// unless all pairs of the batch have the same weights.
    fn evaluate_with(&self, pair: &Pair, _other: &Other) -> (PairLoss, [f64; 2]) {
        (self.evaluate(pair), [0.0; 2])
    }

    /// β, for implicit rewards in the metrics.
    fn beta(&self) -> f64 {
        1.0
    }
}

/// Two answers to a plain prompt: judges never see weights.
#[derive(Clone, Copy)]
pub struct Duel<'a> {
    /// The conversation without weights, its last turn the user's.
    pub prompt: &'a [Message<'a>],
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

/// Compares answers along one objective or dimension. Needs a motrain whose interface is 1.3.
pub trait Judge: Component {
    /// A verdict per duel, in order; `None` leaves one out, and it is counted. Every duel is asked in both orders, in calls of their own: only a
    /// verdict that names the same answer twice counts. An error ends the run with its text.
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String>;
}
