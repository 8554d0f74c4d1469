//! Remote rewards against real servers on loopback: good ones, and ones that are slow, wrong, hang, or die.

use motrain_tests::{failure, small, text};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server has seen.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    bodies: Mutex<Vec<Value>>,
}

/// Serves each connection with `answer(request number, body)`; `None` closes it without a word.
fn serve(answer: impl Fn(usize, &Value) -> Option<(u16, String)> + Send + Sync + 'static) -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (seen, answer) = (Arc::new(Seen::default()), Arc::new(answer));
    let all = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (seen, answer) = (all.clone(), answer.clone());
            std::thread::spawn(move || one(stream, &seen, answer.as_ref()));
        }
    });
    (address, seen)
}

fn one(mut stream: TcpStream, seen: &Seen, answer: &(impl Fn(usize, &Value) -> Option<(u16, String)> + ?Sized)) {
    while let Some(body) = request(&mut stream) {
        let number = seen.requests.fetch_add(1, Ordering::SeqCst);
        seen.most.fetch_max(seen.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let body: Value = serde_json::from_str(&body).unwrap();
        seen.bodies.lock().unwrap().push(body.clone());
        let reply = answer(number, &body);
        seen.now.fetch_sub(1, Ordering::SeqCst);
        let Some((status, text)) = reply else { return };
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        if stream.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

/// The body of the next request on a connection.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    let (mut wanted, mut start) = (None, 0);
    while wanted.is_none_or(|w| bytes.len() < w) {
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        if let (None, Some(at)) = (wanted, bytes.windows(4).position(|w| w == b"\r\n\r\n")) {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            start = at + 4;
            wanted = Some(start + length.expect("a body with a length"));
        }
    }
    Some(String::from_utf8_lossy(&bytes[start..]).into_owned())
}

/// One number per query: its length.
fn lengths(body: &Value) -> Option<(u16, String)> {
    let rewards: Vec<usize> = body["query"].as_array()?.iter().map(|q| q.as_str().unwrap_or("").len()).collect();
    Some((200, json!({ "rewards": rewards }).to_string()))
}

/// A small run whose first objective is remote.
fn run(folder: &tempfile::TempDir, source: &str, options: &str) -> std::process::Command {
    let mut command = small(folder.path(), "experiments/hh.rhai", "out");
    let rewards = format!(
        "tasks.hh.rewards=[{{ name = \"Remote\", source = \"{source}\", options = {{ {options} }} }}, {{ name = \"Harmlessness\", model = \"assets/hh/harmless\" }}]"
    );
    command.args(["--set", &rewards]);
    command
}

fn said(output: &Output) -> String {
    text(&output.stderr)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn openrlhf_servers_are_asked_in_batches_within_the_bound() {
    let f = folder();
    let (address, seen) = serve(|_, body| {
        std::thread::sleep(Duration::from_millis(30));
        lengths(body)
    });
    let options = format!("url = \"{address}/get_reward\", batch_size = 4, concurrency = 2");
    let output = run(&f, "remote", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let bodies = seen.bodies.lock().unwrap();
    assert!(bodies.iter().all(|b| b["query"].as_array().unwrap().len() <= 4));
    assert_eq!(bodies[0]["query"].as_array().unwrap().len(), bodies[0]["prompts"].as_array().unwrap().len());
    assert!(
        !bodies.iter().any(|b| b.to_string().contains("System Instruction")),
        "a reward saw the conditioned prompt"
    );
    assert!(seen.most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_server_that_recovers_is_tried_again() {
    let f = folder();
    let (address, seen) = serve(|n, body| match n {
        0 => Some((503, "busy".into())),
        1 => None,
        _ => lengths(body),
    });
    let options = format!("url = \"{address}/get_reward\", backoff_seconds = 0.05, concurrency = 1");
    let output = run(&f, "remote", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(seen.requests.load(Ordering::SeqCst) > 3);
}

/// The error of a run against a server, with the port taken out.
fn error(answer: impl Fn(usize, &Value) -> Option<(u16, String)> + Send + Sync + 'static, more: &str) -> String {
    let f = folder();
    let (address, _) = serve(answer);
    let options = format!("url = \"{address}/get_reward\", retries = 1, backoff_seconds = 0.05{more}");
    failure(&mut run(&f, "remote", &options)).replace(&address, "[server]")
}

#[test]
fn wrong_servers_stop_the_run() {
    let wrong = [
        ("no rewards", error(|_, _| Some((200, "{\"scores\": [1]}".into())), "")),
        ("wrong count", error(|_, _| Some((200, "{\"rewards\": [1, 2]}".into())), "")),
        ("no JSON", error(|_, _| Some((200, "<html>hello</html>".into())), "")),
        ("not found", error(|_, _| Some((404, "no such page".into())), "")),
        ("server error", error(|_, _| Some((500, "out of memory".into())), "")),
        (
            "hangs",
            error(
                |_, body| {
                    std::thread::sleep(Duration::from_secs(3));
                    lengths(body)
                },
                ", timeout_seconds = 0.3",
            ),
        ),
    ];
    insta::assert_snapshot!(wrong.map(|(what, said)| format!("{what}\n{said}")).join("\n"));
}

#[test]
fn a_dead_server_stops_the_run_at_once_with_its_checkpoint_kept() {
    let f = folder();
    // The scale's fit and three steps are answered, then the server is gone.
    let (address, _) = serve(|n, body| if n < 4 { lengths(body) } else { None });
    let options = format!("url = \"{address}/get_reward\", retries = 1, backoff_seconds = 0.05, batch_size = 64");
    let said = failure(&mut run(&f, "remote", &options));
    assert!(said.contains("reward \"Remote\" failed: "), "{said}");
    assert!(said.contains("cannot be reached") && said.contains("tried 2 times"), "{said}");
    assert!(f.path().join("out/stages/mo_odpo/checkpoint-2/state.json").is_file());
}

#[test]
fn failures_can_be_skipped_and_are_counted() {
    let f = folder();
    // 32 requests fit the scale, 96 train; evaluation is left alone, or few prompts would keep all their scores.
    let (address, _) =
        serve(
            |n, body| {
                if n % 7 == 6 && (32..128).contains(&n) { Some((400, "not this one".into())) } else { lengths(body) }
            },
        );
    let options = format!("url = \"{address}/get_reward\", batch_size = 1, on_failure = \"skip\"");
    let output = run(&f, "remote", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("left out 2 of 16 requests; the first: "), "{}", said(&output));
    let metrics = std::fs::read_to_string(f.path().join("out/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"rewards/Remote/unscored\"") && metrics.contains("\"pairs/unscored\""), "{metrics}");
}

#[test]
fn a_language_model_judges_through_chat_completions() {
    let f = folder();
    let (address, seen) = serve(|_, body| {
        let asked = body["messages"][0]["content"].as_str()?;
        let text = format!("I would say {}/10.", asked.len() % 11);
        Some((200, json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }).to_string()))
    });
    let template = "template = \"Rate from 0 to 10 how kind this answer is. Question: {prompt} Answer: {answer}\"";
    let options = format!("url = \"{address}/v1/\", model = \"judge\", {template}, pattern = \"(\\\\d+)/10\"");
    let output = run(&f, "chat", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let bodies = seen.bodies.lock().unwrap();
    assert_eq!(bodies[0]["model"], "judge");
    assert!(bodies[0]["messages"][0]["content"].as_str().unwrap().starts_with("Rate from 0 to 10"));
}

#[test]
fn a_judge_that_gives_no_number_stops_the_run() {
    let f = folder();
    let (address, _) =
        serve(|_, _| Some((200, json!({ "choices": [{ "message": { "content": "It is very kind." } }] }).to_string())));
    let options = format!("url = \"{address}/v1\", model = \"judge\", template = \"{{answer}}\"");
    let said = failure(&mut run(&f, "chat", &options)).replace(&address, "[server]");
    insta::assert_snapshot!(said);
}

/// Two evaluations and a comparison of them by a judge behind `address`; what went wrong, or the comparison.
fn judged(f: &tempfile::TempDir, address: &str) -> Result<Value, String> {
    let script = format!(
        "import \"lib/steer\" as steer;\nlet task = cfg.tasks.hh;\nlet scored = steer::scaled(task);\n\
         let policy = #{{ policy: path(task.policy) }};\nlet a = steer::front(\"a\", \"A\", task, policy, scored);\n\
         policy.conditioner = conditioner(\"none\");\nlet b = steer::front(\"b\", \"B\", task, policy, scored);\n\
         let asked = judge(\"chat\", #{{ url: \"{address}\", model: \"m\", question: \"Which is better?\", retries: 0 }});\n\
         compare(\"wins\", #{{ method: a, against: [b], dimensions: [\n\
           #{{ name: \"Helpfulness\", weights: [0.8, 0.2], judge: asked }},\n\
           #{{ name: \"Harmlessness\", weights: [0.2, 0.8], judge: asked }},\n] }});\n"
    );
    motrain_tests::write(f.path(), "judge.rhai", &script);
    let output = small(f.path(), "judge.rhai", "out").output().unwrap();
    let matches = f.path().join("out/stages/wins/matches.json");
    if !output.status.success() {
        assert!(f.path().join("out/stages/b/answers.jsonl").is_file(), "finished evaluations are kept");
        return Err(said(&output));
    }
    Ok(serde_json::from_str::<Value>(&std::fs::read_to_string(matches).unwrap()).unwrap()[0].clone())
}

fn reply(text: &str) -> Option<(u16, String)> {
    Some((200, json!({ "choices": [{ "message": { "content": text } }] }).to_string()))
}

#[test]
fn a_judge_that_always_says_first_yields_only_ties() {
    let f = folder();
    let (address, seen) = serve(|_, _| reply("1"));
    let found = judged(&f, &address).unwrap();
    let counts = |key: &str| found[key].as_u64().unwrap();
    assert_eq!((counts("wins"), counts("losses"), counts("none")), (0, 0, 6), "{found}");
    assert_eq!(found["dimensions"][0]["inconsistent"], 1.0);
    // Both orders, two dimensions, six prompts.
    assert_eq!(seen.requests.load(Ordering::SeqCst), 24);
    let bodies = seen.bodies.lock().unwrap();
    assert!(bodies.iter().all(|b| !b.to_string().contains("System Instruction")), "a judge saw the conditioned prompt");
}

#[test]
fn a_judge_with_an_opinion_names_the_same_answer_in_both_orders() {
    let f = folder();
    // Prefers the longer answer.
    let (address, _) = serve(|_, body| {
        let text = body["messages"][0]["content"].as_str().unwrap();
        let (first, second) = text.split_once("Response 1:\n").unwrap().1.split_once("\n\nResponse 2:\n").unwrap();
        let second = second.rsplit_once("\n\nAnswer with").unwrap().0;
        reply(match first.len().cmp(&second.len()) {
            std::cmp::Ordering::Greater => "1",
            std::cmp::Ordering::Less => "Response 2",
            std::cmp::Ordering::Equal => "0",
        })
    });
    let found = judged(&f, &address).unwrap();
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
fn a_judge_that_cannot_be_reached_or_understood_stops_the_comparison() {
    let f = folder();
    let message = judged(&f, "http://127.0.0.1:9").unwrap_err();
    assert!(message.contains("the judge failed: http://127.0.0.1:9/chat/completions cannot be reached"), "{message}");
    let f = folder();
    let (address, _) = serve(|_, _| reply("both are fine"));
    let message = judged(&f, &address).unwrap_err();
    assert!(message.contains("no 0, 1 or 2 in the model's reply \"both are fine\""), "{message}");
}
