//! Data files through the binary: rows in the forms that others write, and what is said of rows that cannot be used.

use motrain_tests::{failure, motrain, success, text, write};
use serde_json::{Value, json};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn turn(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// Runs a script of one stage over `rows.jsonl`; returns what it said.
fn run(folder: &Path, stage: &str, rows: impl AsRef<[u8]>) -> Result<String, String> {
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    write(folder, "s.rhai", stage);
    let _ = std::fs::remove_dir_all(folder.join("out"));
    let mut command = motrain(folder);
    command.args(["--script", "s.rhai", "--out", "out"]);
    let output = command.output().unwrap();
    let said: Vec<String> =
        text(&output.stderr).lines().filter(|l| !l.contains("INFO")).map(|l| l.trim_start().to_owned()).collect();
    assert_eq!(output.status.code(), Some(i32::from(!output.status.success())), "{said:?}");
    if output.status.success() { Ok(said.join("\n")) } else { Err(said.join("\n")) }
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

const SFT: &str = "sft(\"s\", #{ model: path(\"assets/hh/policy\"), data: #{ paths: [\"rows.jsonl\"] }, \
                   train: #{ steps: 1, batch_size: 2, micro_batch_size: 2 } });";
const REWARD_MODEL: &str = "reward_model(\"rm\", #{ model: path(\"assets/hh/policy\"), data: #{ paths: [\"rows.jsonl\"], \
                            part: \"train\", test_share: 0.3 }, layers: 1, max_tokens: 48, \
                            train: #{ steps: 1, batch_size: 2, micro_batch_size: 2 } });";
const REWARDS: &str = "rewards(\"r\", #{ sources: [reward(\"L\", \"column\", #{ column: \"score\" }, #{ scale: [0.0, 1.0] })], \
                       policy: path(\"assets/hh/policy\"), prompts: #{ paths: [\"rows.jsonl\"] }, samples: 2, \
                       generate: #{ max_new_tokens: 2 } });";

#[test]
fn demonstrations_longer_than_the_context_are_left_out_and_counted() {
    let f = folder();
    let row = |times: usize| json!({ "prompt": "q", "completion": "I am the first. ".repeat(times) });
    let said = run(f.path(), SFT, lines([row(1), row(400), row(2), row(400)])).unwrap();
    insta::assert_snapshot!("long_demonstrations", said);
    let metrics = std::fs::read_to_string(f.path().join("out/metrics.jsonl")).unwrap();
    let trained: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(trained["tokens/trained"].as_f64().unwrap() < 100.0, "{trained}");
    insta::assert_snapshot!("only_long_demonstrations", run(f.path(), SFT, lines([row(400), row(400)])).unwrap_err());
}

#[test]
fn conversations_are_demonstrations() {
    let f = folder();
    let chat = |i: usize| json!({ "messages": [turn("user", &format!("q{i}")), turn("assistant", "Hello!")] });
    run(f.path(), SFT, lines((0..4).map(chat))).unwrap();
}

#[test]
fn pairs_in_conversational_forms_train_a_reward_model() {
    let (f, good, bad) = (folder(), turn("assistant", "Hello!"), turn("assistant", "Go away."));
    let user = |i: usize| turn("user", &format!("q{i}"));
    let forms: [&dyn Fn(usize) -> Value; 3] = [
        &|i| json!({ "prompt": [user(i)], "chosen": [good], "rejected": [bad] }),
        &|i| json!({ "chosen": [user(i), good], "rejected": [user(i), bad] }),
        &|i| json!({ "prompt": format!("q{i}"), "chosen": [user(i), good], "rejected": [user(i), bad], "messages": [user(i), good] }),
    ];
    let models = forms.map(|form| {
        assert_eq!(run(f.path(), REWARD_MODEL, lines((0..20).map(form))), Ok(String::new()));
        std::fs::read(f.path().join("out/stages/rm/model/model.safetensors")).unwrap()
    });
    assert!(models[0] == models[1] && models[1] == models[2], "the three forms are the same pairs");
}

#[test]
fn pairs_longer_than_max_tokens_are_counted() {
    let f = folder();
    let pair = |i: usize, prompt: usize, answer: usize| {
        let (q, a) = ("Tell me. ".repeat(prompt), "No. ".repeat(answer));
        json!({ "prompt": format!("{i} {q}"), "chosen": format!("Yes. {a}"), "rejected": a })
    };
    let rows =
        (0..20).map(|i| pair(i, 1, 1)).chain([pair(20, 60, 1), pair(21, 1, 60), pair(22, 60, 1), pair(23, 1, 60)]);
    insta::assert_snapshot!("long_pairs", run(f.path(), REWARD_MODEL, lines(rows)).unwrap());
}

#[test]
fn margins_and_ratings_that_are_no_numbers_are_named() {
    let f = folder();
    let pair = |i: usize, margin: Value| json!({ "prompt": format!("q{i}"), "chosen": "Yes.", "rejected": "No.", "margin": margin });
    let pairs = |margin: Value| lines((0..20).map(|i| pair(i, if i == 7 { margin.clone() } else { json!(0.5) })));
    assert_eq!(run(f.path(), REWARD_MODEL, pairs(Value::Null)), Ok(String::new()));
    let rated = REWARD_MODEL.replace("layers: 1", "layers: 1, attributes: [\"helpfulness\", \"verbosity\"]");
    let row = |i: usize, helpfulness: Value, more: Value| {
        let mut row = json!({ "prompt": format!("q{i}"), "response": "Yes.", "helpfulness": helpfulness });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let rows = |odd: Value, more: Value| {
        lines((0..20).map(|i| row(i, if i == 7 { odd.clone() } else { json!(i % 5) }, more.clone())))
    };
    let mut said = vec![
        run(f.path(), REWARD_MODEL, pairs(json!("0.5"))).unwrap_err(),
        run(f.path(), REWARD_MODEL, pairs(json!(1e300))).unwrap_err(),
        run(f.path(), &rated, rows(json!("4"), json!({}))).unwrap_err(),
        run(f.path(), &rated, rows(json!(4), json!({ "verbosty": 1 }))).unwrap_err(),
        run(
            f.path(),
            &rated,
            lines((0..20).map(|i| json!({ "prompt": format!("q{i}"), "response": "Yes.", "helpfullness": 1 }))),
        )
        .unwrap_err(),
        run(
            f.path(),
            &rated,
            lines((0..20).map(|i| json!({ "prompt": format!("q{i}"), "helpfulness": 1, "verbosity": 2 }))),
        )
        .unwrap_err(),
        run(
            f.path(),
            &rated,
            lines((0..20).map(|i| json!({ "prompt": format!("q{i}"), "response": 5, "helpfulness": 1 }))),
        )
        .unwrap_err(),
    ];
    said.push(
        run(
            f.path(),
            &rated,
            rows(Value::Null, json!({ "verbosity": null })) + &rows(json!(1), json!({ "verbosity": 2 })),
        )
        .unwrap(),
    );
    insta::assert_snapshot!("margins_and_ratings", said.join("\n"));
}

#[test]
fn scores_in_a_column() {
    let f = folder();
    let rows = |scores: [Value; 2]| lines(scores.into_iter().map(|s| json!({ "prompt": "Why?", "score": s })));
    run(f.path(), REWARDS, rows([json!(0), json!(1)])).unwrap();
    run(f.path(), REWARDS, rows([json!(0.5), Value::Null])).unwrap();
    insta::assert_snapshot!("score_in_quotes", run(f.path(), REWARDS, rows([json!(0.5), json!("0.5")])).unwrap_err());
    let other = lines([json!({ "prompt": "Why?", "scores": 1 })]);
    insta::assert_snapshot!("score_is_missing", run(f.path(), REWARDS, other).unwrap_err());
}

#[test]
fn an_array_of_rows_is_the_same_data_as_its_lines() {
    let all: Vec<Value> = (0..20)
        .map(
            |i| json!({ "prompt": format!("q{i} {{"), "chosen": "Yes.", "rejected": "No [no]", "more": [{ "x": {} }] }),
        )
        .collect();
    let model = |bytes: &[u8]| {
        let f = folder();
        run(f.path(), REWARD_MODEL, bytes).unwrap();
        std::fs::read(f.path().join("out/stages/rm/model/model.safetensors")).unwrap()
    };
    let of_lines = model(lines(all.clone()).as_bytes());
    let pretty = serde_json::to_string_pretty(&all).unwrap();
    assert!(of_lines == model(pretty.as_bytes()));
    assert!(of_lines == model(format!("\u{feff}\r\n {}", json!(all)).as_bytes()));
    // A message says the line that a row begins in.
    let wrong = "[\n  {\n    \"prompt\": \"Why?\", \"score\": 1\n  },\n  {\n    \"prompt\": \"How?\", \"score\": \"high\"\n  }\n]\n";
    insta::assert_snapshot!("score_in_an_array", run(folder().path(), REWARDS, wrong).unwrap_err());
}

#[test]
fn prompts_and_scripts_from_windows_and_prompts_from_chat_servers() {
    let f = folder();
    run(
        f.path(),
        REWARDS,
        "\u{feff}{\"prompt\": \"Why?\", \"score\": 1}\r\n\r\n{\"prompt\": \"How?\", \"score\": 0}\r\n",
    )
    .unwrap();
    write(f.path(), "module.rhai", "\u{feff}fn limit() { 3 }");
    write(
        f.path(),
        "s.rhai",
        &format!("\u{feff}import \"module\" as m;\r\n{}", REWARDS.replace("samples: 2", "samples: m::limit()")),
    );
    success(motrain(f.path()).args(["check", "s.rhai"]));
    let parts = json!([{ "type": "text", "text": "Why?" }]);
    let row = json!({ "messages": [{ "role": "user", "content": parts }], "score": 1 });
    run(f.path(), REWARDS, lines([row])).unwrap();
    let calls = json!({ "role": "assistant", "content": null, "tool_calls": [{ "type": "function" }] });
    let row = json!({ "messages": [turn("user", "Weather?"), calls, turn("user", "And tomorrow?")], "score": 1 });
    insta::assert_snapshot!("tool_calls", run(f.path(), REWARDS, lines([row])).unwrap_err());
    insta::assert_snapshot!("parquet", run(f.path(), REWARDS, b"PAR1\x15\x04").unwrap_err());
}

/// Tokens of a prompt, as a request that cannot fit names them.
fn tokens(prompt: &str) -> String {
    let f = folder();
    let mut command = motrain(f.path());
    let said = failure(command.args(["generate", "assets/hh/policy", "--max-new-tokens", "9999", "--prompt", prompt]));
    let tokens = said.split("a prompt of ").nth(1).and_then(|rest| rest.split(' ').next());
    tokens.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_dialogue_keeps_its_beginning() {
    let rest = "My name is Zorblax.\n\nAssistant: Hi.\n\nHuman: What is my name?\n\nAssistant:";
    assert_eq!(tokens(&format!("Human: {rest}")), tokens(&format!("\n\nHuman: {rest}")));
    let asked = "\n\nHuman: What is my name?\n\nAssistant:";
    let with = tokens(&format!("You are a pirate called Zorblax.{asked}"));
    assert!(with.parse::<usize>().unwrap() > tokens(asked).parse().unwrap());
    let f = folder();
    success(motrain(f.path()).args(["generate", "assets/hh/policy", "--max-new-tokens", "2", "--prompt", asked]));
}
