//! tokenizer.json and tokenizer_config.json from the tokens, merges and settings in a GGUF file.

use crate::Result;
use crate::gguf::{Gguf, Meta};
use crate::model::Config;
use crate::tokenizer::Tokenizer;
use motrain_core::Prompt;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Tokens whose text alone makes llama.cpp end an answer there.
const ENDS: [&str; 17] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<turn|>",
    "[e~[",
    "<｜end▁of▁sentence｜>",
];

/// Special tokens by id.
pub struct Ids {
    pub bos: Option<i64>,
    /// Every token at which llama.cpp ends an answer, the one that `eos_token_id` names first.
    pub eos: Vec<i64>,
    pub pad: Option<i64>,
}

pub fn ids(gguf: &Gguf, tokens: &[String]) -> Result<Ids> {
    let id = |name: &str| -> Result<Option<i64>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match gguf.int(&key)? {
            Some(id) if id < 0 || id >= tokens.len() as i64 => Err(gguf.error(format!(
                "says {key} = {id}, and has {} tokens; set it to a token or leave it out",
                tokens.len()
            ))),
            found => Ok(found),
        }
    };
    let mut eos = Vec::new();
    for name in ["eos", "eot", "eom"] {
        eos.extend(id(name)?);
    }
    if eos.is_empty() {
        return Err(gguf.error("has no metadata \"tokenizer.ggml.eos_token_id\", so that no answer would end"));
    }
    eos.extend(tokens.iter().enumerate().filter(|(_, t)| ENDS.contains(&t.as_str())).map(|(i, _)| i as i64));
    let mut seen = HashSet::new();
    eos.retain(|id| seen.insert(*id));
    Ok(Ids { bos: id("bos")?, eos, pad: id("padding")? })
}

/// How text is split before it becomes tokens: a family of pre-tokenizers that llama.cpp treats alike.
struct Family {
    names: &'static [&'static str],
    split: Split,
    /// A word that is a token is that token, whatever the merges say; and prompts begin with the first token unless told otherwise.
    llama3: bool,
}

