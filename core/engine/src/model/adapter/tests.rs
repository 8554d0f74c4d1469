//! What adapters change, and what is refused.

#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use super::super::mix::{Mix, tests::base};
use super::*;
use crate::model::write_tensors;

/// A PEFT folder with rank-1 factors of one value in every entry.
fn folder(value: f32, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let module = "base_model.model.model.layers.1.self_attn.k_proj";
    let width = base().config.shape.hidden_size as usize;
    let rows = base().config.shape.kv_heads * base().config.shape.head_dim;
    let tensors = vec![
        (format!("{module}.lora_A.weight"), Tensor::from_slice(&vec![value; width]).view([1, width as i64])),
        (format!("{module}.lora_B.weight"), Tensor::from_slice(&vec![value; rows as usize]).view([rows, 1])),
    ];
    write_tensors(&folder.path().join("adapter_model.safetensors"), &tensors, Kind::Float).unwrap();
    folder
}

const PLAIN: &str = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none", "rank_pattern": {},
    "target_modules": ["layers.1.self_attn.k_proj"]}"#;

fn adapter(value: f32) -> Adapter {
    Adapter::load(folder(value, PLAIN).path(), Device::Cpu).unwrap()
}

/// How far a model's second layer's keys, and nothing else, lie from the base's.
fn change(model: &Model) -> f64 {
    let mut change = None;
    for ((name, a), (_, b)) in model.params.iter().zip(&base().params) {
        let gap = a - b;
        if name == "model.layers.1.self_attn.qkv_proj.weight" {
            let (q, k) = (8, 4);
            assert!(f64::try_from(gap.narrow(0, 0, q).abs().max()).unwrap() == 0.0);
            let own = gap.narrow(0, q, k);
            assert!(f64::try_from(own.max() - own.min()).unwrap() < 1e-6);
            change = Some(f64::try_from(own.mean(Kind::Float)).unwrap());
        } else {
            assert!(f64::try_from(gap.abs().max()).unwrap() == 0.0, "{name}");
        }
    }
    change.unwrap()
}

/// Beside a base only its products can be changed: what changes an embedding is merged, or refused.
#[test]
fn a_change_of_an_embedding_takes_no_gain() {
    let config = PLAIN.replace("layers.1.self_attn.k_proj", "embed_tokens");
    let name = "base_model.model.model.embed_tokens";
    let tensors = [("lora_embedding_A", [1, 16]), ("lora_embedding_B", [8, 1])]
        .map(|(end, shape)| (format!("{name}.{end}"), Tensor::ones(shape, (Kind::Float, Device::Cpu))));
    let config = LoraConfig::parse(&config).unwrap();
    let adapter = Adapter::of("one".into(), config, tensors.into()).unwrap();
    assert!(!adapter.takes_gains() && !adapter.is_low_rank());
    let message = base().net_with(&[adapter], Kind::Float).err().unwrap().to_string();
    assert_eq!(message, "model.embed_tokens.weight cannot be changed beside the base; merge the adapter into it");
}

#[test]
fn golden_delta_and_factor_mixes_differ() {
    let whole = [1.0, -1.0].map(|x| adapter(x).applied_to(&base()).unwrap());
    assert!((change(&whole[0]) - 1.0).abs() < 1e-6);
    // By difference the two rank-1 changes, both 1, average to 1; by factor they cancel.
    let names = ["one".to_owned(), "two".to_owned()];
    let delta = Mix::of_adapters(base(), vec![adapter(1.0), adapter(-1.0)], &names).unwrap();
    assert!((change(&delta.at(&[0.5, 0.5]).unwrap()) - 1.0).abs() < 1e-6);
    let factor = Mix::of_factors(base(), vec![adapter(1.0), adapter(-1.0)]).unwrap();
    assert!(change(&factor.at(&[0.5, 0.5]).unwrap()).abs() < 1e-6);
}

/// What is wrong with an adapter of these tensors, one of 1 in each entry, under this configuration.
fn refused(tensors: &[(&str, &[i64])], config: &str) -> String {
    let folder = folder(1.0, config);
    let prefixed = |name: &str| name.strip_prefix('!').map_or(format!("{PREFIX}{name}"), str::to_owned);
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (prefixed(name), ones(shape))).collect();
    if !tensors.is_empty() {
        write_tensors(&folder.path().join(WEIGHTS), &tensors, Kind::Float).unwrap();
    }
    let result = Adapter::load(folder.path(), Device::Cpu).and_then(|a| a.applied_to(&base()));
    result.err().unwrap().to_string().replace(&folder.path().display().to_string(), "[adapter]")
}

