//! Model folders as others write them, through the binary: what a file says is done, or refused by its name.

use motrain_tests::{copy_model, failure, motrain, root, success, write};
use serde_json::{Value, json};
use std::path::Path;

const PROMPT: &str = "How do I pick a lock?";

/// A copy of the embedded policy in which one file is changed.
fn folder(file: &str, change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let f = tempfile::tempdir().unwrap();
    copy_model(&root().join("assets/hh/policy"), &f.path().join("m"));
    let path = f.path().join("m").join(file);
    let mut content = std::fs::read_to_string(&path).map_or(json!({}), |text| serde_json::from_str(&text).unwrap());
    change(&mut content);
    std::fs::write(path, content.to_string()).unwrap();
    f
}

fn with_template(template: &str) -> tempfile::TempDir {
    let f = folder("config.json", |_| {});
    write(f.path(), "m/chat_template.jinja", template);
    f
}

fn answer(f: &Path) -> String {
    success(motrain(f).args(["generate", "m", "--prompt", PROMPT, "--max-new-tokens", "12", "--temperature", "0"]))
}

fn refused(f: &Path, prompt: &str) -> String {
    failure(motrain(f).args(["generate", "m", "--prompt", prompt, "--max-new-tokens", "2", "--temperature", "0"]))
}

#[test]
fn templates_that_fail_say_why() {
    let named = |f: &Path| refused(f, PROMPT).replace(&f.display().to_string(), "[tmp]");
    let endless = "{% for i in range(10000) %}{% for j in range(10000) %}{% for k in range(10000) %}{% endfor %}{% endfor %}{% endfor %}";
    insta::assert_snapshot!("endless_template", named(with_template(endless).path()));
    let large =
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
    insta::assert_snapshot!("large_template", named(with_template(large).path()));
    let doubled = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}";
    insta::assert_snapshot!("doubled_list", named(with_template(doubled).path()));
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(300) %}{% for j in range(300) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    insta::assert_snapshot!("deep_template", named(with_template(&format!("{deep}{{{{ ns.x }}}}")).path()));
    let nested = format!("{{{{ {}1 }}}}", "-".repeat(200_000));
    assert!(!answer(with_template(&nested).path()).is_empty(), "deep is not wrong");
    insta::assert_snapshot!("wide_field", named(with_template("{{ '{:999999999}'.format(1) }}").path()));
    let endless = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}";
    insta::assert_snapshot!("recursive_template", named(with_template(endless).path()));
    let refusing = "{{ raise_exception('only two turns, please') }}";
    insta::assert_snapshot!("refusing_template", named(with_template(refusing).path()));
    insta::assert_snapshot!("unknown_filter", named(with_template("{{ messages | shuffle }}").path()));
    let list = json!([{ "name": "rag", "template": "x" }, { "name": "tool_use", "template": "y" }]);
    let f = folder("tokenizer_config.json", |c| c["chat_template"] = list.clone());
    std::fs::remove_file(f.path().join("m/chat_template.jinja")).unwrap();
    insta::assert_snapshot!("no_default_template", named(f.path()));
    let f = folder("chat_template.json", |c| c["chat_template"] = json!("x"));
    std::fs::remove_file(f.path().join("m/chat_template.jinja")).unwrap();
    insta::assert_snapshot!("processor_template", named(f.path()));
}

/// The tokenizers crate panics on all of these; motrain does not, and what is only a setting of a call changes nothing.
#[test]
fn a_hostile_tokenizer_is_an_error() {
    let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let chain: Vec<Value> = (0..30).map(|_| replace("a", "aaaaaaaa")).collect();
    for (name, key, value) in [
        (
            "expression",
            "pre_tokenizer",
            json!({ "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false }),
        ),
        ("no_length", "pre_tokenizer", json!({ "type": "FixedLength", "length": 0 })),
        ("growth", "normalizer", json!({ "type": "Sequence", "normalizers": chain })),
        ("unknown_kind", "normalizer", json!({ "type": "Rot13" })),
    ] {
        let f = folder("tokenizer.json", |t| t[key] = value.clone());
        let message = refused(f.path(), &format!("hi {}!", "a".repeat(43)));
        insta::assert_snapshot!(format!("tokenizer_{name}"), message.replace(&f.path().display().to_string(), "[tmp]"));
    }
    let usual = answer(folder("config.json", |_| {}).path());
    for (key, value) in [
        ("truncation", json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 2 })),
        (
            "padding",
            json!({ "strategy": { "Fixed": 1u64 << 40 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x" }),
        ),
    ] {
        assert_eq!(answer(folder("tokenizer.json", |t| t[key] = value.clone()).path()), usual, "{key}");
    }
}

#[test]
fn a_token_without_a_row_is_named_where_it_is_used() {
    let rows: i64 =
        serde_json::from_str::<Value>(&std::fs::read_to_string(root().join("assets/hh/policy/config.json")).unwrap())
            .unwrap()["vocab_size"]
            .as_i64()
            .unwrap();
    let token = json!({ "id": rows, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let f = folder("tokenizer.json", |t| t["added_tokens"].as_array_mut().unwrap().push(token.clone()));
    assert_eq!(answer(f.path()), answer(folder("config.json", |_| {}).path()));
    insta::assert_snapshot!(refused(f.path(), "a [PAD]").replace(&rows.to_string(), "[rows]"));
}

#[test]
fn what_generation_config_says_is_done_or_refused() {
    let f = folder("generation_config.json", |c| c["no_repeat_ngram_size"] = json!(3));
    insta::assert_snapshot!(refused(f.path(), PROMPT).replace(&f.path().display().to_string(), "[tmp]"));
    let f = folder("generation_config.json", |c| c["eos_token_id"] = json!("<|end|>"));
    assert!(
        refused(f.path(), PROMPT)
            .contains("generation_config.json: eos_token_id holds \"<|end|>\", which is no token id")
    );
    // A field that no one knows is said aloud and changes nothing.
    let f = folder("tokenizer_config.json", |c| c["verbosity"] = json!(3));
    let out = motrain(f.path()).args(["generate", "m", "--prompt", PROMPT, "--max-new-tokens", "1"]).output().unwrap();
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("tokenizer_config.json: verbosity = 3 is not known"));
}

/// generation_config.json stops at two tokens; training ends answers with the one that the chat template writes behind them.
#[test]
fn fine_tuning_ends_answers_as_the_template_does() {
    let f = folder("generation_config.json", |c| c["eos_token_id"] = json!([2, 1]));
    write(f.path(), "d.jsonl", "{\"prompt\": \"How do I pick a lock?\", \"completion\": \"Be careful.\"}\n");
    let script = "sft(\"s\", #{ model: \"m\", data: #{ paths: [\"d.jsonl\"] }, train: #{ steps: 30, batch_size: 1, micro_batch_size: 1 }, \
                  optimizer: #{ name: \"adamw\", lr: 1e-3 } });";
    write(f.path(), "s.rhai", script);
    success(motrain(f.path()).args(["--script", "s.rhai", "--out", "out"]));
    let config = f.path().join("out/stages/s/model/generation_config.json");
    let mut said: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    assert_eq!(said["eos_token_id"], json!([1, 2]));
    said["eos_token_id"] = json!(1);
    std::fs::write(&config, said.to_string()).unwrap();
    let tuned = ["generate", "out/stages/s/model", "--prompt", PROMPT, "--max-new-tokens", "12", "--temperature", "0"];
    assert_eq!(success(motrain(f.path()).args(tuned)), "Be careful.\n");
}
