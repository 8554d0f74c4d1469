//! Log-probs of completions under a policy.
//!
//! The completions of one prompt are packed behind it in one row, `[prompt, completion 1, completion 2, …]`; a mask keeps them from seeing
//! each other and positions restart after the prompt. So the prompt is computed once, and only completion positions reach
//! the output head.

use crate::model::{Mask, Net, RowGains};
use crate::{Error, Result};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// A prompt and its completions, as tokens.
pub struct Group<'a> {
    pub prompt: &'a [u32],
    pub completions: Vec<&'a [u32]>,
}

/// Groups packed into tensors.
pub struct Packed {
    ids: Tensor,
    positions: Tensor,
    mask: Tensor,
    /// Flat positions whose hidden state predicts the targets, `[targets]`.
    predictors: Tensor,
    targets: Tensor,
    /// Flat position of each completion's last token, `[completions]`.
    ends: Tensor,
    /// Flat position of each prompt's last token, `[groups]`.
    prompt_ends: Tensor,
    /// Target tokens per completion, groups in order.
    lengths: Vec<i64>,
    /// The tokens at all flat positions, and where each completion and its prompt lie.
    tokens: Vec<i64>,
    spans: Vec<Span>,
    /// Of each group; none for a model without blocks of changes.
    gains: RowGains,
}

struct Span {
    prompt: Range<usize>,
    completion: Range<usize>,
}

/// Packs groups, padding rows on the right with `pad`.
pub fn pack(groups: &[Group], pad: u32, device: Device) -> Result<Packed> {
    let total = |g: &Group| g.prompt.len() + g.completions.iter().map(|c| c.len()).sum::<usize>();
    let width = groups.iter().map(total).max().unwrap_or(0);
    let mut ids = vec![i64::from(pad); groups.len() * width];
    let mut positions = vec![0i64; groups.len() * width];
    // Segment 0 is the prompt; padding gets one of its own, which attends to itself only.
    let mut segments = vec![-1i64; groups.len() * width];
    let (mut predictors, mut targets, mut ends, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut prompt_ends, mut spans) = (Vec::new(), Vec::new());
    for (row, group) in groups.iter().enumerate() {
        let base = row * width;
        for (i, &token) in group.prompt.iter().enumerate() {
            ids[base + i] = i64::from(token);
            positions[base + i] = i as i64;
            segments[base + i] = 0;
        }
        let mut start = base + group.prompt.len();
        prompt_ends.push(start as i64 - 1);
        for (segment, completion) in group.completions.iter().enumerate() {
            for (i, &token) in completion.iter().enumerate() {
                ids[start + i] = i64::from(token);
                positions[start + i] = (group.prompt.len() + i) as i64;
                segments[start + i] = segment as i64 + 1;
                predictors.push(if i == 0 { base + group.prompt.len() - 1 } else { start + i - 1 } as i64);
                targets.push(i64::from(token));
            }
            lengths.push(completion.len() as i64);
            let prompt = base..base + group.prompt.len();
            spans.push(Span { prompt, completion: start..start + completion.len() });
            start += completion.len();
            ends.push(start as i64 - 1);
        }
    }
    let shape = [groups.len() as i64, width as i64];
    let grid = |data: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(data)?.f_view(shape)?.f_to_device(device)?) };
    let list = |data: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(data)?.f_to_device(device)?) };
    Ok(Packed {
        ids: grid(&ids)?,
        positions: grid(&positions)?,
        mask: segment_mask(&grid(&segments)?)?,
        predictors: list(&predictors)?,
        targets: list(&targets)?,
        ends: list(&ends)?,
        prompt_ends: list(&prompt_ends)?,
        lengths,
        tokens: ids,
        spans,
        gains: RowGains::default(),
    })
}

/// A token sees earlier tokens of the prompt and of its own segment, `[rows, 1, width, width]`.
fn segment_mask(segments: &Tensor) -> Result<Tensor> {
    let (_, width) = segments.size2()?;
    let device = segments.device();
    let (query, key) = (segments.f_unsqueeze(2)?, segments.f_unsqueeze(1)?);
    let same = query.f_eq_tensor(&key)?.f_logical_or(&key.f_eq(0)?)?;
    let causal = Tensor::f_ones([width, width], (Kind::Bool, device))?.f_tril(0)?;
    let allowed = same.f_logical_and(&causal)?;
    let mask = Tensor::f_zeros(allowed.size(), (Kind::Float, device))?;
    Ok(mask.f_masked_fill(&allowed.f_logical_not()?, f64::NEG_INFINITY)?.f_unsqueeze(1)?)
}

