//! Remote rewards against real servers on loopback: good ones, and ones that are slow, wrong, busy, elsewhere, or die.

use flate2::Compression;
use flate2::write::GzEncoder;
use motrain_tests::server::{self, Asked, Reply, Seen, lengths, lengths_of, serve};
use motrain_tests::{failure, motrain, small, text};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A small run whose first objective is remote.
fn run(folder: &tempfile::TempDir, source: &str, options: &str) -> Command {
    let mut command = small(folder.path(), "experiments/hh.rhai", "out");
    let rewards = format!(
        "tasks.hh.rewards=[{{ name = \"Remote\", source = \"{source}\", options = {{ {options} }} }}, {{ name = \"Harmlessness\", model = \"assets/hh/harmless\" }}]"
    );
    command.args(["--set", &rewards]);
    command
}

/// A run that only fits the scale of a remote reward, on 24 samples.
fn fit(folder: &tempfile::TempDir, url: &str, options: &str) -> Command {
    server::fit(folder.path(), "Remote", "remote", &format!("url: \"{url}\"{options}"))
}

/// The fitted scale of a run that must succeed.
fn scale(folder: &tempfile::TempDir, command: &mut Command) -> Value {
    server::scale(folder.path(), command)
}

fn said(output: &Output) -> String {
    text(&output.stderr)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The error of a fit against a server, with the port taken out; 24 samples make one request.
fn error(answer: impl Fn(usize, &Asked) -> Option<Reply> + Send + Sync + 'static, more: &str) -> (String, Arc<Seen>) {
    let f = folder();
    let (address, seen) = serve(answer);
    let options = format!(", retries: 1, backoff_seconds: 0.01{more}");
    (failure(&mut fit(&f, &format!("{address}/get_reward"), &options)).replace(&address, "[server]"), seen)
}

#[test]
fn openrlhf_servers_are_asked_in_batches_within_the_bound() {
    let f = folder();
    let (address, seen) = serve(|_, asked| {
        std::thread::sleep(Duration::from_millis(30));
        lengths(asked)
    });
    let options = format!("url = \"{address}/get_reward\", batch_size = 4, concurrency = 2");
    let output = run(&f, "remote", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let bodies = seen.bodies();
    assert!(bodies.iter().all(|b| b["query"].as_array().unwrap().len() <= 4));
    assert_eq!(bodies[0]["query"].as_array().unwrap().len(), bodies[0]["prompts"].as_array().unwrap().len());
    let finished: Vec<bool> =
        bodies.iter().flat_map(|b| b["finished"].as_array().unwrap()).map(|f| f.as_bool().unwrap()).collect();
    assert!(finished.contains(&false), "no answer of 16 tokens was cut");
    assert!(
        !bodies.iter().any(|b| b.to_string().contains("System Instruction")),
        "a reward saw the conditioned prompt"
    );
    assert!(seen.most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn failures_that_may_pass_are_tried_again() {
    let f = folder();
    let (address, seen) = serve(|n, asked| match n {
        0 => None,
        1..=8 => Some(Reply::status([408, 409, 425, 429, 500, 502, 503, 504][n - 1], "busy")),
        9 => Some(Reply::json(&json!({ "error": { "message": "Provider returned error", "code": 429 } }))),
        10 => Some(Reply::status(200, "")),
        11 => Some(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"rewards\": [1")),
        12 => Some(Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"rew\r\n")),
        _ => lengths(asked),
    });
    let options = ", retries: 13, backoff_seconds: 0.0001";
    scale(&f, &mut fit(&f, &format!("{address}/get_reward"), options));
    assert_eq!(seen.count(), 14);
}

#[test]
fn failures_that_do_not_pass_are_not_tried_again() {
    let quota = json!({ "error": { "message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota" } });
    let invalid = json!({ "error": { "message": "who are you?", "type": "authentication_error" } });
    let mut replies: Vec<Reply> = [304, 400, 401, 402, 403, 404, 405, 413, 415, 422, 501, 505, 511]
        .into_iter()
        .map(|code| Reply::status(code, "{\"detail\": \"no\"}"))
        .collect();
    replies.extend([
        Reply::new(429, &[("Retry-After", "1")], quota.to_string().as_bytes()),
        Reply::json(&invalid),
        Reply::status(204, ""),
        Reply::status(200, "<html>hello</html>"),
        Reply::status(200, "OK"),
        Reply::json(&json!({ "rewards": [1, 2] })),
        Reply::json(&json!({ "scores": { "good": 1 } })),
        Reply::new(200, &[("Content-Encoding", "br")], b"x"),
        Reply::new(200, &[("Content-Type", "application/json; charset=klingon")], b"{}"),
        Reply::status(503, "later").with("Retry-After", "7200"),
    ]);
    let mut all = String::new();
    for reply in replies {
        let (message, seen) = error(move |_, _| Some(reply.clone()), "");
        assert_eq!(seen.count(), 1, "{message}");
        all += &format!("{message}\n");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn failures_that_last_stop_the_run() {
    let (busy, _) = error(|_, _| Some(Reply::status(500, "out of memory")), "");
    let (closed, _) = error(|_, _| None, "");
    let (cut, _) = error(|_, _| Some(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")), "");
    let (strange, _) = error(|_, _| Some(Reply::raw("SSH-2.0-OpenSSH_9.6\r\n")), "");
    let (slow, seen) = error(
        |_, asked| {
            std::thread::sleep(Duration::from_secs(2));
            lengths(asked)
        },
        ", timeout_seconds: 0.3",
    );
    assert_eq!(seen.count(), 2);
    let f = folder();
    let unreachable = |url: &str| failure(&mut fit(&f, url, ", retries: 0"));
    let rest = [unreachable("http://127.0.0.1:9/get_reward"), unreachable("http://no-such-host.invalid/get_reward")];
    insta::assert_snapshot!([busy, closed, cut, strange, slow].into_iter().chain(rest).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_server_without_tls_is_named_as_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/get_reward", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The first bytes of a TLS greeting, so that the answer is not lost to a reset.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let f = folder();
    let message = failure(&mut fit(&f, &url, ""));
    assert!(message.contains("cannot be reached by TLS") && message.contains("speaks https"), "{message}");
    assert!(!message.contains("tried"), "{message}");
}

#[test]
fn a_server_that_says_when_is_asked_then() {
    let f = folder();
    let began = Instant::now();
    let (address, seen) = serve(move |n, asked| match n {
        0 => Some(Reply::status(429, "Rate limit reached").with("Retry-After", "1")),
        1 => Some(
            Reply::status(503, "")
                .with("Date", "Wed, 21 Oct 2015 07:28:00 GMT")
                .with("Retry-After", "Wed, 21 Oct 2015 07:28:01 GMT"),
        ),
        _ => lengths(asked),
    });
    scale(&f, &mut fit(&f, &format!("{address}/get_reward"), ", retries: 2, backoff_seconds: 0.001"));
    let at: Vec<Instant> = seen.asked().iter().map(|a| a.at).collect();
    assert_eq!(at.len(), 3);
    assert!(at.windows(2).all(|w| w[1] - w[0] >= Duration::from_secs(1)), "{:?} after {began:?}", at);
}

#[test]
fn replies_are_read_in_every_encoding() {
    let gzipped = |body: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let chunked = |body: &str| {
        let (a, b) = body.split_at(body.len() / 2);
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
            a.len(),
            b.len()
        )
    };
    let f = folder();
    let (address, _) = serve(|_, asked| lengths(asked));
    let expected = scale(&f, &mut fit(&f, &format!("{address}/get_reward"), ""));
    type Form = Box<dyn Fn(&str) -> Reply + Send + Sync>;
    let forms: Vec<Form> = vec![
        Box::new(move |body| Reply::new(200, &[("Content-Encoding", "gzip")], &gzipped(body))),
        Box::new(move |body| Reply::raw(chunked(body))),
        Box::new(|body| Reply::raw(format!("HTTP/1.1 200 OK\r\n\r\n{body}"))),
        Box::new(|body| Reply::new(200, &[], format!("\u{feff}{body}").as_bytes())),
    ];
    for form in forms {
        let f = folder();
        let (address, _) = serve(move |_, asked| Some(form(&json!({ "rewards": lengths_of(asked)? }).to_string())));
        assert_eq!(scale(&f, &mut fit(&f, &format!("{address}/get_reward"), "")), expected);
    }
}

#[test]
fn redirects_keep_the_request_or_are_refused() {
    // To the same server by a path, then to another one, which must not see the key.
    let (other, elsewhere) = serve(|_, asked| lengths(asked));
    let to = format!("{other}/scores");
    let (address, seen) = serve(move |n, _| match n {
        0 => Some(Reply::status(307, "").with("Location", "/v2/get_reward?x=1")),
        _ => Some(Reply::status(308, "").with("Location", &to)),
    });
    let f = folder();
    scale(
        &f,
        fit(&f, &format!("{address}/get_reward"), ", api_key_env: \"REMOTE_KEY\"").env("REMOTE_KEY", "sk-secret\n"),
    );
    let (first, last) = (seen.asked(), elsewhere.asked());
    assert_eq!(
        (first[1].line.as_str(), last[0].line.as_str()),
        ("POST /v2/get_reward?x=1 HTTP/1.1", "POST /scores HTTP/1.1")
    );
    assert_eq!((&first[0].body, &first[1].body), (&first[1].body, &last[0].body));
    assert_eq!(first[1].header("authorization"), Some("Bearer sk-secret"));
    assert_eq!(last[0].header("authorization"), None);

    let mut refused = String::new();
    for code in [301, 302, 303] {
        refused += &error(
            move |_, _| Some(Reply::status(code, "").with("Location", "https://u:secret@new/path?key=secret")),
            "",
        )
        .0;
        refused += "\n";
    }
    refused += &error(|_, _| Some(Reply::status(308, "").with("Location", "/again")), "").0;
    refused += "\n";
    refused += &error(|_, _| Some(Reply::status(307, "")), "").0;
    insta::assert_snapshot!(refused);
}

#[test]
fn proxies_are_used_and_named() {
    let (proxy, seen) = serve(|_, asked| lengths(asked));
    let f = folder();
    let through = |variable: &str, value: &str, url: &str| {
        let mut command = fit(&f, url, ", retries: 0");
        command.env(variable, value);
        command
    };
    let with_user = proxy.replace("http://", "http://me:secret@");
    scale(&f, &mut through("http_proxy", &with_user, "http://reward.invalid:81/get_reward?v=1"));
    let asked = &seen.asked()[0];
    assert_eq!(asked.line, "POST http://reward.invalid:81/get_reward?v=1 HTTP/1.1");
    assert_eq!(asked.header("host"), Some("reward.invalid:81"));
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));

    let (direct, alone) = serve(|_, asked| lengths(asked));
    std::fs::remove_dir_all(f.path().join("out")).unwrap();
    scale(
        &f,
        through("ALL_PROXY", "http://127.0.0.1:9", &format!("{direct}/get_reward"))
            .env("NO_PROXY", "localhost,127.0.0.1"),
    );
    assert_eq!(alone.count(), 1);

    let (broken, tunnels) = serve(|_, asked| Some(Reply::status(502, &format!("cannot reach {}", asked.line))));
    let mut said = String::new();
    for (variable, value, url) in [
        ("http_proxy", broken.as_str(), "http://reward.invalid/get_reward"),
        ("HTTPS_PROXY", broken.as_str(), "https://reward.invalid/get_reward"),
        ("all_proxy", "me:secret@127.0.0.1:9", "http://reward.invalid/get_reward"),
        ("all_proxy", "gopher://me:secret@old", "http://reward.invalid/get_reward"),
    ] {
        said += &failure(&mut through(variable, value, url)).replace(&broken, "[proxy]");
        said += "\n";
    }
    assert!(tunnels.asked()[1].line.starts_with("CONNECT reward.invalid:443 "));
    assert!(!said.contains("secret"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn a_connection_that_the_server_has_closed_meanwhile_costs_no_try() {
    let f = folder();
    let (address, seen) = serve(|_, asked| Some(Reply { keep: false, ..lengths(asked)? }));
    let options = ", retries: 0, batch_size: 1, concurrency: 1";
    scale(&f, &mut fit(&f, &format!("{address}/get_reward"), options));
    assert_eq!(seen.count(), 24);
}

#[test]
fn what_a_server_says_neither_steers_nor_fills_the_terminal() {
    let (message, _) = error(|_, _| Some(Reply::status(400, &"\u{1b}[2J\u{1b}]0;owned\u{7}\r\n".repeat(50_000))), "");
    assert!(message.len() < 4000, "{} bytes", message.len());
    assert!(!message.contains(['\u{1b}', '\u{7}', '\r']), "{message:?}");
    assert!(message.contains("\\u{1b}[2J") && message.contains("characters)"), "{message}");
}

#[test]
fn a_score_that_is_no_number_stops_the_run_or_is_left_out() {
    let nan = |_: usize, asked: &Asked| {
        let rewards: Vec<String> = lengths_of(asked)?
            .iter()
            .enumerate()
            .map(|(i, n)| if i == 2 { "NaN".into() } else { n.to_string() })
            .collect();
        Some(Reply::new(200, &[], format!("{{\"rewards\": [{}]}}", rewards.join(", ")).as_bytes()))
    };
    insta::assert_snapshot!(error(nan, "").0);
    let f = folder();
    let (address, _) = serve(nan);
    let output = fit(&f, &format!("{address}/get_reward"), ", on_failure: \"skip\"").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("left out 1 of 24 scores; the first: "), "{}", said(&output));
}

#[test]
fn options_that_make_no_sense_are_refused_before_any_work() {
    let f = folder();
    let mut all = String::new();
    for (url, options) in [
        ("localhost:5000", ""),
        ("http://me:secret@ho st", ""),
        ("ftp://me:secret@host", ""),
        ("http:///get_reward", ""),
        ("http://me:secret@host/get_reward", ""),
        ("http://secret@host/get_reward", ""),
        ("http://host/get_reward?api_key=secret", ""),
        ("http://host/get_reward?api_key=${NOT_SET_ANYWHERE}", ""),
        ("http://host:99999", ""),
        ("http://host", ", retries: 9223372036854775807"),
        ("http://host", ", timeout_seconds: 0"),
        ("http://host", ", max_wait_seconds: -1"),
        ("http://host", ", concurrency: 0"),
        ("http://host", ", batch_size: 0"),
        ("http://host", ", api_key_env: \"NOT_SET_ANYWHERE\""),
        ("http://host", ", api_key_env: \"BROKEN_KEY\""),
        ("http://host", ", on_failure: \"ignore\""),
    ] {
        fit(&f, url, options);
        let mut check = motrain(f.path());
        check.args(["check", "fit.rhai"]).env("BROKEN_KEY", "sk-secret\r\nX-Admin: 1");
        all += &format!("{}\n", failure(&mut check));
    }
    assert!(!all.contains("secret"), "{all}");
    insta::assert_snapshot!(all);
}

#[test]
fn a_dead_server_stops_the_run_at_once_with_its_checkpoint_kept() {
    let f = folder();
    // The scale's fit and three steps are answered, then the server is gone.
    let (address, _) = serve(|n, asked| if n < 4 { lengths(asked) } else { None });
    let options = format!("url = \"{address}/get_reward\", retries = 1, backoff_seconds = 0.05, batch_size = 64");
    let said = failure(&mut run(&f, "remote", &options));
    assert!(said.contains("reward \"Remote\" failed: "), "{said}");
    assert!(said.contains("cannot be reached") && said.contains("tried 2 times"), "{said}");
    assert!(f.path().join("out/stages/mo_odpo/checkpoint-3/state.json").is_file(), "the three steps are lost");
}

#[test]
fn failures_can_be_skipped_and_are_counted() {
    let f = folder();
    // 32 requests fit the scale, 96 train; evaluation is left alone, or few prompts would keep all their scores.
    let (address, _) = serve(|n, asked| {
        if n % 7 == 6 && (32..128).contains(&n) { Some(Reply::status(400, "not this one")) } else { lengths(asked) }
    });
    let options = format!("url = \"{address}/get_reward\", batch_size = 1, on_failure = \"skip\"");
    let output = run(&f, "remote", &options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("left out 2 of 16 requests; the first: "), "{}", said(&output));
    let metrics = std::fs::read_to_string(f.path().join("out/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"rewards/Remote/unscored\"") && metrics.contains("\"pairs/unscored\""), "{metrics}");
}
