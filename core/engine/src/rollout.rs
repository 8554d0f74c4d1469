//! Rollouts: completions drawn from a policy, batched and with a key-value cache.
//!
//! The prompts are padded on the right and read once each, whatever the number of completions; padding slots in the cache are masked
//! while decoding. Every completion has its own seed, so that it does not depend on what else is in the batch (up to rounding).

use crate::model::{Cache, Mask, Net};
use crate::plan::Sampling;
use crate::sample::{NOT_FINITE, next_tokens};
use crate::session::obey;
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::data;
use motrain_core::reward::Sample;
use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};
use tch::{Device, Kind, Tensor, no_grad};

/// One drawn completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Tokens, with the end-of-sequence token if it was drawn.
    pub tokens: Vec<u32>,
    pub text: String,
    /// Whether the policy ended it, rather than the length limit.
    pub finished: bool,
}

impl Completion {
    /// What rewards see of it, as an answer to a plain prompt.
    pub fn sample<'a>(&'a self, row: &'a data::Row) -> Sample<'a> {
        Sample { prompt: &row.prompt, completion: &self.text, finished: self.finished, row: &row.columns }
    }
}

/// Rows decoded at once; more only cost memory.
const MAX_ROWS: usize = 192;

/// Draws `seeds[i].len()` completions for each prompt, unless `stop` is set meanwhile. Returns them prompt by prompt.
pub fn rollout(
    net: &Net,
    text: &Text,
    prompts: &[Vec<u32>],
    seeds: &[Vec<u64>],
    sampling: &Sampling,
) -> Result<Vec<Vec<Completion>>> {
    for prompt in prompts {
        fits_context(prompt.len(), sampling.max_new_tokens, net.config.context)?;
    }
    // Prompts of similar length share a batch, so that little is padded.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&i| prompts[i].len());
    let mut out: Vec<Vec<Completion>> = vec![Vec::new(); prompts.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        let mut rows = seeds[order[start]].len();
        while end < order.len() && rows + seeds[order[end]].len() <= MAX_ROWS {
            rows += seeds[order[end]].len();
            end += 1;
        }
        let chunk = &order[start..end];
        let drawn = no_grad(|| decode(net, text, chunk, prompts, seeds, sampling))?;
        for (&prompt, completions) in chunk.iter().zip(drawn) {
            out[prompt] = completions;
        }
        start = end;
    }
    Ok(out)
}

/// Refuses a prompt that leaves no room for its completion.
pub fn fits_context(prompt: usize, new: usize, context: i64) -> Result<()> {
    if prompt == 0 {
        return Err(Error::invalid("a prompt has no tokens"));
    }
    let total = prompt.checked_add(new).and_then(|total| i64::try_from(total).ok());
    if total.is_none_or(|total| total > context) {
        return Err(Error::invalid(format!(
            "a prompt of {prompt} tokens and {new} new tokens do not fit the model's context of {context}; \
             lower generate.max_new_tokens, or leave long prompts out with max_prompt_tokens"
        )));
    }
    Ok(())
}

/// A row being decoded: where its result goes, its position and its randomness.
struct Row {
    prompt: usize,
    length: usize,
    rng: Rng,
    tokens: Vec<u32>,
    finished: bool,
}

