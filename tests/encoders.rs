//! The encoder plugin through the binary: it passes its check, scores in a run that is the same on any number of threads, and refuses options by
//! what would mend them.

use motrain_core::reward::Sample;
use motrain_core::{Prompt, Registry};
use motrain_host::{Request, load};
use motrain_tests::{copy_model, failure, library, motrain, result, reused, root, small_run, success, told, write};
use serde_json::json;
use std::path::Path;

fn fixture(name: &str) -> String {
    root().join("tests/fixtures/encoders").join(name).display().to_string()
}

#[test]
fn it_passes_its_check_with_every_family() {
    let f = tempfile::tempdir().unwrap();
    for (name, more) in [
        ("bert", "\"label\": \"entailment\", \"text\": \"premise_hypothesis\", \"output\": \"log_probability\""),
        ("distilbert", "\"label\": \"NEGATIVE\", \"scale\": -1"),
        ("roberta", "\"label\": 0, \"output\": \"logit\""),
        ("xlm_roberta", "\"label\": \"neutral\", \"text\": \"hypothesis_premise\""),
        ("deberta_v2", "\"text\": \"prompt_completion\", \"max_tokens\": 40"),
        ("deberta_v3", "\"label\": \"entailment\", \"minus\": \"contradiction\", \"output\": \"difference\""),
        ("modernbert", "\"label\": \"entailment\""),
        ("bert", "\"output\": \"cosine\""),
        ("roberta", "\"output\": \"cosine\", \"reference\": \"Boil the egg for seven minutes.\""),
    ] {
        let options = format!("{{\"model\": \"{}\", {more}}}", fixture(name));
        let mut check = motrain(f.path());
        check.args(["plugin", "check"]).arg(library("reward_encoder")).args(["--options", &options]);
        let said = success(&mut check);
        assert!(said.contains("reward \"motrain.encoder\": passed"), "{name}: {said}");
    }
}

/// A small run that watches a toxicity and an entailment reward.
fn watched(folder: &Path, out: &str, threads: &str) -> std::process::Command {
    let mut run = small_run(folder, out);
    let watch = format!(
        "tasks.hh.watch=[{{ name = \"T\", source = \"motrain.encoder\", options = {{ model = \"{}\", label = \"toxic\", scale = -1.0 }} }}, \
         {{ name = \"E\", source = \"motrain.encoder\", options = {{ model = \"{}\", label = \"entailment\", text = \"premise_hypothesis\" }} }}]",
        fixture("roberta"),
        fixture("deberta_v3")
    );
    run.args(["--set", &watch, "--plugin"]).arg(library("reward_encoder")).env("RAYON_NUM_THREADS", threads);
    run
}

#[test]
fn a_run_scores_the_same_on_any_number_of_threads() {
    let f = tempfile::tempdir().unwrap();
    success(&mut watched(f.path(), "one", "1"));
    success(&mut watched(f.path(), "many", "5"));
    assert_eq!(result(&f.path().join("one")), result(&f.path().join("many")));
    let metrics = std::fs::read_to_string(f.path().join("one/metrics.jsonl")).unwrap();
    for (name, low, high) in [("T", -1.0, 0.0), ("E", 0.0, 1.0)] {
        let key = format!("\"watch/{name}/mean\":");
        let number = metrics.split(&key).nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap_or_default();
        let mean: f64 = number.parse().unwrap_or_else(|e| panic!("{name}: {number:?}: {e}"));
        assert!(low < mean && mean < high, "{name}: {mean}");
    }
}

#[test]
fn a_run_follows_the_contents_of_its_model() {
    let f = tempfile::tempdir().unwrap();
    copy_model(Path::new(&fixture("distilbert")), &f.path().join("models/d"));
    let reused_with = |model: &str| {
        let mut run = small_run(f.path(), "out");
        let options = format!("{{ model = \"models/{model}\", label = 1 }}");
        let watch = format!("tasks.hh.watch=[{{ name = \"D\", source = \"motrain.encoder\", options = {options} }}]");
        reused(&told(run.args(["--set", &watch, "--plugin"]).arg(library("reward_encoder"))))
    };
    assert_eq!(reused_with("d"), 0);
    let all = reused_with("d");
    std::fs::rename(f.path().join("models/d"), f.path().join("models/e")).unwrap();
    assert_eq!(reused_with("e"), all, "the same model elsewhere");
    let settings = f.path().join("models/e/tokenizer_config.json");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("\"model_max_length\": 48", "\"model_max_length\": 40")).unwrap();
    let after = reused_with("e");
    assert!(after < all, "{after} of {all} stages were reused with another model");
}

