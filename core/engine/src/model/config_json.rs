//! `config.json` as `transformers` reads it: each field is done (most of them by the family), known to change nothing, or refused by its
//! name (`unread.rs`); one that no model of the family has a meaning for is named.

use super::arch::{Arch, FAMILIES, Usual};
use super::config::Config;
use super::head::{self, Head};
use super::unread;
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

/// Fields that say what share of numbers training drops.
const DROPOUTS: [&str; 5] = ["attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout"];

pub(super) fn read(text: &str) -> Said<(Config, Vec<String>)> {
    let mut f = Fields::parse(text)?;
    let said: Map<String, Value> = f.clone().into();
    let arch = family(&mut f)?;
    let scores = head::read(arch, &mut f)?;
    let Usual { tied, bos, eos, pad } = arch.usual();
    let shape = arch.shape(&mut f)?;
    shape.check()?;
    let tied = f.take("tie_word_embeddings")?.unwrap_or(tied);
    let (head, labels) = scores.unwrap_or((if tied { Head::TiedLm } else { Head::Lm }, vec![]));
    let config = Config {
        arch,
        shape,
        bos: token(&mut f, "bos_token_id", bos)?.first().copied(),
        eos: token(&mut f, "eos_token_id", eos)?,
        pad: token(&mut f, "pad_token_id", pad)?.first().copied(),
        head,
        labels,
        said,
    };
    let mut unknown = Vec::new();
    for name in DROPOUTS {
        if let Some(share) = f.take::<f64>(name)?.filter(|share| *share != 0.0) {
            unknown.push(format!("{name} = {share} (there is no dropout)"));
        }
    }
    f.harmless(&HARMLESS);
    f.harmless(&SAMPLING);
    if let Some(what) = unread::refused(&f, &config.shape, arch.class()) {
        return Err(what);
    }
    unknown.extend(f.left().into_iter().map(|(_, said)| said));
    Ok((config, unknown))
}

fn family(f: &mut Fields) -> Said<&'static dyn Arch> {
    let said: String = f.need("model_type")?;
    FAMILIES.iter().find(|arch| arch.model_type() == said).copied().ok_or_else(|| {
        let known: Vec<String> = FAMILIES.iter().map(|arch| format!("\"{}\"", arch.model_type())).collect();
        format!("says model_type = \"{said}\"; motrain knows {}", known.join(", "))
    })
}

/// One id or several. A file that does not say has its family's; null and negative ids are none.
fn token(f: &mut Fields, name: &str, usual: Option<i64>) -> Said<Vec<i64>> {
    if !f.has(name) {
        return Ok(usual.into_iter().collect());
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
        assert_eq!((plain.shape.head_dim, plain.head, unknown.len()), (4, Head::TiedLm, 0));
        assert_eq!(with("head_dim", json!(6)).unwrap().0.shape.head_dim, 6);
        assert_eq!(
            with("rope_scaling", json!({"rope_type": "default", "rope_theta": 5e5})).unwrap().0.shape.ropes[0].theta,
            5e5
        );
        assert_eq!(with("rope_parameters", json!({"rope_type": "default"})).unwrap().0.shape.ropes[0].theta, 1e4);
        assert_eq!(with("eos_token_id", json!([3, -1, 4])).unwrap().0.eos, [3, 4]);
        let table = [
            ("rope_scaling", json!({"type": "linear"})),
            ("rope_scaling", json!({"type": "linear", "factor": 0.0})),
            ("rope_scaling", json!({"type": "ntk", "factor": 2.0})),
            ("rope_scaling", json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]})),
            ("rope_parameters", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_parameters", json!({"full_attention": {"rope_type": "default"}})),
            ("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})),
            ("attention_bias", json!("yes")),
            ("hidden_act", json!("mish")),
            ("sliding_window", json!(8)),
            ("partial_rotary_factor", json!(0.5)),
            ("logit_scale", json!(0.0625)),
            ("final_logit_softcapping", json!(30.0)),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("num_local_experts", json!(8)),
            ("use_rope", json!(false)),
            ("position_embedding_type", json!("alibi")),
            ("architectures", json!(["LlamaModel"])),
            ("model_type", json!("mistral")),
            ("model_type", json!("mixtral")),
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
    fn labels_have_names() {
        let score = |name: &str, value: Value| {
            let mut map: Map<String, Value> = serde_json::from_str(PLAIN).unwrap();
            map.insert("architectures".into(), json!(["LlamaForSequenceClassification"]));
            map.insert(name.into(), value);
            read(&Value::Object(map).to_string())
        };
        assert_eq!(score("id2label", json!({"0": "reward"})).unwrap().0.head, Head::Score);
        assert_eq!(score("num_labels", json!(1)).unwrap().0.labels, ["LABEL_0"]);
        assert_eq!(score("id2label", json!({"0": "bad", "1": "good"})).unwrap().0.labels, ["bad", "good"]);
        assert_eq!(score("colour", json!("red")).unwrap().0.labels, ["LABEL_0", "LABEL_1"]);
        for (name, odd) in [
            ("id2label", json!({"0": "bad", "2": "good"})),
            ("id2label", json!({})),
            ("num_labels", json!(0)),
            ("num_labels", json!(-1)),
        ] {
            assert!(score(name, odd.clone()).is_err(), "{name} {odd}");
        }
    }

    #[test]
    fn mutants_are_read_or_refused() {
        let refused = mutants::of_json(PLAIN, 4000).filter(|text| read(text).is_err()).count();
        assert!(refused > 1000 && refused < 3900, "{refused}");
    }

    /// Of every family, and of reward models with heads of their own: what is saved is read as what it was.
    #[test]
    fn mutants_of_every_family_are_saved_as_they_were_read() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/families"));
        let (mut files, mut accepted) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path().join("config.json")) else { continue };
            files += 1;
            for mutant in mutants::of_json(&text, 300) {
                let Ok((config, _)) = read(&mutant) else { continue };
                accepted += 1;
                let again = read(&config.to_json().to_string()).map(|(again, _)| again);
                assert_eq!(again, Ok(config), "{mutant}");
            }
        }
        assert!(files > 60 && accepted > files * 20, "{files} files, {accepted} mutants");
    }
}
