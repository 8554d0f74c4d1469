//! HTTP servers on loopback that answer whatever a test wants, byte by byte if need be.

use crate::{motrain, text, write};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Request line and headers, names in lower case.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub at: Instant,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What a server has seen.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicUsize,
    now: AtomicUsize,
    /// The most requests that were under way at once.
    pub most: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
}

impl Seen {
    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn bodies(&self) -> Vec<Value> {
        self.asked().into_iter().map(|a| a.body).collect()
    }
}

/// An answer: bytes, and whether the connection stays open behind them.
#[derive(Clone)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub keep: bool,
}

impl Reply {
    /// With a length, on a connection that stays open.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len()).into_bytes();
        for (name, value) in headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        Self { bytes, keep: true }
    }

    /// These bytes, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), keep: false }
    }

    pub fn json(body: &Value) -> Self {
        Self::new(200, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    pub fn status(status: u16, body: &str) -> Self {
        Self::new(status, &[], body.as_bytes())
    }

    /// With another header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let line = self.bytes.windows(2).position(|w| w == b"\r\n").expect("a status line") + 2;
        self.bytes.splice(line..line, format!("{name}: {value}\r\n").into_bytes());
        self
    }

    /// What a language model says.
    pub fn said(text: &str) -> Self {
        let choice =
            json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } });
        Self::json(&json!({ "object": "chat.completion", "choices": [choice] }))
    }
}

/// Serves each connection with `answer(request number, request)`; `None` closes it without a word. The address has no slash at its end.
pub fn serve(answer: impl Fn(usize, &Asked) -> Option<Reply> + Send + Sync + 'static) -> (String, Arc<Seen>) {
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

fn one(mut stream: TcpStream, seen: &Seen, answer: &(impl Fn(usize, &Asked) -> Option<Reply> + ?Sized)) {
    while let Some(asked) = request(&mut stream) {
        let number = seen.requests.fetch_add(1, Ordering::SeqCst);
        seen.most.fetch_max(seen.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        seen.asked.lock().unwrap().push(asked.clone());
        let reply = answer(number, &asked);
        seen.now.fetch_sub(1, Ordering::SeqCst);
        let Some(reply) = reply else { return };
        if stream.write_all(&reply.bytes).is_err() || !reply.keep {
            return;
        }
    }
}

/// The next request on a connection.
fn request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let line = lines.next()?.to_owned();
    let pair = |l: &str| l.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(pair).collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse::<usize>().ok());
    let end = head + 4 + length.unwrap_or(0);
    while bytes.len() < end {
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    }
    let body = serde_json::from_slice(&bytes[head + 4..end]).unwrap_or(Value::Null);
    Some(Asked { line, headers, body, at: Instant::now() })
}

/// One number per query of OpenRLHF's request: its length.
pub fn lengths(asked: &Asked) -> Option<Reply> {
    Some(Reply::json(&json!({ "rewards": lengths_of(asked)? })))
}

pub fn lengths_of(asked: &Asked) -> Option<Vec<usize>> {
    Some(asked.body["query"].as_array()?.iter().map(|q| q.as_str().unwrap_or("").len()).collect())
}

/// A run that only fits the scale of one reward, on 24 samples of the embedded policy.
pub fn fit(folder: &Path, name: &str, source: &str, options: &str) -> Command {
    let script = format!(
        "rewards(\"r\", #{{ sources: [reward(\"{name}\", \"{source}\", #{{ {options} }})], policy: path(\"assets/hh/policy\"), \
         prompts: #{{ paths: [path(\"assets/hh/prompts.jsonl\")] }}, samples: 24, generate: #{{ max_new_tokens: 8 }} }});"
    );
    write(folder, "fit.rhai", &script);
    let mut command = motrain(folder);
    command.args(["--script", "fit.rhai", "--out", "out"]);
    command
}

/// The scale that such a run fits.
pub fn scale(folder: &Path, command: &mut Command) -> Value {
    let output = command.output().expect("motrain starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let scales = std::fs::read_to_string(folder.join("out/stages/r/scales.json")).expect("scales");
    let scales: Value = serde_json::from_str(&scales).expect("JSON");
    scales["scales"].as_object().and_then(|all| all.values().next()).cloned().expect("a scale")
}
