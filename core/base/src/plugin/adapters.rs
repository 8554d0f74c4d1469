//! A plugin's instances as motrain's five traits.

use super::call::{Instance, lent};
use super::library::{field, text};
use crate::conditioner::Conditioner;
use crate::error::{Error, Result};
use crate::label::{Label, LabelRule};
use crate::loss::{PairBatch, PairLoss, PairwiseLoss};
use crate::reward::{RewardSource, Sample};
use crate::rng::Rng;
use crate::sampler::{FrontPoint, WeightSampler};
use crate::{Message, Prompt, Weights};
use motrain_abi as abi;
use rand::RngCore;
use std::ffi::c_void;

/// A required function of a component's table.
macro_rules! function {
    ($instance:expr, $table:ty, $name:ident) => {{
        let component = $instance.component;
        // SAFETY: the table lives as long as the library; only what lies inside its struct_size is read.
        let found = unsafe { field!(component.functions.cast::<$table>(), $table, $name) };
        let failed = |what: String| Error::Component { owner: component.owner(), what };
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

impl RewardSource for PluginReward {
    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
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
            })
            .collect();
        let pointers: Vec<*const abi::Sample> = samples.iter().map(std::ptr::from_ref).collect();
        let mut scores = vec![f64::NAN; batch.len()];
        let mut written = 0usize;
        // SAFETY: all arrays have `batch.len()` entries and live through the call.
        self.instance.call(|instance, error| unsafe {
            (self.score)(instance, pointers.as_ptr(), batch.len(), scores.as_mut_ptr(), &mut written, error)
        })?;
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
        let mut weights = vec![f64::NAN; objectives];
        let seed = rng.next_u64();
        // SAFETY: there is room for one weight per objective.
        self.instance.call_named(|instance, error| unsafe {
            (self.sample)(instance, objectives, index, seed, weights.as_mut_ptr(), error)
        })?;
        Weights::new(weights)
            .map_err(|e| Error::Component { owner: self.instance.component.owner(), what: e.to_string() })
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
        self.instance.call_named(|instance, error| unsafe {
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

/// Turns pushed by a plugin; text that is not UTF-8 is an error.
struct Pushed(std::result::Result<Vec<Message>, String>);

impl Pushed {
    fn new() -> Self {
        Self(Ok(Vec::new()))
    }

    unsafe extern "C" fn push(context: *mut c_void, role: abi::Str, content: abi::Str) {
        // SAFETY: `context` is the `Pushed` that outlives the call; the plugin lends both texts.
        unsafe {
            let this = &mut *context.cast::<Self>();
            let turn = text(role, "a role")
                .and_then(|role| Ok(Message { role, content: text(content, "the text of a turn")? }));
            match (turn, &mut this.0) {
                (Ok(turn), Ok(turns)) => turns.push(turn),
                (Err(what), Ok(_)) => this.0 = Err(what),
                (_, Err(_)) => {}
            }
        }
    }

    fn sink(&mut self) -> abi::MessageSink {
        let context: *mut Self = self;
        abi::MessageSink { struct_size: size_of::<abi::MessageSink>(), context: context.cast(), push: Some(Self::push) }
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
        let mut pushed = Pushed::new();
        let sink = pushed.sink();
        // SAFETY: prompt, weights (one per objective) and sink live through the call.
        with_conditioning(objectives, prompt, |conditioning| {
            self.instance.call_named(|instance, error| unsafe {
                (self.render)(instance, conditioning, weights.values().as_ptr(), &sink, error)
            })
        })?;
        let failed = |what: String| Error::Component { owner: self.instance.component.owner(), what };
        let messages = pushed.0.map_err(failed)?;
        if messages.is_empty() {
            return Err(failed("the plugin rendered a prompt without turns".into()));
        }
        Ok(Prompt { messages })
    }

    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let parse = self.parse?;
        let mut weights = vec![f64::NAN; objectives.len()];
        let mut pushed = Pushed::new();
        let sink = pushed.sink();
        // SAFETY: as in `render`, with room for one weight per objective.
        let found = with_conditioning(objectives, conditioned, |conditioning| {
            self.instance
                .call(|instance, error| unsafe { parse(instance, conditioning, weights.as_mut_ptr(), &sink, error) })
        });
        (found == Ok(true)).then_some(())?;
        Some((Weights::new(weights).ok()?, Prompt { messages: pushed.0.ok()? }))
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
        let mut label = f64::NAN;
        // SAFETY: the three arrays have one number per objective.
        let found = self.instance.call_named(|instance, error| unsafe {
            let (k, w) = (weights.len(), weights.values().as_ptr());
            (self.label)(instance, k, w, first.as_ptr(), second.as_ptr(), &mut label, error)
        })?;
        if !found {
            return Ok(Label::Tie);
        }
        Label::probability(label).map_err(|what| Error::Component { owner: self.instance.component.owner(), what })
    }
}

pub struct PluginLoss {
    instance: Instance,
    evaluate: Function<abi::EvaluateLoss>,
    beta: f64,
}

impl PluginLoss {
    pub fn new(instance: Instance) -> Result<Self> {
        let evaluate = function!(instance, abi::LossFns, evaluate);
        let mut beta = 1.0;
        if let Some(read) = optional!(instance, abi::LossFns, beta) {
            // SAFETY: the instance lives.
            instance.call_named(|raw, _| {
                beta = unsafe { read(raw) };
                abi::STATUS_OK
            })?;
        }
        Ok(Self { instance, evaluate, beta })
    }
}

impl PairwiseLoss for PluginLoss {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let n = pairs.len();
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
        };
        let mut out = PairLoss { loss: vec![f64::NAN; n], d_first: vec![f64::NAN; n], d_second: vec![f64::NAN; n] };
        // SAFETY: the arrays have the sizes that `Pairs` states, and there is room for `n` results each.
        self.instance.call_named(|instance, error| unsafe {
            let (loss, first, second) = (out.loss.as_mut_ptr(), out.d_first.as_mut_ptr(), out.d_second.as_mut_ptr());
            (self.evaluate)(instance, &given, loss, first, second, error)
        })?;
        Ok(out)
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
