//! Gradient checkpointing (Chen et al. 2016): of a forward pass only the layers' inputs are kept, and each layer is computed again when its gradient is
//! due. The memory of a step is that of one layer, not of all; it takes one forward pass more.
//!
//! No function of autograd's own is needed: the layers run without gradient, and what follows them begins at their output as a leaf. Once the
//! gradient `g` has reached it, the last layer runs again with gradient and `Σ y·g` goes back through it, and so on down to the embeddings. The
//! output head, whose logits are larger than all layers' numbers, does the same some rows at a time.

use super::changes::RowGains;
use super::net::{HEAD_ROWS, Mask, Net};
use crate::{Error, Result};
use std::sync::Mutex;
use tch::{Kind, Tensor, no_grad};

/// What a network has computed that no gradient has gone back through yet.
#[derive(Default)]
pub struct Tape(Mutex<Done>);

#[derive(Default)]
struct Done {
    passes: Vec<Pass>,
    heads: Vec<HeadPass>,
}

struct Pass {
    ids: Tensor,
    positions: Tensor,
    mask: Option<Tensor>,
    gains: RowGains,
    /// Of each layer, `[batch, length, hidden]`.
    inputs: Vec<Tensor>,
    /// Of the last layer: a leaf.
    output: Tensor,
    /// Which of the network's passes it was.
    number: usize,
}

/// Log-probs of targets.
struct HeadPass {
    hidden: Tensor,
    targets: Tensor,
    temperature: f64,
    gains: RowGains,
    /// A leaf.
    output: Tensor,
    /// As of a pass through the layers.
    number: usize,
}

impl Tape {
    /// As `Net::hidden` without a cache.
    pub fn hidden(&self, net: &Net, ids: &Tensor, positions: &Tensor, mask: &Mask, gains: &RowGains) -> Result<Tensor> {
        let mut done = self.0.lock().map_err(|_| failed())?;
        let around = net.around(mask, positions, positions)?;
        let (mut inputs, number) = (Vec::new(), net.next_pass());
        let output = no_grad(|| -> Result<Tensor> {
            let mut x = net.embedded(ids, positions, gains, true)?;
            for layer in 0..net.depth() {
                inputs.push(x.shallow_clone());
                x = net.block(layer, x, &around, (number, gains), None)?;
            }
            Ok(x)
        })?;
        let output = output.f_detach()?.f_set_requires_grad(true)?;
        let ended = net.end(&output)?;
        let mask = match mask {
            Mask::Causal => None,
            Mask::Additive(mask) => Some(mask.shallow_clone()),
        };
        done.passes.push(Pass {
            ids: ids.shallow_clone(),
            positions: positions.shallow_clone(),
            mask,
            gains: gains.share(),
            inputs,
            output,
            number,
        });
        Ok(ended)
    }

    /// As `Net::log_probs`.
    pub fn log_probs(
        &self,
        net: &Net,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        gains: &RowGains,
    ) -> Result<Tensor> {
        let (rows, number) = (hidden.size2()?.0, net.next_head_pass());
        let part = |start: i64| net.some_log_probs(hidden, targets, temperature, (start, gains), number);
        let parts = no_grad(|| (0..rows).step_by(HEAD_ROWS as usize).map(part).collect::<Result<Vec<_>>>())?;
        let output = Tensor::f_cat(&parts, 0)?.f_set_requires_grad(true)?;
        let (hidden, targets) = (hidden.shallow_clone(), targets.shallow_clone());
        let pass =
            HeadPass { hidden, targets, temperature, gains: gains.share(), output: output.shallow_clone(), number };
        self.0.lock().map_err(|_| failed())?.heads.push(pass);
        Ok(output)
    }

    /// Takes the gradients that have reached the layers' outputs back to the parameters.
    pub fn backpropagate(&self, net: &Net) -> Result<()> {
        let Done { passes, heads } = std::mem::take(&mut *self.0.lock().map_err(|_| failed())?);
        let through = heads.iter().map(|head| head.backpropagate(net)).collect::<Result<Vec<_>>>()?;
        let through: Vec<Tensor> = through.into_iter().flatten().collect();
        // In one go: heads may have read the same hidden states.
        if !through.is_empty() {
            Tensor::f_stack(&through, 0)?.f_sum(Kind::Float)?.f_backward()?;
        }
        passes.into_iter().try_for_each(|pass| pass.backpropagate(net))
    }
}

impl HeadPass {
    /// What takes the gradient on from the hidden states, once it has gone through the head.
    fn backpropagate(&self, net: &Net) -> Result<Option<Tensor>> {
        let gradient = self.output.f_grad()?;
        if !gradient.defined() {
            return Ok(None);
        }
        let leaf = self.hidden.f_detach()?.f_set_requires_grad(true)?;
        for start in (0..leaf.size2()?.0).step_by(HEAD_ROWS as usize) {
            let part = net.some_log_probs(&leaf, &self.targets, self.temperature, (start, &self.gains), self.number)?;
            let own = gradient.f_narrow(0, start, part.size1()?)?;
            part.f_mul(&own)?.f_sum(Kind::Float)?.f_backward()?;
        }
        Ok(Some(self.hidden.f_mul(&leaf.f_grad()?)?.f_sum(Kind::Float)?))
    }
}

impl Pass {
    fn backpropagate(mut self, net: &Net) -> Result<()> {
        let mask = self.mask.as_ref().map_or(Mask::Causal, Mask::Additive);
        let around = net.around(&mask, &self.positions, &self.positions)?;
        let mut gradient = self.output.f_grad()?;
        for layer in (0..net.depth()).rev() {
            let Some(input) = self.inputs.pop().filter(|_| gradient.defined()) else { break };
            let leaf = input.f_detach()?.f_set_requires_grad(true)?;
            let output = net.block(layer, leaf.shallow_clone(), &around, (self.number, &self.gains), None)?;
            output.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
            gradient = leaf.f_grad()?;
        }
        let embedded = net.embedded(&self.ids, &self.positions, &self.gains, true)?;
        if embedded.requires_grad() && gradient.defined() {
            embedded.f_mul(&gradient)?.f_sum(Kind::Float)?.f_backward()?;
        }
        Ok(())
    }
}

fn failed() -> Error {
    Error::invalid("a forward pass failed before")
}
