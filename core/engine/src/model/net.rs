//! The network of all families, read top-down: embeddings, layers of attention and MLP, final norm, head.
//!
//! Query, key and value projections are kept as one matrix, gate and up as another: fewer, larger products, which is what a CPU wants.

use super::attention::Masks;
use super::block::{At, Layer, Rotation};
use super::cache::Cache;
use super::changes::{Change, Changes, Dropout, Passing, RowGains};
use super::config::Config;
use super::layers::{Linear, Matrix, Normed};
use super::lora::Lora;
use super::output::Output;
use super::shape::{Norm, QkNorm};
use super::slots::slots_and_head;
use super::soft::Soft;
use super::tape::Tape;
use super::{Adapter, Head, Model};
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// The network in its compute type. Under autograd the cast is part of the graph, so gradients reach the f32 masters.
pub struct Net {
    pub config: Config,
    embed: Tensor,
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    norm: Normed,
    head: Output,
    dtype: Kind,
    /// Blocks of changes, each of which needs a gain.
    blocks: usize,
    soft: Option<Soft>,
    dropout: Option<Dropout>,
    tape: Option<Tape>,
}

/// What a token may attend to.
pub enum Mask<'a> {
    /// Itself and all before it.
    Causal,
    /// Additive, `[batch, 1, queries, keys]`: 0 or −∞.
    Additive(&'a Tensor),
}

/// What all layers of a forward pass share.
pub(super) struct Around {
    masks: Masks,
    rotations: Vec<Rotation>,
}

/// The low-rank changes of a parameter.
type ChangesOf<'a> = &'a dyn Fn(&str) -> Result<Vec<Change>>;

/// Rows of the output head computed at once: bounds the memory for logits.
pub(super) const HEAD_ROWS: i64 = 512;

impl Net {
    pub(super) fn of(model: &Model, dtype: Kind) -> Result<Self> {
        Self::with(model, model.lora.as_ref(), dtype)
    }

    /// The base of a model whose adapter trains, by itself; any other model as it is.
    pub(super) fn of_base(model: &Model, dtype: Kind) -> Result<Self> {
        Self::with(model, None, dtype)
    }

    /// A base with several adapters beside each other, each a block with a gain of its own if they are `gained`.
    pub(super) fn of_adapters(base: &Model, adapters: &[Adapter], gained: bool, dtype: Kind) -> Result<Self> {
        let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
        for slot in slots_and_head(&base.config) {
            let blocks = adapters
                .iter()
                .enumerate()
                .map(|(block, adapter)| adapter.changes(&slot, gained.then_some(block), dtype));
            let own = blocks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
            changes.insert(slot.name, own);
        }
        let changes = RefCell::new(changes);
        let net = Self::build(base, &|slot| Ok(changes.borrow_mut().remove(slot).unwrap_or_default()), None, dtype)?;
        if let Some((slot, _)) = changes.borrow().iter().find(|(_, left)| !left.is_empty()) {
            return Err(Error::invalid(format!("{slot} cannot be changed beside the base; merge the adapter into it")));
        }
        let sets: Vec<&Tensor> = adapters.iter().filter_map(Adapter::soft_tokens).collect();
        if let (Some(without), true) = (adapters.iter().find(|a| a.soft_tokens().is_none()), !sets.is_empty()) {
            return Err(Error::invalid(format!("{}: has no soft tokens, and others beside it have", without.name())));
        }
        Ok(Self { blocks: if gained { adapters.len() } else { 0 }, soft: Soft::of(&sets, dtype)?, ..net })
    }

    fn with(model: &Model, lora: Option<&Lora>, dtype: Kind) -> Result<Self> {
        let changes = |slot: &str| lora.map_or(Ok(vec![]), |lora| lora.changes(slot, dtype));
        let net = Self::build(model, &changes, lora.and_then(Lora::head), dtype)?;
        let soft = lora.map_or(Ok(None), |lora| Soft::of(&lora.soft_sets(), dtype))?;
        Ok(Self { blocks: lora.map_or(0, Lora::blocks), soft, ..net })
    }