enum Split {
    /// GPT-2's pattern, which byte-level tokenizers know by themselves.
    Gpt2,
    /// Each digit alone, then GPT-2's pattern.
    Digits,
    /// Words as in Llama 3, with at most so many digits together.
    Words(&'static str),
}

const FAMILIES: [Family; 4] = [
    Family { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais"], split: Split::Gpt2, llama3: false },
    Family { names: &["smollm", "starcoder", "refact", "command-r", "codeshell"], split: Split::Digits, llama3: false },
    Family { names: &["llama-bpe", "llama3", "llama-v3", "falcon3"], split: Split::Words("{1,3}"), llama3: true },
    Family { names: &["qwen2", "stablelm2"], split: Split::Words(""), llama3: false },
];

fn family(gguf: &Gguf) -> Result<&'static Family> {
    let pre = gguf.text("tokenizer.ggml.pre")?.unwrap_or_default();
    let all = "\"gpt-2\", \"smollm\", \"llama-bpe\", \"qwen2\" and their like are known";
    FAMILIES.iter().find(|f| f.names.contains(&pre)).ok_or_else(|| match pre {
        "" => gguf.error(format!(
            "does not say how text is split into words (tokenizer.ggml.pre): {all}; convert the model again with a newer llama.cpp"
        )),
        other => gguf.error(format!("has a \"{other}\" pre-tokenizer (tokenizer.ggml.pre); {all}")),
    })
}

impl Split {
    fn to_json(&self) -> Value {
        let byte_level = |pattern: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": pattern});
        let sequence = |first: Value, last: Value| json!({"type": "Sequence", "pretokenizers": [first, last]});
        match self {
            Split::Gpt2 => byte_level(true),
            Split::Digits => sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true)),
            Split::Words(digits) => {
                let words = format!(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                );
                let split =
                    json!({"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false});
                sequence(split, byte_level(false))
            }
        }
    }
}

/// The tokenizer with its settings.
pub fn read(gguf: &Gguf, tokens: &[String], config: &Config) -> Result<Tokenizer> {
    let model = gguf.need_text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(gguf.error(format!("has a \"{model}\" tokenizer; \"gpt2\" (byte-level BPE) is known")));
    }
    let family = family(gguf)?;
    let token = |id: Option<i64>| id.and_then(|id| tokens.get(id as usize)).cloned();
    let (bos, eos) = (token(config.bos), token(config.eos.first().copied()));
    let begins = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(family.llama3);
    if begins && bos.is_none() {
        return Err(gguf.error("says that prompts begin with the token bos_token_id, and has none; set tokenizer.ggml.add_bos_token to false"));
    }
    let first = bos.as_ref().filter(|_| begins);
    let json = tokenizer_json(gguf, tokens, config, family, first)?;
    let inner = tokenizers::Tokenizer::from_bytes(json.to_string())
        .map_err(|e| gguf.error(format!("holds no usable tokenizer (tokenizer.ggml.tokens, merges): {e}")))?;
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": token(config.pad).or(eos.clone()),
        "model_max_length": config.shape.context,
        "clean_up_tokenization_spaces": false,
    });
    let template = gguf.text("tokenizer.chat_template")?.map(str::to_owned);
    let eos: Vec<u32> = config.eos.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
    let make = |template: Option<String>| {
        Tokenizer::new(inner.clone(), settings.clone(), template, eos.clone(), config).map_err(|what| gguf.error(what))
    };
    let tokenizer = make(template.clone())?;
    // llama.cpp puts the first token before what a template writes, unless the template has written it.
    match (template, first) {
        (Some(template), Some(first))
            if tokenizer.render(&Prompt::user("x")).is_ok_and(|t| !t.starts_with(first.as_str())) =>
        {
            make(Some(format!("{{{{ bos_token }}}}{template}")))
        }
        _ => Ok(tokenizer),
    }
}

fn tokenizer_json(
    gguf: &Gguf,
    tokens: &[String],
    config: &Config,
    family: &Family,
    first: Option<&String>,
) -> Result<Value> {
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    if vocab.len() < tokens.len() {
        return Err(gguf.error("has a token twice in tokenizer.ggml.tokens"));
    }
    let begin = first.zip(config.bos).map(|(token, id)| {
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
        json!({
            "type": "TemplateProcessing",
            "single": [special, sequence("A")],
            "pair": [special, sequence("A"), special, sequence("B")],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        })
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(gguf, tokens)?,
        "normalizer": null,
        "pre_tokenizer": family.split.to_json(),
        "post_processor": begin,
        "decoder": Split::Gpt2.to_json(),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": family.llama3,
                  "vocab": vocab, "merges": gguf.texts("tokenizer.ggml.merges")?},
    }))
}

/// Tokens that are found in text before it is split: control tokens, which answers do not show, and those of the user, which they do.
fn added(gguf: &Gguf, tokens: &[String]) -> Result<Vec<Value>> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let types = gguf.list(KEY)?.unwrap_or_else(|| vec![Meta::Int(1); tokens.len()]);
    if types.len() != tokens.len() {
        return Err(gguf.error(format!("has {} types in {KEY} for {} tokens", types.len(), tokens.len())));
    }
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(&types).enumerate() {
        let special = match kind {
            _ if ENDS.contains(&token.as_str()) => true,
            // Unknown and control tokens, then the user's.
            Meta::Int(2 | 3) => true,
            Meta::Int(4) => false,
            // Normal tokens, unused ones, bytes.
            Meta::Int(1 | 5 | 6) => continue,
            other => {
                return Err(gguf.error(format!("has the type {other:?} in {KEY} for token {id}; 1 to 6 are known")));
            }
        };
        added.push(json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": special}));
    }
    Ok(added)
}
