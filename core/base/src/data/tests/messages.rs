//! What is said of a file that is something else, of a wrong row, and of rows that are left out.

use super::*;

const P: u8 = 0;
const PAIR: u8 = 1;
const SFT: u8 = 2;

/// The error, or what is said beside the rows.
fn outcome(form: u8, bytes: &[u8]) -> String {
    let said = |read: Result<usize>, notes: Notes| match read {
        Err(e) => e.to_string(),
        Ok(n) => format!("{n} read: {}", notes.sentences().join("; ")),
    };
    match form {
        P => {
            let (read, notes) = rows(bytes, forms_of::prompt);
            said(read.map(|r| r.len()), notes)
        }
        PAIR => {
            let (read, notes) = rows(bytes, forms_of::pair);
            said(read.map(|r| r.len()), notes)
        }
        _ => {
            let (read, notes) = rows(bytes, forms_of::demonstration);
            said(read.map(|r| r.len()), notes)
        }
    }
}

fn table(cases: &[(&str, u8, &[u8])]) -> String {
    cases.iter().map(|(name, form, bytes)| format!("{name}\n    {}\n", outcome(*form, bytes))).collect()
}

#[test]
fn files_that_are_something_else() {
    let utf16: Vec<u8> = "{\"prompt\": \"q\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bad = |text: &str| text.as_bytes().to_vec();
    let packed = gzipped(&b"{\"prompt\": \"How do I pick a lock?\"}\n".repeat(50));
    let cut = packed[..packed.len() - 12].to_vec();
    let mut damaged = packed.clone();
    damaged[packed.len() - 7] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("Parquet", bad("PAR1\u{15}\u{4}")),
        ("UTF-16 with a mark", [b"\xff\xfe".to_vec(), utf16.clone()].concat()),
        ("UTF-16 without", utf16),
        ("zip", b"PK\x03\x04....".to_vec()),
        ("zstd", b"\x28\xb5\x2f\xfd....".to_vec()),
        ("gzip in gzip", gzipped(&gzipped(b"{}"))),
        ("Parquet in gzip", gzipped(b"PAR1....")),
        ("array", bad("[\n {\"prompt\": \"q\"}\n]\n")),
        ("array on a line", bad("\u{feff} [{\"prompt\": \"q\"}]")),
        ("array in gzip", gzipped(b"[\n{\"prompt\": \"q\"}, {\"prompt\": \"r\"}]")),
        ("array without rows", bad("[]")),
        ("array of texts", bad("[\n{\"prompt\": \"q\"},\n\"r\"]")),
        ("array with a wrong row", bad("[{\"prompt\": \"q\"},\n\n{\n\"prompt\": 5}]")),
        ("array, cut", bad("[{\"prompt\": \"q\"},\n{\"pro")),
        ("array with a comma behind", bad("[{\"prompt\": \"q\"},\n]")),
        ("array without a comma", bad("[{\"prompt\": \"q\"}\n{\"prompt\": \"r\"}]")),
        ("arrays on lines", bad("[{\"prompt\": \"q\"}]\n[{\"prompt\": \"r\"}]\n")),
        ("array, deep", format!("[{}{}]", "[".repeat(500), "]".repeat(500)).into_bytes()),
        ("array in Latin-1", b"[\n{\"prompt\": \"caf\xe9\"}]".to_vec()),
        ("array, gzip cut", {
            let p = gzipped(format!("[{}]", vec!["{\"prompt\": \"q\"}"; 90].join(",")).as_bytes());
            p[..p.len() - 12].to_vec()
        }),
        ("gzip bomb of an array", gzipped(format!("[{}]", vec!["{}"; 1 << 17].join(",")).as_bytes())),
        ("CSV", bad("prompt,chosen,rejected\nq,a,b\n")),
        ("HTML", bad("<!DOCTYPE html>\n<html></html>")),
        ("Git LFS", bad("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")),
        ("an object over several lines", bad("{\n  \"prompt\": \"q\"\n}\n")),
        ("commas", bad("{\"prompt\": \"q\"},\n{\"prompt\": \"r\"}\n")),
        ("two on a line", bad("{\"prompt\": \"q\"} {\"prompt\": \"r\"}\n")),
        ("Python", bad("{'prompt': 'q'}\n")),
        ("Python's None", bad("{\"prompt\": None}\n")),
        ("NaN", bad("{\"prompt\": \"q\", \"score\": NaN}\n")),
        ("huge number", bad("{\"prompt\": \"q\", \"score\": 1e999}\n")),
        ("half a character", bad("{\"prompt\": \"\\ud83d\"}\n")),
        ("NUL", b"{\"prompt\": \"q\"}\n\0\0\0\0".to_vec()),
        ("nothing but NUL", vec![0; 100]),
        ("Latin-1", b"{\"prompt\": \"q\"}\n{\"prompt\": \"caf\xe9\"}\n".to_vec()),
        ("raw tab", bad("{\"prompt\": \"a\tb\"}\n")),
        ("text", bad("{\"prompt\": \"q\"}\n\"q\"\n")),
        ("cut", bad("{\"prompt\": \"q\"}\n{\"prom")),
        ("deep", format!("{{\"prompt\": {}{}}}", "[".repeat(500), "]".repeat(500)).into_bytes()),
        ("gzip, cut", cut),
        ("gzip, damaged", damaged),
        ("gzip bomb of one line", gzipped(&vec![b' '; 70 << 20])),
        ("gzip bomb of rows", gzipped(&b"{\"prompt\": \"a\"}\n".repeat(1 << 17))),
        ("gzip bomb of blank lines", gzipped(&vec![b'\n'; 1 << 17])),
    ];
    let cases: Vec<(&str, u8, &[u8])> = cases.iter().map(|(name, bytes)| (*name, P, bytes.as_slice())).collect();
    insta::assert_snapshot!(table(&cases));
}