    /// `changes` are those of a parameter, `trained` takes the place of the head.
    fn build(model: &Model, changes: ChangesOf, trained: Option<&Tensor>, dtype: Kind) -> Result<Self> {
        let params = model.params.iter().map(|(name, p)| (name.as_str(), p)).collect();
        let params = Reader { params, changes, dtype };
        let (config, names) = (model.config.clone(), model.config.arch.names());
        let shape = &config.shape;
        let layers = (0..shape.layers.len()).map(|i| params.layer(&config, i)).collect::<Result<_>>()?;
        let embed = params.tensor(&format!("{}.weight", names.embed))?;
        let positions = match names.positions.filter(|_| shape.learned_positions) {
            Some(name) => Some(params.tensor(&format!("{name}.weight"))?),
            None => None,
        };
        let norm = params.read_norm(names.norm, shape.norm)?;
        let head = Output::of(&config, &params, &embed, trained)?;
        let (blocks, soft, dropout, tape) = (0, None, None, None);
        Ok(Self { embed, positions, layers, norm, head, config, dtype, blocks, soft, dropout, tape })
    }

    /// The same network, for passes of which nobody asks a gradient: its matrices lie as products are fastest.
    pub(super) fn frozen(mut self) -> Result<Self> {
        if !self.embed.requires_grad() {
            self.layers.iter_mut().try_for_each(Layer::lay_out)?;
            self.head.lay_out()?;
        }
        Ok(self)
    }

    pub fn device(&self) -> Device {
        self.embed.device()
    }

    pub fn dtype(&self) -> Kind {
        self.dtype
    }

