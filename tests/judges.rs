//! Language models as rewards and as judges, behind OpenAI-compatible servers on loopback: what counts as an answer, and what does not.

use motrain_tests::server::{self, Asked, Reply, Seen, serve};
use motrain_tests::{failure, motrain, small, text, write};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::sync::Arc;

/// A run that only fits the scale of a model's judgements, on 24 samples.
fn fit(folder: &tempfile::TempDir, address: &str, options: &str) -> Command {
    let template = "Rate from 0 to 10. {prompt} {answer}";
    let options = format!("url: \"{address}/v1/\", model: \"judge\", template: \"{template}\"{options}");
    server::fit(folder.path(), "Kind", "chat", &options)
}

fn scale(folder: &tempfile::TempDir, command: &mut Command) -> Value {
    server::scale(folder.path(), command)
}

fn said(output: &Output) -> String {
    text(&output.stderr)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A score from 0 to 9 for what was asked.
fn score(asked: &Asked) -> usize {
    asked.body["messages"][0]["content"].as_str().unwrap_or("").len() % 10
}

/// The error of a fit, with the address taken out.
fn error(
    answer: impl Fn(usize, &Asked) -> Option<Reply> + Send + Sync + 'static,
    options: &str,
) -> (String, Arc<Seen>) {
    let f = folder();
    let (address, seen) = serve(answer);
    let options = format!(", concurrency: 1, retries: 1, backoff_seconds: 0.001{options}");
    (failure(&mut fit(&f, &address, &options)).replace(&address, "[server]"), seen)
}

#[test]
fn every_form_of_the_same_score_is_read_alike() {
    let f = folder();
    let (address, seen) = serve(|_, asked| Some(Reply::said(&score(asked).to_string())));
    let expected = scale(&f, &mut fit(&f, &address, ""));
    assert_eq!((expected["low"].as_f64(), expected["high"].as_f64()), (Some(0.0), Some(9.0)));
    let bodies = seen.bodies();
    assert_eq!((&bodies[0]["model"], &bodies[0]["temperature"]), (&json!("judge"), &json!(0.0)));
    assert!(bodies[0]["messages"][0]["content"].as_str().unwrap().starts_with("Rate from 0 to 10."));
    assert!(seen.asked().iter().all(|a| a.line == "POST /v1/chat/completions HTTP/1.1"));

    let f = folder();
    let (address, _) = serve(|n, asked| {
        let score = score(asked);
        let parts = json!([{ "type": "thinking", "thinking": "3" }, { "type": "text", "text": score.to_string() }]);
        Some(match n % 8 {
            0 => Reply::said(&format!("<think>\nIt makes 3 points in 12 words.\n</think>\n\n{score}")),
            1 => Reply::said(&format!("It makes 3 points.</think>{score}.0")),
            2 => Reply::said(&format!(
                "<|channel|>analysis<|message|>3 points<|end|><|channel|>final<|message|>{score}/10"
            )),
            3 => Reply::said(&format!("It makes 3 points in 12 words.\n\n**Score:** {score}/10")),
            4 => Reply::said(&format!("```json\n{{\"reason\": \"3 points\", \"score\": {score}}}\n```")),
            5 => Reply::said(&format!("{score},0")),
            6 => Reply::json(&json!({ "choices": [{ "message": { "content": parts }, "finish_reason": "stop" }] })),
            _ => Reply::json(&json!({ "error": null, "choices": [{ "message": {
                "content": score.to_string(), "refusal": null, "reasoning_content": "3 points in 12 words" } }] })),
        })
    });
    assert_eq!(scale(&f, &mut fit(&f, &address, ", scale: [0, 10]")), expected);
}

#[test]
fn a_pattern_of_the_user_says_where_the_number_is() {
    let f = folder();
    let (address, _) = serve(|_, asked| Some(Reply::said(&format!("I count 3: it has merit {} of 12", score(asked)))));
    let found = scale(&f, &mut fit(&f, &address, ", pattern: \"merit (\\\\d+)\""));
    assert_eq!((found["low"].as_f64(), found["high"].as_f64()), (Some(0.0), Some(9.0)));
}

#[test]
fn what_is_no_answer_is_no_score() {
    let reply = |message: Value, finish: &str| {
        Reply::json(&json!({ "choices": [{ "message": message, "finish_reason": finish }] }))
    };
    let content = |text: &str| json!({ "content": text });
    let rows: Vec<(Reply, &str)> = vec![
        (Reply::said("It is very kind."), ""),
        (Reply::said("eight out of 10"), ""),
        (Reply::said("7 or 8"), ""),
        (Reply::said("Clarity: 7\nWarmth: 9"), ""),
        (Reply::said("80%"), ""),
        (Reply::said("11"), ", scale: [0, 10]"),
        (Reply::said("4/5"), ", scale: [0, 10]"),
        (Reply::said("none"), ", pattern: \"merit (\\\\d+)\""),
        (Reply::said("\u{1b}[31mred\u{7}"), ""),
        (Reply::said("<think>I would say 7"), ""),
        (reply(content("7"), "length"), ", max_tokens: 1"),
        (reply(json!({ "content": null, "reasoning_content": "It is 7 of 10" }), "length"), ""),
        (reply(json!({ "content": null, "refusal": "I cannot rate people." }), "stop"), ""),
        (reply(content("7"), "content_filter"), ""),
        (reply(json!({ "content": null, "tool_calls": [{}] }), "tool_calls"), ""),
    ];
    let mut all = String::new();
    for (answer, options) in rows {
        let (message, seen) = error(move |_, _| Some(answer.clone()), options);
        assert_eq!(seen.count(), 1, "asked again: {message}");
        all += &format!("{message}\n");
    }
    // Empty answers may pass.
    for answer in [json!({ "choices": [] }), json!({ "choices": [{ "message": { "content": "" } }] })] {
        let (message, seen) = error(move |_, _| Some(Reply::json(&answer)), "");
        assert_eq!(seen.count(), 2, "{message}");
        all += &format!("{message}\n");
    }
    let (mixed, _) = error(|n, _| Some(Reply::said(if n < 12 { "8/10" } else { "85/100" })), "");
    all += &mixed;
    insta::assert_snapshot!(all);
}

#[test]
fn scores_that_cannot_be_read_can_be_left_out() {
    let f = folder();
    let (address, _) = serve(|n, asked| {
        Some(Reply::said(if n == 5 { "It is kind.".into() } else { score(asked).to_string() }.as_str()))
    });
    let output = fit(&f, &address, ", on_failure: \"skip\"").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("left out 1 of 24 requests; the first: "), "{}", said(&output));
}