fn decode(
    net: &Net,
    text: &Text,
    chunk: &[usize],
    prompts: &[Vec<u32>],
    seeds: &[Vec<u64>],
    sampling: &Sampling,
) -> Result<Vec<Vec<Completion>>> {
    let device = net.device();
    let longest = chunk.iter().map(|&i| prompts[i].len()).max().unwrap_or(0);
    let capacity = (longest + sampling.max_new_tokens) as i64;
    let (last_hidden, prompt_cache) = prefill(net, text, chunk, prompts, longest)?;

    let mut rows: Vec<Row> = Vec::new();
    let mut source: Vec<i64> = Vec::new();
    for (slot, &i) in chunk.iter().enumerate() {
        for &seed in &seeds[i] {
            let length = prompts[i].len();
            rows.push(Row { prompt: slot, length, rng: Rng::seed_from_u64(seed), tokens: vec![], finished: false });
            source.push(slot as i64);
        }
    }
    let source = Tensor::f_from_slice(&source)?.f_to_device(device)?;
    let mut cache = prompt_cache.select(&source, capacity)?;
    let mut holes = hole_mask(&rows, longest, capacity, device)?;
    let mut logits = net.head(&last_hidden)?.f_index_select(0, &source)?;
    let mut alive: Vec<usize> = (0..rows.len()).collect();

    for step in 0..sampling.max_new_tokens {
        obey()?;
        let uniform: Vec<f32> = alive.iter().map(|&r| rows[r].rng.random()).collect();
        let drawn = next_tokens(&logits, sampling, &uniform)?;
        let tokens: Vec<i64> = Vec::try_from(&drawn)?;
        if let Some(bad) = tokens.iter().position(|t| *t == NOT_FINITE) {
            let prompt = &prompts[chunk[rows[alive[bad]].prompt]];
            return Err(not_finite(net.kind(), step, &text.decode(prompt)?));
        }
        for (&r, &token) in alive.iter().zip(&tokens) {
            let row = &mut rows[r];
            if !row.finished {
                row.tokens.push(token as u32);
                row.finished = text.eos.contains(&(token as u32));
            }
        }
        let open: Vec<usize> = (0..alive.len()).filter(|&i| !rows[alive[i]].finished).collect();
        if open.is_empty() || step + 1 == sampling.max_new_tokens {
            break;
        }
        // Finished rows are dropped once they are a quarter: dropping copies the cache.
        let mut input = drawn;
        if open.len() * 4 <= alive.len() * 3 {
            let keep: Vec<i64> = open.iter().map(|&i| i as i64).collect();
            let keep = Tensor::f_from_slice(&keep)?.f_to_device(device)?;
            cache = cache.select(&keep, capacity)?;
            holes = holes.map(|h| h.f_index_select(0, &keep)).transpose()?;
            input = input.f_index_select(0, &keep)?;
            alive = open.iter().map(|&i| alive[i]).collect();
        }
        let positions: Vec<i64> = alive.iter().map(|&r| (rows[r].length + step) as i64).collect();
        let positions = Tensor::f_from_slice(&positions)?.f_to_device(device)?.f_unsqueeze(1)?;
        let visible = holes.as_ref().map(|h| h.f_narrow(3, 0, cache.length + 1)).transpose()?;
        let mask = visible.as_ref().map_or(Mask::Causal, Mask::Additive);
        let hidden = net.hidden(&input.f_unsqueeze(1)?, &positions, &mask, Some(&mut cache))?;
        logits = net.head(&hidden.f_squeeze_dim(1)?)?;
    }

    let mut out: Vec<Vec<Completion>> = vec![Vec::new(); chunk.len()];
    for row in rows {
        let text = text.decode(&row.tokens)?;
        out[row.prompt].push(Completion { tokens: row.tokens, text, finished: row.finished });
    }
    Ok(out)
}

/// A policy whose logits are no numbers answers nothing; which token would follow is then an accident.
fn not_finite(kind: Kind, step: usize, prompt: &str) -> Error {
    let prompt = prompt.trim().replace('\n', " ");
    let shown: String = prompt.chars().take(200).collect();
    let mend = match kind {
        Kind::Float => "lower optimizer.lr, or use an earlier checkpoint",
        _ => "compute in f32 (dtype = \"f32\")",
    };
    Error::invalid(format!(
        "the policy's logits are not finite (NaN or infinite) at new token {} of this prompt: its weights or activations overflow; {mend}\n  {shown}",
        step + 1
    ))
}

/// Reads the prompts. Returns the hidden state of each prompt's last token, `[prompts, hidden]`, and the cache.
fn prefill(net: &Net, text: &Text, chunk: &[usize], prompts: &[Vec<u32>], longest: usize) -> Result<(Tensor, Cache)> {
    let device = net.device();
    let mut ids = vec![i64::from(text.pad); chunk.len() * longest];
    let mut last = Vec::with_capacity(chunk.len());
    for (row, &i) in chunk.iter().enumerate() {
        for (slot, &token) in ids[row * longest..].iter_mut().zip(&prompts[i]) {
            *slot = i64::from(token);
        }
        last.push((row * longest + prompts[i].len() - 1) as i64);
    }
    let shape = [chunk.len() as i64, longest as i64];
    let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?;
    let positions = Tensor::f_arange(longest as i64, (Kind::Int64, device))?.f_unsqueeze(0)?.f_expand(shape, false)?;
    let mut cache = net.new_cache(shape[0], shape[1])?;
    let hidden = net.hidden(&ids, &positions, &Mask::Causal, Some(&mut cache))?;
    let last = Tensor::f_from_slice(&last)?.f_to_device(device)?;
    let hidden = hidden.f_reshape([-1, net.config.hidden_size])?.f_index_select(0, &last)?;
    Ok((hidden, cache))
}

/// −∞ on the padding slots between a short prompt's end and the first new token, `[rows, 1, 1, capacity]`; `None` without padding.
fn hole_mask(rows: &[Row], longest: usize, capacity: i64, device: Device) -> Result<Option<Tensor>> {
    if rows.iter().all(|r| r.length == longest) {
        return Ok(None);
    }
    let mut mask = vec![0f32; rows.len() * capacity as usize];
    for (r, row) in rows.iter().enumerate() {
        let start = r * capacity as usize;
        mask[start + row.length..start + longest].fill(f32::NEG_INFINITY);
    }
    Ok(Some(Tensor::f_from_slice(&mask)?.f_view([rows.len() as i64, 1, 1, capacity])?.f_to_device(device)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_overflow_do_not_fit() {
        assert!(fits_context(8, 8, 16).is_ok());
        for (prompt, new, context) in
            [(9, 8, 16), (8, usize::MAX, 16), (usize::MAX, 1, i64::MAX), (1, 1 << 62, 1 << 30)]
        {
            assert!(
                fits_context(prompt, new, context).unwrap_err().to_string().contains("do not fit"),
                "{prompt} {new}"
            );
        }
    }
}