    /// Parameters; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let head = if self.config.head == Head::TiedLm { 0 } else { self.head.numel() };
        let positions = self.positions.as_ref().map_or(0, Tensor::numel);
        let layers: usize = self.layers.iter().map(Layer::numel).sum();
        self.embed.numel() + positions + layers + self.norm.numel() + head
    }

    /// Gains that a query must bring: one for each block of changes.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Soft tokens before every prompt.
    pub fn soft_tokens(&self) -> usize {
        self.soft.as_ref().map_or(0, |soft| soft.tokens)
    }

    /// A prompt with room before it for the soft tokens, which take the place of any tokens.
    pub fn with_room(&self, prompt: &[u32]) -> Vec<u32> {
        let room = prompt.first().copied().unwrap_or_default();
        std::iter::repeat_n(room, self.soft_tokens()).chain(prompt.iter().copied()).collect()
    }

    /// Positions that a prompt and its completion have together.
    pub fn context(&self) -> i64 {
        self.config.shape.context - self.soft_tokens() as i64
    }

    pub fn new_cache(&self, batch: i64, capacity: i64) -> Result<Cache> {
        Cache::new(self, batch, capacity)
    }

    /// Hidden states after the final norm, `[batch, length, hidden]`. `ids` and `positions` are `[batch, length]` (i64). With a
    /// cache, its keys and values come first and the new ones are appended. Rows begin with room for the soft tokens (`with_room`).
    pub fn hidden(&self, ids: &Tensor, positions: &Tensor, mask: &Mask, cache: Option<&mut Cache>) -> Result<Tensor> {
        self.hidden_at(ids, positions, mask, cache, &RowGains::default())
    }

    /// The same with a gain of each block of low-rank changes (0: as if it was not there).
    pub fn hidden_at(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        mask: &Mask,
        mut cache: Option<&mut Cache>,
        gains: &RowGains,
    ) -> Result<Tensor> {
        self.check_gains(gains)?;
        if let (Some(tape), None) = (&self.tape, &cache) {
            return tape.hidden(self, ids, positions, mask, gains);
        }
        let keys = cache.as_deref_mut().map(|cache| cache.place(positions)).transpose()?;
        let around = self.around(mask, positions, keys.as_ref().unwrap_or(positions))?;
        let begins = cache.as_ref().is_none_or(|cache| cache.length == 0);
        let (mut x, pass) = (self.embedded(ids, positions, gains, begins)?, self.next_pass());
        for layer in 0..self.layers.len() {
            x = self.block(layer, x, &around, (pass, gains), cache.as_deref_mut())?;
        }
        if let Some(cache) = cache {
            cache.length += ids.size2()?.1;
        }
        self.norm.apply(&x)
    }

    fn check_gains(&self, gains: &RowGains) -> Result<()> {
        let (given, blocks) = (gains.blocks(), self.blocks);
        if given == blocks {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the policy is steered by its parameters: it answers at {blocks} weights, one per objective, and {given} were given"
        )))
    }

    /// What all layers of a forward pass share.
    pub(super) fn around(&self, mask: &Mask, positions: &Tensor, keys: &Tensor) -> Result<Around> {
        let shape = &self.config.shape;
        let rotations = shape.ropes.iter().map(|rope| rope.rotation(positions, self.dtype)).collect::<Result<_>>()?;
        Ok(Around { masks: Masks::new(shape, mask, positions, keys, self.dtype)?, rotations })
    }

    /// One layer's output, `[batch, length, hidden]`. `pass` counts forward passes whose dropout is another; `gains` are its own.
    pub(super) fn block(
        &self,
        index: usize,
        x: Tensor,
        around: &Around,
        (pass, gains): (usize, &RowGains),
        cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let (layer, shape, kind) = (&self.layers[index], &self.config.shape, &self.config.shape.layers[index]);
        let rotation = kind.rope.map(|rope| &around.rotations[rope]);
        let passing = Passing { gains, dropout: self.dropout.as_ref() };
        let at = At { shape, kind, rotation, masks: &around.masks, passing: &passing };
        if let Some(dropout) = &self.dropout {
            dropout.begin(pass, index)?;
        }
        layer.apply(x, &at, cache.map(|cache| (index, cache)))
    }

    /// A number for a forward pass, if passes differ.
    pub(super) fn next_pass(&self) -> usize {
        self.dropout.as_ref().map_or(0, Dropout::next_pass)
    }

    /// The same for a pass through the head, if an adapter changes it.
    pub(super) fn next_head_pass(&self) -> usize {
        if self.head.is_changed() { self.next_pass() } else { 0 }
    }

    pub(super) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The final norm.
    pub(super) fn end(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.apply(x)
    }

    /// The same network, of whose forward passes only the layers' inputs are kept. `backpropagate` computes each layer again.
    pub fn recomputing(mut self) -> Self {
        self.tape = Some(Tape::default());
        self
    }

    /// What is left to do after the gradient of a loss has reached this network's hidden states.
    pub fn backpropagate(&self) -> Result<()> {
        self.tape.as_ref().map_or(Ok(()), |tape| tape.backpropagate(self))
    }

    /// The same network whose low-rank changes do not see a share of their inputs.
    pub fn dropping(mut self, share: f64, seed: u64) -> Self {
        self.dropout = (share > 0.0).then(|| Dropout::new(share, seed));
        self
    }

    /// The log-prob of each target when tokens are drawn at `temperature`, `[rows]` (f32): `hidden` is `[rows, hidden]`, `targets` `[rows]`.
    /// `gains` are those of the rows.
    pub fn log_probs(&self, hidden: &Tensor, targets: &Tensor, temperature: f64, gains: &RowGains) -> Result<Tensor> {
        if let Some(tape) = &self.tape {
            return tape.log_probs(self, hidden, targets, temperature, gains);
        }
        let (rows, pass) = (hidden.size2()?.0, self.next_head_pass());
        let part = |start: i64| self.some_log_probs(hidden, targets, temperature, (start, gains), pass);
        let parts = (0..rows).step_by(HEAD_ROWS as usize).map(part).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// The same of `HEAD_ROWS` rows from `start` on, or of those that are left.
    pub(super) fn some_log_probs(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        (start, gains): (i64, &RowGains),
        pass: usize,
    ) -> Result<Tensor> {
        if let (Some(dropout), true) = (&self.dropout, self.head.is_changed()) {
            dropout.begin(pass, self.depth() + (start / HEAD_ROWS) as usize)?;
        }
        let count = HEAD_ROWS.min(hidden.size2()?.0 - start);
        let gains = gains.part(start, count)?;
        self.check_gains(&gains)?;
        let (hidden, targets) = (hidden.f_narrow(0, start, count)?, targets.f_narrow(0, start, count)?);
        self.head.log_probs(&hidden, &targets, temperature, &Passing { gains: &gains, dropout: self.dropout.as_ref() })
    }

    /// Next-token logits (f32) of hidden states, `[…, vocab]`; the scores `[…, labels]` of a reward model.
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head_at(hidden, &RowGains::default())
    }

    /// The same of rows with gains, `[rows, hidden]`.
    pub fn head_at(&self, hidden: &Tensor, gains: &RowGains) -> Result<Tensor> {
        self.check_gains(gains)?;
        self.head.apply(hidden, &Passing { gains, dropout: self.dropout.as_ref() })
    }

    /// The scores of a gated reward model: see `Output::gated`.
    pub fn gated(&self, ends: &Tensor, prompts: &Tensor) -> Result<Tensor> {
        self.head.gated(ends, prompts, &Passing { gains: &RowGains::default(), dropout: self.dropout.as_ref() })
    }

    /// Embeddings of tokens, with the soft tokens in their room where rows begin.
    pub(super) fn embedded(&self, ids: &Tensor, positions: &Tensor, gains: &RowGains, begins: bool) -> Result<Tensor> {
        let x = Tensor::f_embedding(&self.embed, ids, -1, false, false)?;
        let x = match self.config.shape.embed_scale {
            Some(scale) => x.f_mul(&Tensor::f_from_slice(&[scale])?.f_to_kind(self.dtype)?.f_to_device(x.device())?)?,
            None => x,
        };
        let x = match self.soft.as_ref().filter(|_| begins) {
            Some(soft) => soft.put_into(&x, gains)?,
            None => x,
        };
        match &self.positions {
            Some(table) => Ok(x.f_add(&Tensor::f_embedding(table, positions, -1, false, false)?)?),
            None => Ok(x),
        }
    }
}

