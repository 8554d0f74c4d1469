//! Fields of config.json that no reader took: which of them say that something else is computed than what is done here. Names are told by
//! their kind, since no list of all families' fields is ever whole.

use super::shape::{Norm, Shape};
use crate::fields::Fields;
use serde_json::Value;

/// What other families, or other programs, call a part of their computation: words of fields' names. A field says so unless its value is none,
/// `false`, 0, or neutral as `is_neutral` has it.
const KINDS: [&str; 35] = [
    "alibi",
    "attention_chunk",
    "bias",
    "bidirectional",
    "cap",
    "capping",
    "clip",
    "cross_attention",
    "encoder_decoder",
    "interleaved",
    "kv_shared",
    "layer_types",
    "layernorm",
    "lora",
    "mla",
    "mrope",
    "multiplier",
    "norm",
    "parallel_attention",
    "parallel_attn",
    "parallel_block",
    "parallel_residual",
    "per_layer",
    "position_embedding",
    "predict_layers",
    "pruned_heads",
    "rope",
    "rotary",
    "scalar",
    "scale",
    "scaling",
    "softcap",
    "softcapping",
    "temperature_tuning",
    "window",
];

const EXPERTS: [&str; 5] = ["expert", "experts", "moe", "router", "sparse_step"];

const STORED: [&str; 3] = ["quantization", "compression", "quant"];

/// Words of names that speak of how the model began or was trained.
const OF_TRAINING: [&str; 8] = ["init", "initializer", "loss", "eps", "epsilon", "lr", "grad", "clipping"];

/// Fields with such words that change nothing by themselves.
const NOTES: [&str; 2] = ["ffn_dim_multiplier", "max_window_layers"];

/// Switches of what every decoder here does, which therefore change it where they are false.
const DONE: [&str; 9] = [
    "causal",
    "is_causal",
    "use_causal_mask",
    "use_rope",
    "use_rotary",
    "use_rotary_embeddings",
    "use_rotary_position_embeddings",
    "rotary",
    "rope",
];

/// What of a family's fields is refused, of those that its reader has not taken.
pub fn refused(f: &Fields, shape: &Shape, class: &str) -> Option<String> {
    let of_positions = |name: &str| name.contains("rope") || name.contains("rotary");
    for name in DONE {
        let done = !of_positions(name) || !shape.ropes.is_empty();
        if f.get(name).and_then(Value::as_bool).is_some_and(|said| said != done) {
            return f.shown(name).map(|said| other(&said, class));
        }
    }
    f.names().find_map(|name| {
        let (value, said) = (f.get(name)?, f.shown(name)?);
        let switch = DONE.contains(&name) && value.is_boolean();
        if switch || NOTES.contains(&name) || has(name, &OF_TRAINING) || is_neutral(name, value, shape) {
            return None;
        }
        if has(name, &STORED) {
            return Some(format!(
                "says {said}: its weights are stored in a form that motrain does not read; load it with transformers, dequantize() it, and \
                 save_pretrained() it into a folder of its own"
            ));
        }
        if has(name, &EXPERTS) {
            return Some(format!(
                "says {said}, and motrain does no mixtures of experts; take a {class} model that has none"
            ));
        }
        has(name, &KINDS).then(|| other(&said, class))
    })
}

fn other(said: &str, class: &str) -> String {
    format!(
        "says {said}, which motrain does not do; it knows plain {class} models. If this one was trained without it, take the field out of the file"
    )
}

/// Whether some of these words stand in a name.
fn has(name: &str, words: &[&str]) -> bool {
    let name = format!("_{}_", name.to_ascii_lowercase());
    words.iter().any(|word| name.contains(&format!("_{word}_")))
}

