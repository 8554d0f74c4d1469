//! A plugin's instances as motrain's five traits.

use super::call::{Instance, lent};
use super::describe::field;
use super::room::Room;
use super::turns::Turns;
use motrain_abi as abi;
use motrain_core::conditioner::Conditioner;
use motrain_core::error::Result;
use motrain_core::label::{Label, LabelRule};
use motrain_core::loss::{Other, PairBatch, PairLoss, PairwiseLoss};
use motrain_core::reward::{RewardSource, Sample};
use motrain_core::rng::Rng;
use motrain_core::sampler::{FrontPoint, WeightSampler};
use motrain_core::{Prompt, Weights, stop};
use rand::RngCore;

/// A required function of a component's table.
macro_rules! function {
    ($instance:expr, $table:ty, $name:ident) => {{
        let component = $instance.component;
        let failed = |what: String| $instance.failed(what);
        // SAFETY: the table lives as long as the library; only what lies inside its struct_size is read.
        let found = unsafe { field!(component.functions.cast::<$table>(), $table, $name) };
        found.map_err(failed)?.ok_or_else(|| failed(format!("has no function \"{}\"", stringify!($name))))?
    }};
}

/// An optional one: absent, or beyond the table's end.
macro_rules! optional {
    ($instance:expr, $table:ty, $name:ident) => {
        // SAFETY: as above.
        unsafe { field!($instance.component.functions.cast::<$table>(), $table, $name) }.ok().flatten()
    };
}

/// The function behind one of the interface's pointer types.
type Function<T> = <T as Pointer>::Function;
pub trait Pointer {
    type Function;
}
impl<F> Pointer for Option<F> {
    type Function = F;
}

pub struct PluginReward {
    instance: Instance,
    score: Function<abi::Score>,
    needs_row: bool,
}

impl PluginReward {
    pub fn new(instance: Instance) -> Result<Self> {
        let needs_row = instance.component.flags & abi::FLAG_NEEDS_ROW != 0;
        Ok(Self { score: function!(instance, abi::RewardFns, score), instance, needs_row })
    }
}

/// Samples a call: between two of them a signal is obeyed.
const SCORED_AT_ONCE: usize = 32;

impl RewardSource for PluginReward {
    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        let (first, rest) = batch.split_at(batch.len().min(SCORED_AT_ONCE));
        let mut scores = self.score_some(first)?;
        for some in rest.chunks(SCORED_AT_ONCE) {
            stop::obey().map_err(|e| e.to_string())?;
            scores.extend(self.score_some(some)?);
        }
        Ok(scores)
    }
}

impl PluginReward {
    fn score_some(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        let row = |s: &Sample| if self.needs_row { s.row.to_string() } else { String::new() };
        let rows: Vec<String> = batch.iter().map(row).collect();
        let prompts: Vec<Vec<abi::Message>> = batch.iter().map(|s| messages(s.prompt)).collect();
        let samples: Vec<abi::Sample> = batch
            .iter()
            .zip(&prompts)
            .zip(&rows)
            .map(|((s, prompt), row)| abi::Sample {
                struct_size: size_of::<abi::Sample>(),
                prompt: prompt.as_ptr(),
                prompt_count: prompt.len(),
                completion: lent(s.completion),
                row: lent(row),
                finished: u32::from(s.finished),
            })
            .collect();
        let pointers: Vec<*const abi::Sample> = samples.iter().map(std::ptr::from_ref).collect();
        let mut scores = Room::new(batch.len());
        let mut written = 0usize;
        let out = scores.as_mut_ptr();
        // SAFETY: all arrays have `batch.len()` entries and live through the call.
        self.instance.call("score", |instance, error| unsafe {
            (self.score)(instance, pointers.as_ptr(), batch.len(), out, &mut written, error)
        })?;
        let scores = scores.take()?;
        if written != batch.len() {
            return Err(format!("the plugin gave {written} scores for {} completions", batch.len()));
        }
        Ok(scores)
    }
}

fn messages(prompt: &Prompt) -> Vec<abi::Message> {
    prompt.messages.iter().map(|m| abi::Message { role: lent(&m.role), content: lent(&m.content) }).collect()
}

pub struct PluginSampler {
    instance: Instance,
    sample: Function<abi::SampleWeights>,
    feedback: abi::Feedback,
}