#[test]
fn what_does_not_fit_is_named() {
    let config = |targets: &str| PLAIN.replace("layers.1.self_attn.k_proj", targets);
    let (a, b) = ("model.layers.1.self_attn.k_proj.lora_A.weight", "model.layers.1.self_attn.k_proj.lora_B.weight");
    let said = [
        refused(&[], &PLAIN.replace("\"r\": 1", "\"r\": 2")),
        refused(&[], &config("k_proj")),
        refused(&[], &config("v_proj")),
        refused(&[(a, &[1, 8])], PLAIN),
        refused(&[(b, &[4, 1])], PLAIN),
        refused(&[(a, &[1, 9]), (b, &[4, 1])], PLAIN),
        refused(&[(a, &[8]), (b, &[4, 1])], PLAIN),
        refused(&[(a, &[1, 8]), (b, &[4, 1]), ("model.layers.1.self_attn.k_proj.lora_magnitude_vector", &[4])], PLAIN),
        refused(&[(a, &[1, 8]), (b, &[4, 1]), ("model.norm.weight", &[8])], PLAIN),
        refused(&[(a, &[1, 8]), (b, &[4, 1]), ("model.layers.1.self_attn.k_proj.bias", &[4])], PLAIN),
        refused(&[("!model.layers.1.self_attn.k_proj.lora_A.weight", &[1, 8])], PLAIN),
        refused(
            &[
                ("model.layers.9.self_attn.k_proj.lora_A.weight", &[1, 8]),
                ("model.layers.9.self_attn.k_proj.lora_B.weight", &[4, 1]),
            ],
            PLAIN,
        ),
        refused(&[("lm_head.lora_A.weight", &[1, 8]), ("lm_head.lora_B.weight", &[11, 1])], &config("lm_head")),
        refused(
            &[],
            r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1e38, "target_modules": ["layers.1.self_attn.k_proj"], "use_dora": true}"#,
        ),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_change_that_overflows_is_named() {
    let folder = folder(1e30, PLAIN);
    let adapter = Adapter::load(folder.path(), Device::Cpu).unwrap();
    let message = adapter.applied_to(&base()).err().unwrap().to_string();
    assert!(
        message.contains("with its change, of model.layers.1.self_attn.k_proj.weight 32 of 32 values are not finite"),
        "{message}"
    );
}

#[test]
fn whole_modules_take_the_place_of_the_bases() {
    let folder = folder(1.0, &PLAIN.replace("\"r\"", "\"modules_to_save\": [\"model.norm\"], \"r\""));
    let file = folder.path().join(WEIGHTS);
    let mut tensors = Tensors::new();
    read_weights(&file, &mut tensors).unwrap();
    tensors.insert(format!("{PREFIX}model.norm.weight"), Tensor::from_slice(&[3f32; 8]));
    write_tensors(&file, &tensors.into_iter().collect::<Vec<_>>(), Kind::Float).unwrap();
    let adapter = Adapter::load(folder.path(), Device::Cpu).unwrap();
    let model = adapter.applied_to(&base()).unwrap();
    assert_eq!(model.params.last().unwrap().1, Tensor::from_slice(&[3f32; 8]));
    assert!(!adapter.same_shape(&adapter), "whole modules have no factors");
}

/// PEFT trains biases of the base too where `bias` says so; a base without any has none that could have changed.
#[test]
fn an_adapter_that_changes_biases_is_refused_where_there_are_biases() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/families"));
    let said = |family: &str, bias: &str| {
        let folder = tempfile::tempdir().unwrap();
        let from = fixtures.join(format!("{family}_lora"));
        let text = std::fs::read_to_string(from.join(CONFIG)).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["bias"] = bias.into();
        config["base_model_name_or_path"] = fixtures.join(family).to_string_lossy().into();
        std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
        std::fs::copy(from.join(WEIGHTS), folder.path().join(WEIGHTS)).unwrap();
        Config::of(folder.path()).map(|_| ()).map_err(|e| e.to_string())
    };
    for (family, bias) in [("llama", "lora_only"), ("llama", "all"), ("gpt2", "none")] {
        assert_eq!(said(family, bias), Ok(()), "{family} {bias}");
    }
    for (family, bias) in [("gpt2", "all"), ("gpt_neox", "lora_only"), ("qwen2", "all")] {
        let message = said(family, bias).unwrap_err();
        let key = format!("adapter_config.json says bias = \"{bias}\"");
        assert!(message.contains(&key) && message.contains("merge_and_unload()"), "{family} {bias}: {message}");
    }
}