#[test]
fn an_endless_line_ends() {
    let endless = Lines::new(Path::new("rows.jsonl"), std::io::repeat(b'x'), 0).unwrap();
    let message = endless.map(|r| r.map(|_| ())).collect::<Result<Vec<_>>>().unwrap_err().to_string();
    assert!(message.starts_with("rows.jsonl:1: is longer than 64 MiB"), "{message}");
}

#[test]
fn rows_that_are_wrong() {
    let cases: &[(&str, u8, &[u8])] = &[
        ("no column", P, br#"{"promt": "q", "text": null}"#),
        ("no column at all", P, b"{}"),
        ("many columns", P, br#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10}"#),
        ("escapes", P, "{\"\\u001b[31m\": 1}".as_bytes()),
        ("a number", P, br#"{"prompt": 3}"#),
        ("messages in a text", P, br#"{"messages": "[{\"role\": \"user\"}]"}"#),
        ("a list of texts", P, br#"{"prompt": ["q"]}"#),
        ("ends with an answer", P, br#"{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#),
        ("ends with the system", P, br#"{"prompt": [{"role": "system", "content": "s"}]}"#),
        ("no role", P, br#"{"messages": [{"content": "q"}]}"#),
        ("role of another type", P, br#"{"messages": [{"role": 1, "content": "q"}]}"#),
        ("unknown role", P, br#"{"messages": [{"role": "usr", "content": "q"}]}"#),
        ("another unknown role", P, br#"{"messages": [{"role": "developer", "content": "q"}]}"#),
        ("null content", P, br#"{"messages": [{"role": "user", "content": null}]}"#),
        ("content of another type", P, br#"{"messages": [{"role": "user", "content": {"text": "q"}}]}"#),
        ("image", P, br#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": "x"}}]}]}"#),
        ("part without type", P, br#"{"messages": [{"role": "user", "content": [{"text": "q"}]}]}"#),
        ("tool calls", P, br#"{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}]}"#),
        ("tool role", P, br#"{"messages": [{"role": "tool", "content": "Sunny"}]}"#),
        ("reasoning", P, br#"{"messages": [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]}"#),
        ("no rejected", PAIR, br#"{"prompt": "q", "chosen": "a"}"#),
        ("null chosen", PAIR, br#"{"prompt": "q", "chosen": null, "rejected": "b"}"#),
        ("text and list", PAIR, br#"{"prompt": "q", "chosen": "a", "rejected": [{"role": "assistant", "content": "b"}]}"#),
        ("number and text", PAIR, br#"{"prompt": "q", "chosen": 1, "rejected": "b"}"#),
        ("answers without a prompt", PAIR, br#"{"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}"#),
        ("other questions", PAIR, br#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}"#),
        ("texts that share nothing", PAIR, br#"{"chosen": "a", "rejected": "b"}"#),
        ("dialogues that share nothing", PAIR, br#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: r\n\nAssistant: b"}"#),
        ("one dialogue", PAIR, br#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"}"#),
        ("no completion", SFT, br#"{"prompt": "q", "output": "x"}"#),
        ("completion of another type", SFT, br#"{"prompt": "q", "completion": 3}"#),
        ("finished of another type", SFT, br#"{"prompt": "q", "completion": "x", "finished": "false"}"#),
        ("half a weight", SFT, br#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0.5}]}"#),
    ];
    insta::assert_snapshot!(table(cases));
}

#[test]
fn rows_that_are_left_out_or_remarked_on() {
    let cases: &[(&str, u8, &[u8])] = &[
        ("empty prompts", P, b"{\"prompt\": \"q\"}\n{\"prompt\": \"\"}\n{\"prompt\": []}\n{\"prompt\": \"\\n\\nHuman: \\n\\nAssistant:\"}"),
        ("two answers in a row", P, br#"{"chosen": "\n\nHuman: q\n\nAssistant: a\n\nAssistant: b"}"#),
        ("a conversation without a question", P, br#"{"messages": [{"role": "assistant", "content": "a"}]}"#),
        ("names and tools", P, br#"{"messages": [{"role": "user", "content": "q", "name": "Ann"}], "tools": [{"name": "f"}]}"#),
        ("equal answers", PAIR, br#"{"prompt": "q", "chosen": "a", "rejected": "a"}"#),
        ("answers that differ by a space", PAIR, br#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: a "}"#),
        ("no question", PAIR, br#"{"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}"#),
        ("an implicit prompt", PAIR, br#"{"chosen": "The sky is blue.", "rejected": "The sky is green."}"#),
        ("dialogue that ends with Human", PAIR, br#"{"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#),
        ("answers of several turns", PAIR, br#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "c"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#),
        ("no answer", PAIR, br#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}]}"#),
        ("another prompt", PAIR, br#"{"prompt": "z", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#),
        ("empty completions", SFT, b"{\"prompt\": \"q\", \"completion\": \"\"}\n{\"prompt\": \"q\", \"completion\": \"\", \"finished\": false}"),
        ("weight 0", SFT, br#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}"#),
        ("train false", SFT, br#"{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "train": false}]}"#),
        ("ends with a question", SFT, br#"{"messages": [{"role": "user", "content": "q"}]}"#),
    ];
    insta::assert_snapshot!(table(cases));
}
