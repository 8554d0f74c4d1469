//! Rollouts: completions drawn from a policy, batched.
//!
//! The prompts are read once each, whatever the number of completions. Every completion has its own seed, so that it does not depend on
//! what else is in the batch (up to rounding).

use super::sample::{NOT_FINITE, next_tokens};
use super::{Completion, Completions, Decoder, Query};
use crate::obey;
use crate::tokenizer::Tokenizer;
use crate::{Error, PROFILE, Result};
use motrain_core::plan::GenerationConfig;
use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};
use tch::{Kind, Tensor, no_grad};

/// Rows decoded at once; more only cost memory.
pub const MAX_ROWS: usize = 192;

/// Draws `n` completions of each prompt; `seed(prompt, i)` is that of a prompt's i-th.
pub fn rollout(
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    n: usize,
    seed: impl Fn(usize, usize) -> u64,
    sampling: &GenerationConfig,
) -> Result<Completions> {
    let _part = tracing::trace_span!(target: PROFILE, "rollout", completions = prompts.len() * n).entered();
    for prompt in prompts {
        fits_context(prompt.len(), sampling.max_new_tokens, decoder.context())?;
    }
    // Prompts of similar length share a batch, so that little is padded.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&i| prompts[i].len());
    let mut out: Vec<Vec<Completion>> = vec![Vec::new(); prompts.len()];
    for chunk in order.chunks((MAX_ROWS / n.max(1)).max(1)) {
        let asked: Vec<Query> = chunk.iter().map(|&index| Query { tokens: &prompts[index], index }).collect();
        let row = |slot: usize, i: usize| Row::new(slot, seed(chunk[slot], i));
        let rows = (0..chunk.len()).flat_map(|slot| (0..n).map(move |i| (slot, i))).map(|(slot, i)| row(slot, i));
        for row in no_grad(|| decode(decoder, tokenizer, &asked, rows.collect(), sampling))? {
            let text = tokenizer.decode(&row.tokens)?;
            let Row { prompt, tokens, log_probs, finished, .. } = row;
            out[chunk[prompt]].push(Completion { tokens, log_probs, text, finished });
        }
    }
    Ok(Completions::new(n, out.into_iter().flatten().collect()))
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

/// A completion being drawn: what it answers, its randomness, and what there is of it.
struct Row {
    prompt: usize,
    rng: Rng,
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    finished: bool,
}

impl Row {
    fn new(prompt: usize, seed: u64) -> Self {
        Self { prompt, rng: Rng::seed_from_u64(seed), tokens: vec![], log_probs: vec![], finished: false }
    }
}

/// Draws until all rows are finished or have as many tokens as they may.
fn decode(
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    prompts: &[Query],
    mut rows: Vec<Row>,
    sampling: &GenerationConfig,
) -> Result<Vec<Row>> {
    let source: Vec<usize> = rows.iter().map(|row| row.prompt).collect();
    let prefill = tracing::trace_span!(target: PROFILE, "prefill", prompts = prompts.len()).entered();
    let (mut logits, mut decoding) = decoder.prefill(prompts, &source, sampling.max_new_tokens)?;
    drop(prefill);
    let mut alive: Vec<usize> = (0..rows.len()).collect();
    for step in 0..sampling.max_new_tokens {
        obey()?;
        let _part = tracing::trace_span!(target: PROFILE, "token", rows = alive.len()).entered();
        let uniform: Vec<f32> = alive.iter().map(|&r| rows[r].rng.random()).collect();
        let drawn = next_tokens(&logits, sampling, &uniform)?;
        let (tokens, log_probs): (Vec<i64>, Vec<f32>) =
            (Vec::try_from(&drawn.tokens)?, Vec::try_from(&drawn.log_probs)?);
        if let Some(bad) = tokens.iter().position(|t| *t == NOT_FINITE) {
            let prompt = prompts[rows[alive[bad]].prompt].tokens;
            return Err(not_finite(decoder.dtype(), step, &tokenizer.decode(prompt)?));
        }
        for (i, &r) in alive.iter().enumerate() {
            let (row, token) = (&mut rows[r], tokens[i]);
            if !row.finished {
                row.tokens.push(token as u32);
                row.log_probs.push(log_probs[i]);
                row.finished = tokenizer.eos.contains(&(token as u32));
            }
        }
        let open: Vec<usize> = (0..alive.len()).filter(|&i| !rows[alive[i]].finished).collect();
        if open.is_empty() || step + 1 == sampling.max_new_tokens {
            break;
        }
        // Finished rows are dropped once they are a quarter: dropping copies what is kept of the others.
        let mut input = drawn.tokens;
        if open.len() * 4 <= alive.len() * 3 {
            let keep: Vec<i64> = open.iter().map(|&i| i as i64).collect();
            let keep = Tensor::f_from_slice(&keep)?.f_to_device(decoder.device())?;
            decoding.select(&keep)?;
            input = input.f_index_select(0, &keep)?;
            alive = open.iter().map(|&i| alive[i]).collect();
        }
        logits = decoding.step(&input)?;
    }
    Ok(rows)
}

/// A policy whose logits are no numbers answers nothing; which token would follow is then an accident.
fn not_finite(dtype: Kind, step: usize, prompt: &str) -> Error {
    let prompt = prompt.trim().replace('\n', " ");
    let shown: String = prompt.chars().take(200).collect();
    let mend = match dtype {
        Kind::Float => "lower optimizer.lr, or use an earlier checkpoint",
        _ => "compute in f32 (dtype = \"f32\")",
    };
    Error::invalid(format!(
        "the policy's logits are not finite (NaN or infinite) at new token {} of this prompt: its weights or activations overflow; {mend}\n  {shown}",
        step + 1
    ))
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
