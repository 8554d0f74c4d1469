//! `config.json` of the Llama family, as `transformers` reads it: each field is done, known to change nothing, or refused by its name; one
//! that no Llama model has a meaning for is named.

use super::config::{Config, Head};
use crate::fields::{Fields, Said};
use serde_json::{Map, Value};

/// Fields that say nothing of what is computed.
const HARMLESS: [&str; 36] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "attn_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "dtype",
    "finetuning_task",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "max_sequence_length",
    "model_max_length",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    // Another order of the same sums.
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// How text was once sampled: transformers 5 leaves this out of config.json too, and reads generation_config.json.
const SAMPLING: [&str; 31] = [
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Fields by which other families, or other programs, compute something else: a file that has one says that its model is no plain Llama.
const OTHER_COMPUTATION: [&str; 33] = [
    "add_cross_attention",
    "attention_multiplier",
    "attention_out_bias",
    "attn_logit_softcapping",
    "attn_temperature_tuning",
    "bias",
    "clip_qkv",
    "embedding_multiplier",
    "final_logit_softcapping",
    "is_encoder_decoder",
    "logit_scale",
    "logits_scaling",
    "moe_layers",
    "n_routed_experts",
    "no_rope_layers",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "num_nextn_predict_layers",
    "partial_rotary_factor",
    "per_layer_config",
    "pruned_heads",
    "qk_layernorm",
    "qk_norm",
    "qkv_bias",
    "quantization_config",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rope_interleaved",
    "scale_embedding",
    "sliding_window",
    "use_mla",
    "use_qk_norm",
];

pub(super) fn read(text: &str) -> Said<(Config, Vec<String>)> {
    let mut f = Fields::parse(text)?;
    let score = family(&mut f)?;
    for bias in ["attention_bias", "mlp_bias"] {
        if f.take::<bool>(bias)? == Some(true) {
            return Err(format!("says {bias} = true; biases are not supported"));
        }
    }
    if let Some(act) = f.take::<String>("hidden_act")?.filter(|act| act != "silu" && act != "swish") {
        return Err(format!("says hidden_act = \"{act}\"; motrain knows \"silu\""));
    }
    let dropout = f.take::<f64>("attention_dropout")?.filter(|d| *d != 0.0);
    let (hidden_size, heads) = (f.need("hidden_size")?, f.need::<i64>("num_attention_heads")?);
    let tied = f.take("tie_word_embeddings")?.unwrap_or(false);
    let config = Config {
        vocab_size: f.need("vocab_size")?,
        hidden_size,
        intermediate_size: f.need("intermediate_size")?,
        layers: f.need("num_hidden_layers")?,
        heads,
        kv_heads: f.take("num_key_value_heads")?.unwrap_or(heads),
        head_dim: f.take("head_dim")?.unwrap_or(i64::checked_div(hidden_size, heads).unwrap_or(0)),
        context: f.need("max_position_embeddings")?,
        rms_norm_eps: f.take("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: rope_theta(&mut f)?,
        bos: token(&mut f, "bos_token_id", 1)?.first().copied(),
        eos: token(&mut f, "eos_token_id", 2)?,
        pad: f.take("pad_token_id")?.filter(|id| *id >= 0),
        head: match (score, tied) {
            (true, _) => Head::Score,
            (false, true) => Head::TiedLm,
            (false, false) => Head::Lm,
        },
    };
    config.check()?;
    f.harmless(&HARMLESS);
    f.harmless(&SAMPLING);
    let mut unknown: Vec<String> =
        dropout.map(|d| format!("attention_dropout = {d} (there is no dropout)")).into_iter().collect();
    for (name, said) in f.left() {
        if OTHER_COMPUTATION.contains(&name.as_str()) && !NEUTRAL.contains(&said.as_str()) {
            return Err(format!("says {said}, which motrain does not do; it knows plain Llama models"));
        }
        unknown.push(said);
    }
    Ok((config, unknown))
}

/// What some of those fields say when they change nothing.
const NEUTRAL: [&str; 9] = [
    "attention_multiplier = 1.0",
    "embedding_multiplier = 1.0",
    "logit_scale = 1.0",
    "logits_scaling = 1.0",
    "partial_rotary_factor = 1.0",
    "partial_rotary_factor = 1",
    "residual_multiplier = 1.0",
    "num_experts = 0",
    "num_local_experts = 0",
];

/// Refuses models that are no Llama; says whether it is a reward model.
fn family(f: &mut Fields) -> Said<bool> {
    let family: String = f.need("model_type")?;
    if family != "llama" {
        return Err(format!("says model_type = \"{family}\"; motrain knows the Llama family (\"llama\")"));
    }
    let architectures: Vec<String> = f.take("architectures")?.unwrap_or_default();
    let is = |a: &String, known: &str| a.eq_ignore_ascii_case(known);
    if let Some(odd) =
        architectures.iter().find(|a| !is(a, "LlamaForCausalLM") && !is(a, "LlamaForSequenceClassification"))
    {
        return Err(format!(
            "says architectures = \"{odd}\"; motrain knows LlamaForCausalLM and, for reward models, LlamaForSequenceClassification"
        ));
    }
    let score = architectures.iter().any(|a| is(a, "LlamaForSequenceClassification"));
    let labels = f.take::<Map<String, Value>>("id2label")?.map(|labels| labels.len() as i64);
    let labels = labels.or(f.take("num_labels")?);
    f.harmless(&["num_labels"]);
    match labels.filter(|n| score && *n != 1) {
        Some(n) => Err(format!("says {n} labels (id2label, num_labels); a reward model has one")),
        None => Ok(score),
    }
}

/// The rotation's base. Newer files keep it in rope_parameters, older ones beside rope_scaling.
fn rope_theta(f: &mut Fields) -> Said<f64> {
    let beside: Option<f64> = f.take("rope_theta")?;
    let parameters: Map<String, Value> = f.take("rope_parameters")?.unwrap_or_default();
    let scaling: Map<String, Value> = f.take("rope_scaling")?.unwrap_or_default();
    if !parameters.is_empty() && !scaling.is_empty() && parameters != scaling {
        return Err("says how positions are rotated twice, in rope_parameters and in rope_scaling; leave one".into());
    }
    let (name, map) = if scaling.is_empty() { ("rope_parameters", parameters) } else { ("rope_scaling", scaling) };
    let mut rope = Fields::from(map);
    let old: Option<String> = rope.take("type")?;
    let kind = rope.take("rope_type")?.or(old).unwrap_or_else(|| "default".into());
    if kind != "default" {
        return Err(format!("says {name}: rope type \"{kind}\"; motrain knows \"default\" (no scaling)"));
    }
    let theta: Option<f64> = rope.take("rope_theta")?;
    match rope.left().into_iter().find(|(_, said)| said != "partial_rotary_factor = 1.0") {
        Some((_, said)) => Err(format!("says {said} in {name}, which motrain does not do")),
        None => Ok(theta.or(beside).unwrap_or(10_000.0)),
    }
}

/// One id or several. A file that does not say has LlamaConfig's; null and negative ids are none.
fn token(f: &mut Fields, name: &str, usual: i64) -> Said<Vec<i64>> {
    if !f.has(name) {
        return Ok(vec![usual]);
    }
    let ids = match f.take::<Value>(name)? {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(one) => vec![one],
    };
    let ids = ids.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
    let ids = ids.ok_or_else(|| format!("says {name}, which is neither a token's id nor a list of them"))?;
    Ok(ids.into_iter().filter(|id| *id >= 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;
    use serde_json::json;

    const PLAIN: &str = r#"{"architectures": ["LlamaForCausalLM"], "bos_token_id": null, "eos_token_id": 1, "hidden_act": "silu",
        "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 16, "model_type": "llama", "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 11,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "rope_scaling": null}"#;

    /// The plain file with one field changed.
    fn with(name: &str, value: Value) -> Said<(Config, Vec<String>)> {
        let mut map: Map<String, Value> = serde_json::from_str(PLAIN).unwrap();
        map.insert(name.into(), value);
        read(&Value::Object(map).to_string())
    }

    fn refused(name: &str, value: Value) -> String {
        with(name, value).unwrap_err()
    }

    #[test]
    fn what_changes_the_model_is_done_or_refused_by_its_name() {
        let (plain, unknown) = read(PLAIN).unwrap();
        assert_eq!((plain.head_dim, plain.head, unknown.len()), (4, Head::TiedLm, 0));
        assert_eq!(with("head_dim", json!(6)).unwrap().0.head_dim, 6);
        assert_eq!(with("rope_scaling", json!({"rope_type": "default", "rope_theta": 5e5})).unwrap().0.rope_theta, 5e5);
        assert_eq!(with("rope_parameters", json!({"rope_type": "default"})).unwrap().0.rope_theta, 1e4);
        assert_eq!(with("eos_token_id", json!([3, -1, 4])).unwrap().0.eos, [3, 4]);
        let table = [
            ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
            ("rope_parameters", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_parameters", json!({"full_attention": {"rope_type": "default"}})),
            ("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("hidden_act", json!("gelu")),
            ("sliding_window", json!(8)),
            ("partial_rotary_factor", json!(0.5)),
            ("logit_scale", json!(0.0625)),
            ("final_logit_softcapping", json!(30.0)),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("num_local_experts", json!(8)),
            ("architectures", json!(["LlamaModel"])),
            ("model_type", json!("mistral")),
            ("model_type", Value::Null),
            ("num_key_value_heads", json!(3)),
            ("num_attention_heads", json!(0)),
            ("num_hidden_layers", json!(1i64 << 31)),
            ("head_dim", json!(3)),
            ("hidden_size", json!("8")),
            ("eos_token_id", json!("</s>")),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
        ];
        let said: Vec<String> =
            table.iter().map(|(name, value)| format!("{name}: {value}\n  {}", refused(name, value.clone()))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn what_no_llama_has_a_meaning_for_is_named() {
        let (_, unknown) = with("colour", json!("red")).unwrap();
        assert_eq!(unknown, ["colour = \"red\""]);
        let harmless =
            [("sliding_window", Value::Null), ("rope_interleaved", json!(false)), ("logit_scale", json!(1.0))];
        for (name, value) in harmless {
            assert!(with(name, value).is_ok(), "{name}");
        }
    }

    #[test]
    fn reward_models_have_one_label() {
        let score = |name: &str, value: Value| {
            let mut map: Map<String, Value> = serde_json::from_str(PLAIN).unwrap();
            map.insert("architectures".into(), json!(["LlamaForSequenceClassification"]));
            map.insert(name.into(), value);
            read(&Value::Object(map).to_string())
        };
        assert_eq!(score("id2label", json!({"0": "reward"})).unwrap().0.head, Head::Score);
        assert_eq!(score("num_labels", json!(1)).unwrap().0.head, Head::Score);
        assert!(score("id2label", json!({"0": "bad", "1": "good"})).unwrap_err().contains("says 2 labels"));
        assert!(score("num_labels", json!(5)).unwrap_err().contains("says 5 labels"));
    }

    #[test]
    fn mutants_are_read_or_refused() {
        let refused = mutants::of_json(PLAIN, 4000).filter(|text| read(text).is_err()).count();
        assert!(refused > 1000 && refused < 3900, "{refused}");
    }
}