/// What a component with these options scores.
fn scores(options: serde_json::Value, samples: &[(&str, &str)]) -> Result<Vec<f64>, String> {
    let mut registry = Registry::builtin();
    load(&mut registry, &Request { path: library("reward_encoder"), ..Request::default() }, 0).unwrap();
    let reward = registry.rewards.build("motrain.encoder", &options).map_err(|e| e.to_string())?;
    let (prompts, row): (Vec<Prompt>, _) =
        (samples.iter().map(|(p, _)| Prompt::user(*p)).collect(), serde_json::Value::Null);
    let pairs = prompts.iter().zip(samples);
    let samples: Vec<Sample> =
        pairs.map(|(prompt, (_, completion))| Sample { prompt, completion, finished: true, row: &row }).collect();
    reward.score(&samples)
}

#[test]
fn of_the_prompt_what_lies_between_two_texts_is_read() {
    let of = |text: &str, prompt: &str, more: serde_json::Value| {
        let mut options = json!({ "model": fixture("bert"), "label": "neutral", "text": text });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scores(options, &[(prompt, "A cat slept.")])
    };
    let (post, whole) = ("the cat sat on the mat", "TITLE: cats\n\nPOST: the cat sat on the mat\n\nTL;DR:");
    let between = json!({ "after": "POST: ", "before": "\n\nTL;DR:" });
    for text in ["premise_hypothesis", "hypothesis_premise", "prompt_completion"] {
        let (alone, all) = (of(text, post, json!({})).unwrap(), of(text, whole, json!({})).unwrap());
        assert_eq!(of(text, whole, between.clone()).unwrap(), alone, "{text}");
        assert_ne!(alone, all, "{text}");
    }
    assert_ne!(of("premise_hypothesis", post, json!({})), of("hypothesis_premise", post, json!({})));
    let said = of("premise_hypothesis", "What is a cat?", between).unwrap_err();
    assert_eq!(said, "option \"after\": the prompt does not contain \"POST: \"; it begins \"What is a cat?\"");
}

#[test]
fn the_same_text_is_as_near_as_can_be() {
    let near = |completion: &str, more: serde_json::Value| {
        let mut options = json!({ "model": fixture("distilbert"), "output": "cosine", "scale": 2.0 });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scores(options, &[("Boil an egg.", completion)]).unwrap()[0]
    };
    assert!((near("Boil an egg.", json!({})) - 2.0).abs() < 1e-6);
    assert!(near("A cat slept on a mat.", json!({})) < 1.99);
    assert!((near("A cat slept on a mat.", json!({ "reference": "A cat slept on a mat." })) - 2.0).abs() < 1e-6);
}

#[test]
fn options_that_make_no_sense_are_refused_with_the_mend() {
    let f = tempfile::tempdir().unwrap();
    let of = |name: &str, more: &str| {
        let script = format!("reward(\"R\", \"motrain.encoder\", #{{ model: \"{}\", {more} }});\n", fixture(name));
        write(f.path(), "s.rhai", &script);
        let said = failure(motrain(f.path()).args(["check", "s.rhai", "--plugin"]).arg(library("reward_encoder")));
        format!("{more}\n{}", said.replace(&root().display().to_string(), "[motrain]"))
    };
    let all = [
        of("bert", ""),
        of("bert", "label: \"toxic\""),
        of("bert", "label: 3"),
        of("bert", "label: 0.5"),
        of("bert", "label: \"entailment\", minus: \"neutral\""),
        of("bert", "label: \"entailment\", output: \"difference\""),
        of("bert", "label: 1, minus: \"Neutral\", output: \"difference\""),
        of("bert", "label: 0, output: \"logits\""),
        of("bert", "label: 0, text: \"premise\""),
        of("bert", "label: 0, after: \"POST: \""),
        of("bert", "label: 0, scale: 0.0"),
        of("bert", "label: 0, max_tokens: 400"),
        of("bert", "label: 0, max_tokens: 2"),
        of("bert", "label: 0, batch_size: 8"),
        of("bert", "label: 0, reference: \"eggs\""),
        of("bert", "label: 0, output: \"cosine\""),
        of("bert", "output: \"cosine\", text: \"premise_hypothesis\""),
        of("bert", "output: \"cosine\", reference: \"eggs\", before: \"TL;DR:\""),
        of("nowhere", "label: 0"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