/// Whether a field of one of those kinds says what is done anyway.
fn is_neutral(name: &str, value: &Value, shape: &Shape) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on || (has(name, &["bias"]) && shape.qkv_bias && has(name, &["attention", "qkv"])),
        Value::Number(number) => {
            let one = ["scale", "scaling", "multiplier", "factor", "pct"];
            number.as_f64() == Some(if has(name, &one) { 1.0 } else { 0.0 })
        }
        Value::String(said) => {
            let rotates = ["rope", "rotary"].contains(&said.as_str()) && !shape.ropes.is_empty();
            let by_root = ["rms", "rmsnorm", "rms_norm", "RMSNorm"].contains(&said.as_str());
            said.is_empty() || rotates || (by_root && !matches!(shape.norm, Norm::Layer(_)))
        }
        Value::Array(list) => list.iter().all(|kind| kind == "full_attention"),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Config, FAMILIES};
    use serde_json::{Map, Value, json};

    /// What each family makes of a field: reads it, refuses it, names it in a warning, or says nothing.
    #[test]
    fn fields_that_change_the_computation_are_refused_by_all_families_that_do_not_read_them() {
        let fields = [
            ("position_embedding_type", json!("alibi")),
            ("position_embedding_type", json!("rope")),
            ("alibi", json!(true)),
            ("kv_lora_rank", json!(512)),
            ("num_local_experts", json!(8)),
            ("moe_intermediate_size", json!(64)),
            ("n_shared_experts", json!(1)),
            ("num_experts_per_tok", json!(2)),
            ("scale_emb", json!(12)),
            ("residual_multiplier", json!(0.2)),
            ("residual_multiplier", json!(1.0)),
            ("attn_logit_cap", json!(30.0)),
            ("attn_logit_softcapping", json!(30.0)),
            ("final_logit_softcapping", json!(30.0)),
            ("query_pre_attn_scalar", json!(144)),
            ("query_key_layernorm", json!(true)),
            ("use_qk_norm", json!(true)),
            ("norm_type", json!("layernorm")),
            ("norm_type", json!("rmsnorm")),
            ("lm_head_bias", json!(true)),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("attention_chunk_size", json!(8192)),
            ("num_kv_shared_layers", json!(2)),
            ("num_nextn_predict_layers", json!(1)),
            ("hidden_size_per_layer_input", json!(256)),
            ("compression_config", json!({"format": "pack-quantized"})),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("parallel_attn", json!(true)),
            ("use_parallel_residual", json!(true)),
            ("clip_qkv", json!(8.0)),
            ("layer_types", json!(vec!["sliding_attention"; 9])),
            ("layer_types", json!(vec!["full_attention"; 9])),
            ("sliding_window", json!(4)),
            ("use_sliding_window", json!(true)),
            ("max_window_layers", json!(1)),
            ("partial_rotary_factor", json!(0.5)),
            ("rotary_pct", json!(0.5)),
            ("rope_interleaved", json!(true)),
            ("rope_interleaved", json!(false)),
            ("no_rope_layers", json!([1, 1, 1, 0, 1, 1, 1, 0])),
            ("use_rope", json!(false)),
            ("use_rope", json!(true)),
            ("is_causal", json!(false)),
            ("is_causal", json!(true)),
            ("use_bidirectional_attention", json!(true)),
            ("use_bidirectional_attention", json!(false)),
            ("add_cross_attention", json!(true)),
            ("initializer_scale", json!(0.5)),
            ("router_aux_loss_coef", json!(0.001)),
            ("layer_norm_epsilon", json!(1e-5)),
            ("auto_map", json!({"AutoConfig": "configuration.Config"})),
            ("colour", json!("red")),
        ];
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/families"));
        let plain: Vec<(&str, Map<String, Value>)> = FAMILIES
            .iter()
            .map(|family| {
                let text = std::fs::read_to_string(folder.join(family.model_type()).join("config.json")).unwrap();
                let mut said: Map<String, Value> = serde_json::from_str(&text).unwrap();
                // What the families read is what they make of a field that is not there yet.
                for name in ["layer_types", "sliding_window", "use_sliding_window", "attention_bias", "mlp_bias"] {
                    said.shift_remove(name);
                }
                (family.model_type(), said)
            })
            .collect();
        let of = |(name, value): &(&str, Value)| {
            let mut by: [Vec<&str>; 3] = Default::default();
            for (family, said) in &plain {
                let mut said = said.clone();
                let unknown = |said: &Map<String, Value>| Config::parse(&Value::Object(said.clone()).to_string());
                let before = unknown(&said).unwrap().1.len();
                said.insert((*name).into(), value.clone());
                match unknown(&said) {
                    Err(_) => by[0].push(family),
                    Ok((_, named)) if named.len() > before => by[1].push(family),
                    Ok(_) => by[2].push(family),
                }
            }
            let words =
                ["refused by", "named by", "read or nothing to"].into_iter().zip(by).filter(|(_, who)| !who.is_empty());
            let words: Vec<String> = words
                .map(|(what, who)| {
                    format!("  {what} {}", if who.len() == plain.len() { "all".into() } else { who.join(", ") })
                })
                .collect();
            format!("{name} = {value}\n{}", words.join("\n"))
        };
        insta::assert_snapshot!(fields.iter().map(of).collect::<Vec<_>>().join("\n"));
    }
}
