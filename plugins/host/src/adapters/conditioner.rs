//! Conditioners.

use super::{Function, function, messages, optional};
use crate::call::{Instance, lent};
use crate::room::Room;
use crate::turns::Turns;
use motrain_abi as abi;
use motrain_core::conditioner::Conditioner;
use motrain_core::error::Result;
use motrain_core::{Prompt, Weights};

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
