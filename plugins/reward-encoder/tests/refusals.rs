//! What a folder says that is not computed is refused by its name; what is damaged, missing or misshapen too.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use reward_encoder::Model;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn copy(name: &str, to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/encoders").join(name);
    let to = to.join(name);
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// A tensor's name, shape and numbers.
type Named = (String, Vec<usize>, Vec<f32>);

fn change_tensors(folder: &Path, change: impl FnOnce(&mut Vec<Named>)) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let floats = |data: &[u8]| data.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect::<Vec<f32>>();
    let mut all: Vec<Named> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, t)| (name.to_owned(), t.shape().to_vec(), floats(t.data())))
        .collect();
    change(&mut all);
    let bytes: Vec<Vec<u8>> = all.iter().map(|(.., n)| n.iter().flat_map(|n| n.to_le_bytes()).collect()).collect();
    let views = all
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), b)| (name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// What loading says of a copy of a fixture that `spoil` changed.
fn said(name: &str, max: Option<usize>, spoil: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(name, folder.path());
    spoil(&model);
    let error = Model::classifier(&model, max).err().unwrap_or_else(|| "LOADED".into());
    error.replace(&folder.path().display().to_string(), "[folder]")
}

#[test]
fn what_config_json_says_and_is_not_computed_is_refused_by_its_key() {
    let cases = [
        ("bert", "model_type", json!("albert")),
        ("bert", "architectures", json!(["BertForTokenClassification"])),
        ("bert", "hidden_act", json!("silu")),
        ("bert", "position_embedding_type", json!("relative_key")),
        ("bert", "is_decoder", json!(true)),
        ("bert", "pruned_heads", json!({"0": [1]})),
        ("bert", "quantization_config", json!({"load_in_8bit": true})),
        ("bert", "num_attention_heads", json!(3)),
        ("bert", "num_attention_heads", json!(0)),
        ("bert", "num_hidden_layers", json!(3)),
        ("bert", "num_hidden_layers", json!(1)),
        ("bert", "hidden_size", Value::Null),
        ("bert", "vocab_size", json!("many")),
        ("bert", "type_vocab_size", json!(1)),
        ("bert", "id2label", json!({"0": "a", "1": "b"})),
        ("bert", "id2label", json!({"0": "a", "1": "b", "7": "c"})),
        ("bert", "num_labels", json!(2)),
        ("bert", "problem_type", json!("ranking")),
        ("distilbert", "sinusoidal_pos_embds", json!(true)),
        ("distilbert", "activation", json!("swish")),
        ("roberta", "pad_token_id", json!(97)),
        ("deberta_v3", "conv_kernel_size", json!(3)),
        ("deberta_v3", "pos_att_type", json!("p2p")),
        ("deberta_v3", "norm_rel_ebd", json!("rms_norm")),
        ("deberta_v3", "pooler_hidden_size", json!(8)),
        ("deberta_v3", "pooler_hidden_act", json!("mish")),
        ("deberta_v3", "position_buckets", json!(1)),
        ("deberta_v3", "share_att_key", json!(false)),
        ("modernbert", "classifier_pooling", json!("max")),
        ("modernbert", "classifier_bias", json!(true)),
        ("modernbert", "hidden_activation", json!("relu")),
        (
            "modernbert",
            "layer_types",
            json!(["full_attention", "full_attention", "sliding_attention", "full_attention"]),
        ),
        ("modernbert", "rope_parameters", json!({"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}})),
        ("modernbert", "rope_scaling", json!({"factor": 2.0})),
    ];
    let mut all = String::new();
    for (name, key, value) in cases {
        let what = said(name, None, |folder| change(folder, "config.json", |json| json[key] = value.clone()));
        assert_ne!(what, "LOADED", "{name} {key} = {value}");
        writeln!(all, "{name} {key} = {value}\n  {what}").unwrap();
    }
    insta::assert_snapshot!(all);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let find = |all: &mut Vec<Named>, name: &str| all.iter().position(|(n, ..)| n == name).unwrap();
    let lose = |name: &'static str| {
        move |all: &mut Vec<Named>| {
            let at = find(all, name);
            all.remove(at);
        }
    };
    let spoil =
        |model: &str, change: &dyn Fn(&mut Vec<Named>)| said(model, None, |f| change_tensors(f, |all| change(all)));
    let mut all = vec![
        spoil("bert", &|all| {
            let at = find(all, "bert.encoder.layer.1.output.dense.bias");
            all[at].2[3] = f32::NAN;
        }),
        spoil("bert", &|all| {
            let at = find(all, "classifier.weight");
            (all[at].1, all[at].2) = (vec![2, 16], vec![0.0; 32]);
        }),
        spoil("bert", &|all| all.push(("bert.encoder.layer.0.adapter.weight".into(), vec![1], vec![0.0]))),
        spoil("bert", &lose("bert.pooler.dense.weight")),
        spoil("roberta", &lose("classifier.out_proj.bias")),
        spoil("distilbert", &lose("distilbert.transformer.layer.0.attention.q_lin.weight")),
        spoil("deberta_v3", &lose("deberta.encoder.LayerNorm.weight")),
        spoil("modernbert", &lose("model.layers.2.attn_norm.weight")),
        spoil("modernbert", &|all| all.push(("model.layers.0.attn_norm.weight".into(), vec![16], vec![1.0; 16]))),
    ];
    let file = |f: &Path| f.join("model.safetensors");
    all.push(said("bert", None, |f| std::fs::write(file(f), &std::fs::read(file(f)).unwrap()[..9000]).unwrap()));
    all.push(said("bert", None, |f| std::fs::remove_file(file(f)).unwrap()));
    all.push(said("bert", None, |f| std::fs::rename(file(f), f.join("pytorch_model.bin")).unwrap()));
    assert!(all.iter().all(|what| what != "LOADED"));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn tokenizers_without_what_is_needed_are_refused() {
    let tokenizer =
        |change_it: &dyn Fn(&mut Value)| said("bert", None, |f| change(f, "tokenizer.json", |json| change_it(json)));
    let all = [
        tokenizer(&|json| json["post_processor"] = Value::Null),
        said("bert", None, |f| std::fs::write(f.join("tokenizer.json"), "words").unwrap()),
        said("bert", None, |f| std::fs::remove_file(f.join("tokenizer.json")).unwrap()),
        said("bert", Some(49), |_| {}),
        said("bert", None, |f| change(f, "tokenizer_config.json", |json| json["model_max_length"] = json!(4))),
        said("bert", None, |f| std::fs::remove_file(f.join("config.json")).unwrap()),
    ];
    assert!(all.iter().all(|what| what != "LOADED"));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn what_changes_nothing_is_taken_as_it_is() {
    for (key, value) in [
        ("classifier_dropout", json!(0.3)),
        ("gradient_checkpointing", json!(true)),
        ("torch_dtype", json!("float16")),
        ("quantization_config", Value::Null),
        ("position_embedding_type", json!("absolute")),
    ] {
        assert_eq!(said("bert", Some(48), |f| change(f, "config.json", |json| json[key] = value)), "LOADED", "{key}");
    }
    // As transformers 4 wrote it.
    let older = |json: &mut Value| {
        let map = json.as_object_mut().unwrap();
        map.retain(|key, _| !["layer_types", "rope_parameters"].contains(&key.as_str()));
        json["global_attn_every_n_layers"] = json!(3);
        json["global_rope_theta"] = json!(160_000.0);
        json["local_rope_theta"] = json!(10_000.0);
    };
    assert_eq!(said("modernbert", None, |f| change(f, "config.json", older)), "LOADED");
}
