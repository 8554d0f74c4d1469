//! Label rules.

use super::{Function, function};
use crate::call::Instance;
use crate::room::Room;
use motrain_abi as abi;
use motrain_core::Weights;
use motrain_core::error::Result;
use motrain_core::label::{Label, LabelRule};

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