impl Packed {
    /// The same groups, each with its gains of blocks of low-rank changes.
    pub fn gained(self, gains: &[&[f64]]) -> Result<Self> {
        Ok(Self { gains: RowGains::of_rows(gains, self.ids.device())?, ..self })
    }

    /// Tokens that pass through the network, padding included.
    pub fn tokens(&self) -> usize {
        self.ids.numel()
    }

    /// Hidden states of all positions, `[rows · width, hidden]`; differentiable.
    pub fn hidden(&self, net: &Net) -> Result<Tensor> {
        let hidden = net.hidden_at(&self.ids, &self.positions, &Mask::Additive(&self.mask), None, &self.gains)?;
        Ok(hidden.f_reshape([-1, net.config.shape.hidden_size])?)
    }

    /// A reward model's scores of each completion, read at its last token, `[completions, labels]` (f32).
    pub fn scores(&self, net: &Net) -> Result<Tensor> {
        net.head(&self.hidden(net)?.f_index_select(0, &self.ends)?)
    }

    /// The same of a gated reward model, and the gated sum behind them, `[completions, labels + 1]`: its gate reads the token with which
    /// `opening` begins for the last time.
    pub fn gated_scores(&self, net: &Net, opening: &[u32]) -> Result<Tensor> {
        let hidden = self.hidden(net)?;
        let openings = self.spans.iter().map(|span| self.last(span, opening)).collect::<Result<Vec<_>>>()?;
        let openings = Tensor::f_from_slice(&openings)?.f_to_device(net.device())?;
        net.gated(&hidden.f_index_select(0, &self.ends)?, &hidden.f_index_select(0, &openings)?)
    }

    /// The flat position at which `pattern` begins for the last time.
    fn last(&self, span: &Span, pattern: &[u32]) -> Result<i64> {
        let places: Vec<usize> = span.prompt.clone().chain(span.completion.clone()).collect();
        let is = |window: &[usize]| window.iter().zip(pattern).all(|(&at, &id)| self.tokens[at] == i64::from(id));
        let found = places.windows(pattern.len().max(1)).rposition(is);
        found.map(|i| places[i] as i64).ok_or_else(|| {
            Error::invalid(format!(
                "a text of {} tokens does not hold the tokens {pattern:?}, with which the reward model's gate finds the end of the prompt: \
                 raise max_tokens",
                places.len()
            ))
        })
    }

    /// Log-prob of each target token when sampling at `temperature`, `[targets]` (f32): end-of-sequence tokens count, prompt and padding
    /// do not.
    pub fn token_log_probs(&self, net: &Net, temperature: f64) -> Result<Tensor> {
        self.log_probs_of(net, &self.hidden(net)?, temperature)
    }

    /// The hidden state at the end of each prompt, on the host.
    pub fn prompt_states(&self, hidden: &Tensor) -> Result<Vec<Vec<f64>>> {
        let states = hidden.f_detach()?.f_index_select(0, &self.prompt_ends)?;
        let width = states.size2()?.1 as usize;
        Ok(to_vec(&states.f_reshape([-1])?)?.chunks(width).map(<[f64]>::to_vec).collect())
    }

    /// The same from hidden states that are computed already.
    pub fn log_probs_of(&self, net: &Net, hidden: &Tensor, temperature: f64) -> Result<Tensor> {
        let rows = self.predictors.f_floor_divide_scalar(self.ids.size2()?.1)?;
        let gains = self.gains.select(&rows)?;
        net.log_probs(&hidden.f_index_select(0, &self.predictors)?, &self.targets, temperature, &gains)
    }

    /// Sums token log-probs per completion, `[completions]`.
    pub fn sums(&self, token_log_probs: &Tensor) -> Result<Tensor> {
        let parts = token_log_probs.f_split_with_sizes(&self.lengths, 0)?;
        let sums = parts.iter().map(|p| p.f_sum(Kind::Float)).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Tensor::f_stack(&sums, 0)?)
    }
}

/// Copies a 1-D tensor of numbers that a network computed to the host. They are finite, or nothing that follows from them means anything.
pub fn to_vec(t: &Tensor) -> Result<Vec<f64>> {
    let values = to_vec_unchecked(t)?;
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values),
        Some(at) => Err(Error::invalid(format!(
            "the model computed {} (value {} of {}: a log-prob, score or state): its weights or activations overflow; lower optimizer.lr, or \
             compute in f32 (dtype = \"f32\"); the last checkpoint is kept",
            values[at],
            at + 1,
            values.len()
        ))),
    }
}

/// The same where the caller says what is wrong with a number.
pub fn to_vec_unchecked(t: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(t.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?)?)
}
