//! How long rows are: measured with the model's tokenizer where there is one, else bounded.

use super::Shaped;
use crate::Result;
use crate::obey;
use motrain_core::Prompt;
use motrain_core::data::{self, DataOptions};

/// Prompts of a data set.
#[derive(Clone, Copy, Debug)]
pub struct Prompts {
    /// Tokens of the longest.
    pub longest: f64,
    pub count: f64,
}

/// The longest prompt as a policy has `seen` it. Without a tokenizer as long as `max_prompt_tokens`, or as the context leaves room for.
pub fn longest_prompt(
    options: &DataOptions,
    model: &Shaped,
    new_tokens: usize,
    seen: &dyn Fn(&Prompt) -> Result<Prompt>,
) -> Result<Prompts> {
    let rows = data::prompts(options)?;
    let count = rows.len() as f64;
    let Some(tokenizer) = model.tokenizer()? else {
        return Ok(Prompts { longest: bound(options, model, new_tokens), count });
    };
    let mut longest = 0;
    for row in rows {
        obey()?;
        let plain = tokenizer.encode_prompt(&row.prompt)?.len();
        if options.max_prompt_tokens.is_none_or(|most| plain <= most) {
            longest = longest.max(tokenizer.encode_prompt(&seen(&row.prompt)?)?.len());
        }
    }
    Ok(Prompts { longest: longest as f64, count })
}

/// Prompt and answer of the longest demonstration.
pub fn longest_row(options: &DataOptions, model: &Shaped) -> Result<(f64, f64)> {
    let context = model.config.shape.context as usize;
    let Some(tokenizer) = model.tokenizer()? else {
        let prompt = bound(options, model, 1);
        return Ok((prompt, context as f64 - prompt));
    };
    let mut longest = (0, 0);
    for row in data::completions(options)? {
        obey()?;
        let (prompt, answer) = tokenizer.encode_answer(&row.prompt, &row.completion, row.finished)?;
        let (prompt, answer) = (prompt.len(), answer.len());
        let kept = options.max_prompt_tokens.is_none_or(|most| prompt <= most) && prompt + answer <= context;
        if kept && prompt + answer > longest.0 + longest.1 {
            longest = (prompt, answer);
        }
    }
    Ok((longest.0 as f64, longest.1 as f64))
}

/// Prompt, as a policy has `seen` it, and answer of the longest preference pair; the answer is half of both.
pub fn longest_pair(
    options: &DataOptions,
    model: &Shaped,
    seen: &dyn Fn(&Prompt) -> Result<Prompt>,
) -> Result<(f64, f64)> {
    let context = model.config.shape.context as usize;
    let Some(tokenizer) = model.tokenizer()? else {
        let prompt = bound(options, model, 1);
        return Ok((prompt, context as f64 - prompt));
    };
    let mut longest = (0, 0);
    for pair in data::pairs(options)? {
        obey()?;
        let plain = tokenizer.encode_prompt(&pair.prompt)?.len();
        let (prompt, chosen) = tokenizer.encode_answer(&seen(&pair.prompt)?, &pair.chosen, pair.finished[0])?;
        let rejected = tokenizer.encode_answer(&pair.prompt, &pair.rejected, pair.finished[1])?.1;
        let (prompt, answers) = (prompt.len(), chosen.len() + rejected.len());
        let fits = prompt + chosen.len().max(rejected.len()) <= context;
        let kept = fits && options.max_prompt_tokens.is_none_or(|most| plain <= most);
        if kept && prompt + answers > longest.0 + longest.1 {
            longest = (prompt, answers);
        }
    }
    Ok((longest.0 as f64, longest.1 as f64 / 2.0))
}

fn bound(options: &DataOptions, model: &Shaped, new_tokens: usize) -> f64 {
    let context = (model.config.shape.context as f64 - new_tokens as f64).max(1.0);
    options.max_prompt_tokens.map_or(context, |most| context.min(most as f64))
}