impl PluginSampler {
    pub fn new(instance: Instance) -> Result<Self> {
        let sample = function!(instance, abi::SamplerFns, sample);
        let feedback = optional!(instance, abi::SamplerFns, feedback);
        Ok(Self { instance, sample, feedback })
    }
}

impl WeightSampler for PluginSampler {
    fn sample(&self, objectives: usize, index: u64, rng: &mut Rng) -> Result<Weights> {
        let mut weights = Room::new(objectives);
        let seed = rng.next_u64();
        let out = weights.as_mut_ptr();
        // SAFETY: there is room for one weight per objective.
        self.instance.call_named("sample", |instance, error| unsafe {
            (self.sample)(instance, objectives, index, seed, out, error)
        })?;
        let weights = weights.take().map_err(|what| self.instance.failed(what))?;
        Weights::new(weights).map_err(|e| self.instance.failed(e.to_string()))
    }

    fn wants_feedback(&self) -> bool {
        self.feedback.is_some()
    }

    fn feedback(&self, front: &[FrontPoint]) -> Result<()> {
        let (Some(feedback), Some(first)) = (self.feedback, front.first()) else { return Ok(()) };
        let weights: Vec<f64> = front.iter().flat_map(|p| p.weights.values().to_vec()).collect();
        let rewards: Vec<f64> = front.iter().flat_map(|p| p.rewards.clone()).collect();
        let objectives = first.weights.len();
        // SAFETY: both arrays have `points × objectives` numbers.
        self.instance.call_named("feedback", |instance, error| unsafe {
            feedback(instance, objectives, front.len(), weights.as_ptr(), rewards.as_ptr(), error)
        })?;
        Ok(())
    }
}

pub struct PluginConditioner {
    instance: Instance,
    render: Function<abi::Render>,
    parse: abi::Parse,
}

impl PluginConditioner {
    pub fn new(instance: Instance) -> Result<Self> {
        let render = function!(instance, abi::ConditionerFns, render);
        let parse = optional!(instance, abi::ConditionerFns, parse);
        Ok(Self { instance, render, parse })
    }
}

/// Calls `body` with a prompt and its objectives.
fn with_conditioning<R>(objectives: &[String], prompt: &Prompt, body: impl FnOnce(&abi::Conditioning) -> R) -> R {
    let names: Vec<abi::Str> = objectives.iter().map(|o| lent(o)).collect();
    let turns = messages(prompt);
    body(&abi::Conditioning {
        struct_size: size_of::<abi::Conditioning>(),
        messages: turns.as_ptr(),
        message_count: turns.len(),
        objectives: names.as_ptr(),
        objective_count: names.len(),
    })
}

impl Conditioner for PluginConditioner {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let turns = Turns::begin();
        let sink = turns.sink();
        with_conditioning(objectives, prompt, |conditioning| {
            // SAFETY: prompt, weights (one per objective) and sink live through the call.
            self.instance.call_named("render", |instance, error| unsafe {
                (self.render)(instance, conditioning, weights.values().as_ptr(), &sink, error)
            })
        })?;
        let messages = turns.end().map_err(|what| self.instance.failed(what))?;
        if messages.is_empty() {
            return Err(self.instance.failed("the plugin rendered a prompt without turns"));
        }
        Ok(Prompt { messages })
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let parse = self.parse?;
        let mut weights = Room::new(objectives.len());
        let turns = Turns::begin();
        let sink = turns.sink();
        let out = weights.as_mut_ptr();
        let found = with_conditioning(objectives, conditioned, |conditioning| {
            // SAFETY: as in `render`, with room for one weight per objective.
            self.instance.call("parse", |instance, error| unsafe { parse(instance, conditioning, out, &sink, error) })
        });
        let messages = turns.end();
        (found == Ok(true)).then_some(())?;
        Some((Weights::new(weights.take().ok()?).ok()?, Prompt { messages: messages.ok()? }))
    }
}

pub struct PluginLabel {
    instance: Instance,
    label: Function<abi::LabelPair>,
}

impl PluginLabel {
    pub fn new(instance: Instance) -> Result<Self> {
        Ok(Self { label: function!(instance, abi::LabelFns, label), instance })
    }
}

