//! Whoever hands over a data file gets at most an error that names the file and, within it, the line.

use super::*;
use crate::rng::{Rng, rng};
use rand::Rng as _;
use serde_json::json;

const MUTANTS: u64 = 3000;

/// A file of each form.
fn originals() -> Vec<Vec<u8>> {
    let turn = |role: &str, content: Value| json!({ "role": role, "content": content });
    let (q, a, b) = (turn("user", json!("q é")), turn("assistant", json!("a")), turn("assistant", json!("b")));
    let parts = turn("user", json!([{ "type": "text", "text": "q" }]));
    let dialogue = |answer: &str| format!("\n\nHuman: q\n\nAssistant: {answer}\n\nHuman: r\n\nAssistant: {answer}");
    let rows = [
        json!({ "prompt": "q", "completion": "a", "finished": false, "score": 0.5 }),
        json!({ "prompt": "Human: q\n\nAssistant:", "chosen": "a", "rejected": "b" }),
        json!({ "chosen": dialogue("a"), "rejected": dialogue("b") }),
        json!({ "prompt": [parts, a, q], "chosen": [a], "rejected": [b], "completion": [a] }),
        json!({ "chosen": [q, a], "rejected": [q, b], "messages": [q, a] }),
        json!({ "conversations": [{ "from": "human", "value": "q" }, { "from": "gpt", "value": "a", "weight": 1 }], "system": "s" }),
        json!({ "chosen": "The sky is blue.", "rejected": "The sky is green." }),
    ];
    rows.iter().map(|row| format!("{row}\n\n{row}\r\n{row}\n").into_bytes()).collect()
}

/// Exchanges a value somewhere within another for one of another type.
fn exchange(value: &mut Value, rng: &mut Rng) {
    let inside: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => vec![],
    };
    let count = inside.len();
    if count > 0 && rng.random_bool(0.8) {
        return inside.into_iter().nth(rng.random_range(0..count)).into_iter().for_each(|v| exchange(v, rng));
    }
    let others = [
        Value::Null,
        json!(true),
        json!(0),
        json!(u64::MAX),
        json!(-1e300),
        json!(""),
        json!("\u{0}\n\nHuman:"),
        json!("\n\nAssistant:"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "role": "user" }),
        json!({ "role": "assistant", "content": [{ "type": "image" }] }),
    ];
    *value = others[rng.random_range(0..others.len())].clone();
}

fn mutant(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if rng.random_bool(0.5) {
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let mut row: Value = serde_json::from_slice(line).unwrap();
        (0..rng.random_range(1..4)).for_each(|_| exchange(&mut row, rng));
        return format!("{{\"prompt\": \"first\"}}\n{row}\n").into_bytes();
    }
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..out.len().max(1));
        match rng.random_range(0..5) {
            _ if out.is_empty() => (),
            0 => out[at] ^= 1 << rng.random_range(0..8),
            1 => out[at] = rng.random(),
            2 => out.truncate(at),
            3 => drop(out.drain(at..(at + rng.random_range(1..20)).min(out.len()))),
            _ => out.splice(at..at, bytes[..rng.random_range(0..bytes.len())].iter().copied()).for_each(drop),
        }
    }
    if rng.random_bool(0.2) {
        out = gzipped(&out);
        let at = rng.random_range(0..out.len());
        out[at] ^= 1 << rng.random_range(0..8);
    }
    out
}

/// The file and the line, or the file alone where the whole of it is something else.
fn names_the_place(message: &str) -> bool {
    let Some(rest) = message.strip_prefix("rows.jsonl:") else { return false };
    let line = rest.split(':').next().is_some_and(|line| line.parse::<usize>().is_ok_and(|n| n > 0));
    line || rest.ends_with("not JSON lines") || rest.contains("not JSON lines; ")
}

#[test]
fn mutants_of_every_form_are_rows_or_errors_that_name_their_place() {
    let mut errors = 0;
    for (form, original) in originals().iter().enumerate() {
        for i in 0..MUTANTS {
            let bytes = mutant(original, &mut rng(5, &format!("mutants of form {form}"), i));
            let outcomes = [
                rows(&bytes, forms_of::prompt).0.err(),
                rows(&bytes, forms_of::pair).0.err(),
                rows(&bytes, forms_of::demonstration).0.err(),
            ];
            for error in outcomes.into_iter().flatten().map(|e| e.to_string()) {
                errors += 1;
                assert!(names_the_place(&error), "{error}\n{:?}", String::from_utf8_lossy(&bytes));
                assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
            }
        }
    }
    assert!(errors > 1000, "{errors} errors: the mutants are too tame");
}
