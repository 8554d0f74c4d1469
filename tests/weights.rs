//! Weights, adapters and GGUF files through the binary: what is wrong with one is said by its name, and numbers that are not finite stop where
//! they first appear.

use motrain_tests::{copy_model, failure, motrain, root, small, success, write};
use std::path::{Path, PathBuf};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn shown(message: &str, folder: &Path) -> String {
    message.replace(&folder.display().to_string(), "[tmp]").replace(&root().display().to_string(), "[home]")
}

/// The shipped policy with the values of one tensor changed.
fn changed(folder: &Path, tensor: &str, change: impl Fn(&mut [[u8; 4]])) -> PathBuf {
    let model = folder.join("model");
    copy_model(&root().join("assets/hh/policy"), &model);
    let file = model.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..head]).unwrap();
    let at = |i: usize| head + json[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    let (start, end) = (at(0), at(1));
    change(bytes[start..end].as_chunks_mut().0);
    std::fs::write(&file, bytes).unwrap();
    model
}

#[track_caller]
fn says(message: &str, what: &str) {
    assert!(message.contains(what), "{message}\n  does not say: {what}");
}

fn generate(folder: &Path, model: &Path, temperature: &str) -> String {
    let mut command = motrain(folder);
    command.arg("generate").arg(model).args(["--prompt", "How do I pick a lock?", "--max-new-tokens", "4"]);
    shown(&failure(command.args(["--temperature", temperature])), folder)
}

#[test]
fn weights_that_are_not_finite_answer_nothing() {
    let f = folder();
    let model = changed(f.path(), "model.norm.weight", |values| values[5] = f32::NAN.to_le_bytes());
    let said = generate(f.path(), &model, "0");
    assert_eq!(said, generate(f.path(), &model, "1"));
    says(
        &said,
        "[tmp]/model/model.safetensors: tensor model.norm.weight: 1 of 128 values are not finite; the first is NaN at [5]",
    );
    // Finite weights whose products are not: whatever the way of drawing.
    let model = changed(f.path(), "model.norm.weight", |values| values.fill(3e38f32.to_le_bytes()));
    for temperature in ["0", "0.7"] {
        let said = generate(f.path(), &model, temperature);
        says(&said, "the policy's logits are not finite (NaN or infinite) at new token 1 of this prompt");
        says(&said, "How do I pick a lock?");
    }
}

#[test]
fn a_policy_that_diverges_ends_the_run_at_its_step() {
    let f = folder();
    // Embeddings whose squares overflow: the policy still answers, and has no gradient.
    let grow = |value: &mut [u8; 4]| *value = (f32::from_le_bytes(*value) * 1e30).to_le_bytes();
    changed(f.path(), "model.embed_tokens.weight", |values| values.iter_mut().for_each(grow));
    let said = failure(small(f.path(), "experiments/hh.rhai", "out").args(["--set", "tasks.hh.policy=model"]));
    says(&said, "step 1 of stage \"mo_odpo\" has diverged: in the gradient of model.");
    says(&said, "values are not finite; the first is");
    says(&said, "lower optimizer.lr");
    assert!(!f.path().join("out/policy").exists() && !f.path().join("out/stages/mo_odpo/checkpoint-2").exists());
}