/// Takes parameters by name, in the compute type.
pub(super) struct Reader<'a> {
    params: HashMap<&'a str, &'a Tensor>,
    /// What is added to a matrix's product, by the matrix's name.
    changes: ChangesOf<'a>,
    dtype: Kind,
}

impl Reader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        Ok(self.found(name)?.f_to_kind(self.dtype)?)
    }

    /// A parameter in f32.
    pub fn wide(&self, name: &str) -> Result<Tensor> {
        Ok(self.found(name)?.f_to_kind(Kind::Float)?)
    }

    fn found(&self, name: &str) -> Result<&Tensor> {
        self.params.get(name).copied().ok_or_else(|| Error::invalid(format!("the model has no parameter {name}")))
    }

    pub fn read_linear(&self, name: &str, bias: bool) -> Result<Linear> {
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"))?) } else { None };
        let weight = self.tensor(&format!("{name}.weight"))?;
        let changes = self.changes_of(name, weight.size()[0])?;
        Ok(Linear { matrix: Matrix::Plain(weight), bias, changes })
    }

    /// What is added to the product of a matrix with so many rows.
    pub fn changes_of(&self, name: &str, rows: i64) -> Result<Option<Changes>> {
        Changes::of((self.changes)(&format!("{name}.weight"))?, rows)
    }

    fn read_norm(&self, name: &str, kind: Norm) -> Result<Normed> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let bias = matches!(kind, Norm::Layer(_)).then(|| self.tensor(&format!("{name}.bias"))).transpose()?;
        Ok(Normed { kind, weight, bias })
    }

    fn layer(&self, config: &Config, index: usize) -> Result<Layer> {
        let (names, shape) = (config.arch.names(), &config.shape);
        let at = |name: &str| format!("{}.{index}.{name}", names.layers);
        let norm = |name: Option<&str>| name.map(|name| self.read_norm(&at(name), shape.norm)).transpose();
        let qk_norm = |name: &str| self.read_norm(&at(name), shape.norm);
        let [of_q, of_k] = names.qk_norms;
        Ok(Layer {
            before_attention: norm(names.before_attention)?,
            qkv: self.read_linear(&at(names.stacked_qkv()), shape.qkv_bias)?,
            qk_norms: match shape.qk_norm {
                QkNorm::None => None,
                QkNorm::Heads | QkNorm::Whole => Some([qk_norm(of_q)?, qk_norm(of_k)?]),
            },
            o: self.read_linear(&at(names.o), shape.o_bias)?,
            after_attention: norm(names.after_attention)?,
            before_mlp: norm(names.before_mlp)?,
            up: self.read_linear(&at(names.stacked_up()), shape.mlp_bias)?,
            down: self.read_linear(&at(names.down), shape.mlp_bias)?,
            after_mlp: norm(names.after_mlp)?,
        })
    }
}