#[test]
fn fields_that_a_model_refuses_are_renamed_or_left_out() {
    let refuses = |field: &str, what: &str, code: &str| {
        let error =
            json!({ "error": { "message": what, "type": "invalid_request_error", "param": field, "code": code } });
        Some(Reply::status(400, &error.to_string()))
    };
    let answer = move |_: usize, asked: &Asked| {
        if asked.body.get("max_tokens").is_some() {
            let what = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
            return refuses("max_tokens", what, "unsupported_parameter");
        }
        if asked.body.get("temperature").is_some() {
            let what = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.";
            return refuses("temperature", what, "unsupported_value");
        }
        Some(Reply::said(&score(asked).to_string()))
    };
    let f = folder();
    let (address, seen) = serve(answer);
    let options = ", leave_out: [\"temperature\"], request: #{ reasoning_effort: \"low\" }, concurrency: 1, retries: 0";
    scale(&f, &mut fit(&f, &address, options));
    assert_eq!(seen.count(), 25, "the name is learnt once");
    let last = &seen.bodies()[24];
    assert_eq!((&last["max_completion_tokens"], &last["reasoning_effort"]), (&json!(1024), &json!("low")));
    insta::assert_snapshot!(error(answer, "").0);
}

#[test]
fn options_that_make_no_sense_are_refused_before_any_work() {
    let f = folder();
    let mut all = String::new();
    for options in [
        ", scale: [10, 0]",
        ", scale: [1, 1]",
        ", scale: [1]",
        ", max_tokens: 0",
        ", pattern: \"(\"",
        ", request: #{ stream: true }",
        ", leave_out: [\"messages\"]",
        ", leave_out: \"temperature\"",
    ] {
        fit(&f, "http://host", options);
        all += &format!("{}\n", failure(motrain(f.path()).args(["check", "fit.rhai"])));
    }
    insta::assert_snapshot!(all);
}

/// Two evaluations and a comparison of them by a judge behind `address`; what went wrong, or the comparison.
fn judged(f: &tempfile::TempDir, address: &str, options: &str) -> Result<Value, String> {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\ntask.generate.max_new_tokens = 64;\n\
         task.rewards[0].name = \"Brevity\";\ntask.rewards[1].name = \"Detail\";\nlet scored = steer::scaled(task);\n\
         let policy = #{{ policy: path(task.policy) }};\nlet a = steer::front(\"a\", \"A\", task, policy, scored);\n\
         policy.conditioner = conditioner(\"none\");\nlet b = steer::front(\"b\", \"B\", task, policy, scored);\n\
         let asked = judge(\"chat\", #{{ url: \"{address}\", model: \"m\", question: \"Which is better?\", retries: 0{options} }});\n\
         compare(\"wins\", #{{ method: a, against: [b], dimensions: [\n\
           #{{ name: \"Helpfulness\", weights: [0.8, 0.2], judge: asked }},\n\
           #{{ name: \"Harmlessness\", weights: [0.2, 0.8], judge: asked }},\n] }});\n"
    );
    write(f.path(), "judge.rhai", &script);
    let output = small(f.path(), "judge.rhai", "out").output().unwrap();
    let matches = f.path().join("out/stages/wins/matches.json");
    if !output.status.success() {
        assert!(f.path().join("out/stages/b/answers.jsonl").is_file(), "finished evaluations are kept");
        return Err(said(&output));
    }
    Ok(serde_json::from_str::<Value>(&std::fs::read_to_string(matches).unwrap()).unwrap()[0].clone())
}