#[test]
fn folders_that_are_no_model() {
    let f = folder();
    let at = |name: &str| f.path().join(name);
    write(
        f.path(),
        "adapter/adapter_config.json",
        r#"{"peft_type": "LORA", "r": 4, "base_model_name_or_path": "some/base"}"#,
    );
    copy_model(&root().join("assets/hh/policy"), &at("both"));
    write(f.path(), "both/adapter_config.json", "{}");
    write(f.path(), "files/model-Q8_0.gguf", "");
    write(f.path(), "run/checkpoint-10/config.json", "{}");
    copy_model(&root().join("assets/hh/policy"), &at("bin"));
    std::fs::rename(at("bin/model.safetensors"), at("bin/pytorch_model.bin")).unwrap();
    copy_model(&root().join("assets/hh/policy"), &at("newer"));
    let config = std::fs::read_to_string(at("newer/config.json")).unwrap();
    write(
        f.path(),
        "newer/config.json",
        &config.replace("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}"),
    );
    for (name, what) in [
        (
            "adapter",
            "[tmp]/adapter: is an adapter of \"some/base\", which is no model folder here; say in its adapter_config.json",
        ),
        ("both", "[tmp]/both: holds a PEFT adapter beside a model"),
        (
            "files",
            "[tmp]/files: holds a GGUF file; turn it into a folder first: motrain import [tmp]/files/model-Q8_0.gguf FOLDER",
        ),
        ("files/model-Q8_0.gguf", "is a GGUF file; turn it into a folder first: motrain import"),
        (
            "run",
            "has no config.json; a Hugging Face folder with config.json, model.safetensors and tokenizer.json is needed",
        ),
        ("run", "[tmp]/run/checkpoint-10 is a model"),
        ("bin", "has its weights as pytorch_model.bin, and motrain reads model.safetensors; convert them"),
        ("newer", "[tmp]/newer/config.json: says rope_scaling: rope type \"llama3\""),
        ("nowhere", "is no model folder"),
    ] {
        says(&generate(f.path(), &at(name), "1"), what);
    }
}

#[test]
fn gguf_files_that_would_lose_something() {
    let f = folder();
    let import = |file: &Path| shown(&failure(motrain(f.path()).arg("import").arg(file).arg("out")), f.path());
    let fixture = |name: &str| root().join("tests/fixtures/gguf").join(name);
    says(
        &import(&fixture("refused-rope_freqs.gguf")),
        "that motrain does not know: rope_freqs.weight; import a model without them",
    );
    says(&import(&fixture("refused-rope.scaling.gguf")), "does not know how to do: llama.rope.scaling.factor = 4");
    says(&import(&fixture("refused-tokenizer.ggml.pre.gguf")), "has a \"default\" pre-tokenizer (tokenizer.ggml.pre)");
    let whole = std::fs::read(fixture("plain.gguf")).unwrap();
    std::fs::write(f.path().join("cut.gguf"), &whole[..whole.len() - 100]).unwrap();
    says(&import(&f.path().join("cut.gguf")), "is truncated: it needs");
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let head =
        [b"GGUF\x03\0\0\0".as_slice(), &[0; 8], &1u64.to_le_bytes(), &1u64.to_le_bytes(), b"a", &9u32.to_le_bytes()]
            .concat();
    std::fs::write(f.path().join("deep.gguf"), [head, level.repeat(1_000_000)].concat()).unwrap();
    says(&import(&f.path().join("deep.gguf")), "has lists within a list at byte");
}

#[test]
fn an_adapter_that_changes_its_base_is_refused_and_a_plain_one_is_mixed() {
    let f = folder();
    let fixtures = root().join("tests/fixtures/weights");
    let mix = |adapter: &str| {
        let base = f.path().join("base");
        copy_model(&root().join("assets/hh/policy"), &base);
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixtures.join("base").join(file), base.join(file)).unwrap();
        }
        write(f.path(), "base/tokenizer.json", TOKENIZER);
        let part = fixtures.join("adapters").join(adapter);
        let script = format!(
            "soup(\"s\", #{{ of: #{{ base: \"base\", parts: [{:?}] }}, weights: [1.0] }});",
            part.display().to_string()
        );
        write(f.path(), "s.rhai", &script);
        let mut command = motrain(f.path());
        command.args(["--script", "s.rhai", "--out", adapter]);
        command
    };
    success(&mut mix("plain"));
    assert!(f.path().join("plain/stages/s/model/model.safetensors").is_file());
    says(
        &failure(&mut mix("pissa")),
        "adapter_config.json: says init_lora_weights = \"pissa\": such an adapter changes the base's own weights",
    );
}

/// As small as the model: the tokens are letters.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
    {"id": 1, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
    "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": {"c": 0, "<|end|>": 1, "a": 2, "b": 3}, "merges": []}}"#;