impl LabelRule for PluginLabel {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        let mut label = Room::new(1);
        let out = label.as_mut_ptr();
        // SAFETY: the three arrays have one number per objective.
        let found = self.instance.call_named("label", |instance, error| unsafe {
            let (k, w) = (weights.len(), weights.values().as_ptr());
            (self.label)(instance, k, w, first.as_ptr(), second.as_ptr(), out, error)
        })?;
        let label = label.take().map_err(|what| self.instance.failed(what))?;
        if !found {
            return Ok(Label::Tie);
        }
        Label::probability(label[0]).map_err(|what| self.instance.failed(what))
    }
}

pub struct PluginLoss {
    instance: Instance,
    evaluate: Function<abi::EvaluateLoss>,
    beta: f64,
    needs_other: bool,
}

impl PluginLoss {
    pub fn new(instance: Instance) -> Result<Self> {
        let evaluate = function!(instance, abi::LossFns, evaluate);
        let mut beta = 1.0;
        if let Some(read) = optional!(instance, abi::LossFns, beta) {
            instance.call_named("beta", |raw, _| {
                // SAFETY: the instance lives.
                beta = unsafe { read(raw) };
                abi::STATUS_OK
            })?;
        }
        if !beta.is_finite() {
            return Err(instance.failed(format!("its beta is {beta}; it must be a finite number")));
        }
        let needs_other = instance.component.flags & abi::FLAG_NEEDS_OTHER != 0;
        Ok(Self { instance, evaluate, beta, needs_other })
    }
}

impl PairwiseLoss for PluginLoss {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let n = pairs.len();
        let other = pairs.other.as_ref().filter(|_| self.needs_other);
        let told = |pick: fn(&Other) -> &Vec<f64>| other.map_or(std::ptr::null(), |other| pick(other).as_ptr());
        let mut by_other = other.map(|_| [Room::new(n), Room::new(n)]);
        let [d_other_first, d_other_second] =
            by_other.as_mut().map_or([std::ptr::null_mut(); 2], |rooms| rooms.each_mut().map(Room::as_mut_ptr));
        let given = abi::Pairs {
            struct_size: size_of::<abi::Pairs>(),
            count: n,
            objectives: pairs.weights.len() / n.max(1),
            policy_first: pairs.policy_first.as_ptr(),
            policy_second: pairs.policy_second.as_ptr(),
            reference_first: pairs.reference_first.as_ptr(),
            reference_second: pairs.reference_second.as_ptr(),
            tokens_first: pairs.tokens_first.as_ptr(),
            tokens_second: pairs.tokens_second.as_ptr(),
            label: pairs.label.as_ptr(),
            weights: pairs.weights.as_ptr(),
            margins: pairs.margins.as_ptr(),
            other_policy_first: told(|other| &other.policy_first),
            other_policy_second: told(|other| &other.policy_second),
            other_reference_first: told(|other| &other.reference_first),
            other_reference_second: told(|other| &other.reference_second),
            d_other_first,
            d_other_second,
        };
        let (mut loss, mut first, mut second) = (Room::new(n), Room::new(n), Room::new(n));
        let out = (loss.as_mut_ptr(), first.as_mut_ptr(), second.as_mut_ptr());
        // SAFETY: the arrays have the sizes that `Pairs` states, and there is room for `n` results each.
        self.instance.call_named("evaluate", |instance, error| unsafe {
            (self.evaluate)(instance, &given, out.0, out.1, out.2, error)
        })?;
        let results = |what: &str, room: Room| {
            let values = room.take().map_err(|wrong| self.instance.failed(format!("{what}: {wrong}")))?;
            // Training computes with f32.
            match values.iter().position(|v| !(*v as f32).is_finite()) {
                Some(at) => Err(self.instance.failed(format!(
                    "gave the {what} {:?} for pair {} of {n}; it must be a finite number",
                    values[at],
                    at + 1
                ))),
                None => Ok(values),
            }
        };
        let mut out = PairLoss {
            loss: results("loss", loss)?,
            d_first: results("derivative d_first", first)?,
            d_second: results("derivative d_second", second)?,
            ..PairLoss::default()
        };
        if let Some([first, second]) = by_other {
            out.d_other_first = results("derivative d_other_first", first)?;
            out.d_other_second = results("derivative d_other_second", second)?;
        }
        Ok(out)
    }

    fn needs_other(&self) -> bool {
        self.needs_other
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