#[test]
fn a_judge_that_always_says_first_yields_only_ties() {
    let f = folder();
    let (address, seen) = serve(|_, _| Some(Reply::said("1")));
    let found = judged(&f, &address, "").unwrap();
    let counts = |key: &str| found[key].as_u64().unwrap();
    assert_eq!((counts("wins"), counts("losses"), counts("none"), counts("unjudged")), (0, 0, 6, 0), "{found}");
    assert_eq!(found["dimensions"][0]["inconsistent"], 1.0);
    // Both orders, two dimensions, six prompts.
    assert_eq!(seen.count(), 24);
    assert!(
        seen.bodies().iter().all(|b| !b.to_string().contains("System Instruction")),
        "a judge saw the conditioned prompt"
    );
}

/// What a judge says that prefers the longer answer.
fn longer(asked: &Asked) -> &'static str {
    let text = asked.body["messages"][0]["content"].as_str().unwrap();
    let (first, second) = text.split_once("Response 1:\n").unwrap().1.split_once("\n\nResponse 2:\n").unwrap();
    let second = second.rsplit_once("\n\nAnswer with").unwrap().0;
    match first.len().cmp(&second.len()) {
        std::cmp::Ordering::Greater => "<think>The other one has 2 flaws.</think>1",
        std::cmp::Ordering::Less => "I weighed 1 and 2.\n\n**Response 2**",
        std::cmp::Ordering::Equal => "0",
    }
}

#[test]
fn a_judge_with_an_opinion_names_the_same_answer_in_both_orders() {
    let f = folder();
    let (address, _) = serve(|_, asked| Some(Reply::said(longer(asked))));
    let found = judged(&f, &address, "").unwrap();
    assert_eq!(found["dimensions"][0]["inconsistent"], 0.0, "{found}");
    let total: u64 = ["wins", "losses", "none"].iter().map(|k| found[k].as_u64().unwrap()).sum();
    assert_eq!(total, 6);
    // The same counted from the answers: who is longer at the weights of each dimension.
    let lengths = |stage: &str, weight: f64| {
        let text = std::fs::read_to_string(f.path().join(format!("out/stages/{stage}/answers.jsonl"))).unwrap();
        let rows = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        rows.filter(|r| (r["weights"][0].as_f64().unwrap() - weight).abs() < 1e-6)
            .map(|r| r["completion"].as_str().unwrap().len())
            .collect::<Vec<_>>()
    };
    for (d, weight) in [0.8, 0.2].into_iter().enumerate() {
        let (a, b) = (lengths("a", weight), lengths("b", weight));
        let count = |wins: fn(&usize, &usize) -> bool| a.iter().zip(&b).filter(|(x, y)| wins(x, y)).count() as u64;
        let along = &found["dimensions"][d];
        assert_eq!(along["wins"].as_u64(), Some(count(|x, y| x > y)), "{found}");
        assert_eq!(along["losses"].as_u64(), Some(count(|x, y| x < y)), "{found}");
    }
    assert_ne!(found["dimensions"][0]["wins"], found["dimensions"][0]["losses"], "{found}: this shows no direction");
}

#[test]
fn verdicts_that_cannot_be_read_stop_the_comparison_or_are_counted_and_never_guessed() {
    let f = folder();
    let message = judged(&f, "http://127.0.0.1:9", "").unwrap_err();
    assert!(
        message.contains(
            "judge \"chat\" of \"Helpfulness\" failed: http://127.0.0.1:9/chat/completions cannot be reached"
        ),
        "{message}"
    );
    let f = folder();
    let (address, _) = serve(|_, _| Some(Reply::said("both are fine")));
    let message = judged(&f, &address, "").unwrap_err();
    assert!(message.contains("no 0, 1 or 2 that is sure in the model's reply \"both are fine\""), "{message}");
    let f = folder();
    let message = judged(&f, &address, ", on_failure: \"skip\"").unwrap_err();
    assert!(message.contains("the judges gave no verdict on any of 6 prompts"), "{message}");
    // The second duel in the first order of the first dimension: one prompt is left out.
    let f = folder();
    let (address, _) = serve(|n, asked| Some(Reply::said(if n == 1 { "A or B" } else { longer(asked) })));
    let found = judged(&f, &address, ", on_failure: \"skip\", concurrency: 1").unwrap();
    assert_eq!((&found["unjudged"], &found["prompts"]), (&json!(1), &json!(5)), "{found}");
    let along =
        |d: usize| ["wins", "losses", "ties"].iter().map(|k| found["dimensions"][d][k].as_u64().unwrap()).sum::<u64>();
    assert_eq!((along(0), along(1)), (5, 6), "{found}");
}
