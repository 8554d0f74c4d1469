//! Soft tokens (prompt tuning; Lester et al. 2021): learned embeddings before every prompt, a set for each objective. A query sees their mean by its
//! weights. Each set is saved as PEFT's PROMPT_TUNING.

use super::adapter::{CONFIG, WEIGHTS};
use super::changes::RowGains;
use super::config::Config;
use super::peft::LoraConfig;
use super::save::write_tensors;
use super::weights::Tensors;
use crate::fields::{Fields, Said};
use crate::files::write_json;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

/// The name of PEFT's tensor.
const EMBEDDINGS: &str = "prompt_embeddings";

/// Where soft tokens lie in the folder of an adapter that changes matrices too.
pub const BESIDE: &str = "soft_tokens";

/// The sets of all objectives, `[objectives, tokens · hidden]`, in the type of computing.
pub struct Soft {
    sets: Tensor,
    pub tokens: usize,
}

impl Soft {
    /// Of sets `[tokens, hidden]`; nothing where there are none.
    pub fn of(sets: &[&Tensor], dtype: Kind) -> Result<Option<Self>> {
        let Some(first) = sets.first() else { return Ok(None) };
        let tokens = first.size()[0];
        if let Some(other) = sets.iter().find(|set| set.size() != first.size()) {
            let what = format!("soft tokens of shapes {:?} and {:?} cannot be mixed", first.size(), other.size());
            return Err(Error::invalid(what));
        }
        let flat =
            sets.iter().map(|set| set.f_to_kind(dtype)?.f_reshape([-1])).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Some(Self { sets: Tensor::f_stack(&flat, 0)?, tokens: tokens as usize }))
    }

    /// In the place of the first embeddings of each row, `[batch, length, hidden]`.
    pub fn put_into(&self, x: &Tensor, gains: &RowGains) -> Result<Tensor> {
        let (batch, length, hidden) = x.size3()?;
        let tokens = self.tokens as i64;
        if length < tokens {
            return Err(Error::invalid(format!("a row of {length} tokens has no room for {tokens} soft tokens")));
        }
        let shares = gains.shares(batch)?.f_to_kind(x.f_kind()?)?;
        let mixed = shares.f_mm(&self.sets)?.f_reshape([batch, tokens, hidden])?;
        Ok(Tensor::f_cat(&[mixed, x.f_narrow(1, tokens, length - tokens)?], 1)?)
    }
}

/// Refuses models in which soft tokens mean one thing to some libraries and another to others.
pub(super) fn check(model: &Config) -> std::result::Result<(), String> {
    match model.shape.embed_scale {
        None => Ok(()),
        Some(_) => Err(format!(
            "soft_tokens: the {} family scales its embeddings, and versions of transformers differ in whether soft tokens are scaled; take \
             gains = \"copies\" instead",
            model.arch.model_type()
        )),
    }
}

/// Writes a set `[tokens, hidden]` as a PEFT folder.
pub(super) fn save(folder: &Path, model: &Config, base: &Value, set: &Tensor) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let said = json!({
        "base_model_name_or_path": base,
        "inference_mode": true,
        "num_attention_heads": model.shape.heads,
        "num_layers": model.shape.layers.len(),
        "num_transformer_submodules": 1,
        "num_virtual_tokens": set.size()[0],
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": null,
        "task_type": "CAUSAL_LM",
        "token_dim": model.shape.hidden_size,
        "tokenizer_name_or_path": null,
    });
    write_json(&folder.join(CONFIG), &said)?;
    write_tensors(&folder.join(WEIGHTS), &[(EMBEDDINGS.to_owned(), set.f_detach()?)], Kind::Float)
}

/// Fields that change nothing once soft tokens are trained.
const HARMLESS: [&str; 12] = [
    "auto_mapping",
    "inference_mode",
    "num_attention_heads",
    "num_layers",
    "peft_version",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "revision",
    "task_type",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
];

/// The fields of adapter_config.json behind its type.
pub(super) fn parse(mut f: Fields) -> Said<LoraConfig> {
    let (base, tokens) = (f.take("base_model_name_or_path")?, f.need("num_virtual_tokens")?);
    if f.take::<i64>("num_transformer_submodules")?.is_some_and(|n| n != 1) {
        return Err("says num_transformer_submodules other than 1, and a decoder has one".into());
    }
    f.harmless(&HARMLESS);
    match f.left().first() {
        Some((_, said)) => Err(format!("says {said}, which motrain does not do with soft tokens")),
        None => Ok(LoraConfig::of_soft_tokens(base, tokens)),
    }
}

/// The set that an adapter's file holds, of so many tokens.
pub(super) fn read(mut tensors: Tensors, tokens: i64) -> Said<Tensor> {
    let set = tensors.remove(EMBEDDINGS).ok_or_else(|| format!("has no {EMBEDDINGS}"))?;
    if let Some(odd) = tensors.keys().next() {
        return Err(format!("holds {odd} beside {EMBEDDINGS}"));
    }
    match set.size()[..] {
        [found, _] if found == tokens && found > 0 => Ok(set),
        _ => Err(format!(
            "holds {EMBEDDINGS} {:?}, and adapter_config.json says {tokens} tokens (num_virtual_tokens)",
            set.size()
        )),
    }
}
