//! The forms that are read: each is the same row, written as others write it.

use super::*;
use serde_json::json;

const PROMPT: &str = "[user] q";
const DIALOGUE: &str = "[user] q [assistant] a [user] r";

fn one<T>(row: Value, form: impl Fn(&Value, &mut Notes) -> forms_of::Found<T>) -> Option<T> {
    let (read, _) = rows(row.to_string().as_bytes(), form);
    read.unwrap_or_else(|e| panic!("{row}: {e}")).pop()
}

fn turn(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

#[test]
fn prompts_in_every_form() {
    let (q, a, r) = (turn("user", "q"), turn("assistant", "a"), turn("user", "r"));
    let said = |from: &str, value: &str| json!({ "from": from, "value": value });
    let cases = [
        (json!({ "prompt": "q" }), PROMPT),
        (json!({ "prompt": "\n\nHuman: q\n\nAssistant:" }), PROMPT),
        (json!({ "prompt": "Human: q\n\nAssistant:" }), PROMPT),
        (json!({ "prompt": [q] }), PROMPT),
        (json!({ "prompt": null, "messages": [q] }), PROMPT),
        (json!({ "messages": [q, a] }), PROMPT),
        (json!({ "messages": [q, a, r] }), DIALOGUE),
        (json!({ "messages": [q, a, r, turn("assistant", "b")] }), DIALOGUE),
        (json!({ "conversations": [said("human", "q"), said("gpt", "a")] }), PROMPT),
        (json!({ "conversations": [said("human", "q"), said("gpt", "a"), said("human", "r")] }), DIALOGUE),
        (json!({ "conversations": [said("human", "q"), said("gpt", "a")], "system": "s" }), "[system] s [user] q"),
        (json!({ "chosen": "\n\nHuman: q\n\nAssistant: x", "rejected": "\n\nHuman: q\n\nAssistant: y" }), PROMPT),
        (json!({ "chosen": [q, turn("assistant", "x")], "rejected": [q, turn("assistant", "y")] }), PROMPT),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "q" }] }] }), PROMPT),
        (json!({ "messages": [{ "role": "user", "content": "q", "tool_calls": null, "name": null }] }), PROMPT),
        (json!({ "messages": [turn("system", "s"), turn("system", "t"), q] }), "[system] s [system] t [user] q"),
        (json!({ "prompt": "Be kind.\n\nHuman: q\n\nAssistant:" }), "[system] Be kind. [user] q"),
    ];
    for (row, expected) in cases {
        assert_eq!(one(row.clone(), forms_of::prompt).map(|p| p.one_line()), Some(expected.to_owned()), "{row}");
    }
}

#[test]
fn parts_are_joined_as_templates_write_them() {
    let part = |text: &str| json!({ "type": "text", "text": text });
    let row = json!({ "messages": [{ "role": "user", "content": [part("a"), part(" b"), "c"] }] });
    assert_eq!(one(row, forms_of::prompt).unwrap().last_user(), "a bc");
}

#[test]
fn pairs_in_every_form() {
    let (q, x, y) = (turn("user", "q"), turn("assistant", "x"), turn("assistant", "y"));
    let (s, a, r) = (turn("system", "s"), turn("assistant", "a"), turn("user", "r"));
    let dialogue = |answer: &str| format!("\n\nHuman: q\n\nAssistant: {answer}");
    let cases = [
        (json!({ "prompt": "q", "chosen": "x", "rejected": "y" }), PROMPT),
        (json!({ "prompt": [q], "chosen": "x", "rejected": "y" }), PROMPT),
        (json!({ "prompt": "q", "chosen": [x], "rejected": [y] }), PROMPT),
        (json!({ "prompt": [q], "chosen": [x], "rejected": [y] }), PROMPT),
        (json!({ "prompt": [q], "chosen": x, "rejected": y }), PROMPT),
        (json!({ "messages": [q], "chosen": [x], "rejected": [y] }), PROMPT),
        (json!({ "chosen": [q, x], "rejected": [q, y] }), PROMPT),
        (json!({ "prompt": "q", "chosen": [q, x], "rejected": [q, y], "messages": [q, x] }), PROMPT),
        (json!({ "prompt": [q], "chosen": [q, x], "rejected": [q, y] }), PROMPT),
        (json!({ "prompt": [s, q], "chosen": [q, x], "rejected": [q, y] }), "[system] s [user] q"),
        (json!({ "prompt": "q", "chosen": [s, q, x], "rejected": [s, q, y] }), "[system] s [user] q"),
        (json!({ "chosen": [q, a, r, x], "rejected": [q, a, r, y] }), DIALOGUE),
        (json!({ "chosen": dialogue("x"), "rejected": dialogue("y") }), PROMPT),
        (json!({ "prompt": "\n\nHuman: q\n\nAssistant:", "chosen": dialogue("x"), "rejected": dialogue("y") }), PROMPT),
        (json!({ "prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " x", "rejected": " y" }), PROMPT),
        (
            json!({ "conversations": [{ "from": "human", "value": "q" }], "chosen": { "from": "gpt", "value": "x" },
                    "rejected": { "from": "gpt", "value": "y" } }),
            PROMPT,
        ),
    ];
    for (row, expected) in cases {
        let (prompt, chosen, rejected) = one(row.clone(), forms_of::pair).unwrap_or_else(|| panic!("{row}"));
        assert_eq!((prompt.one_line().as_str(), chosen.trim(), rejected.trim()), (expected, "x", "y"), "{row}");
    }
}

/// Values of TRL 0.24's `extract_prompt`.
#[test]
fn an_implicit_prompt_is_what_both_texts_begin_with() {
    let of = |chosen: &str, rejected: &str| {
        one(json!({ "chosen": chosen, "rejected": rejected }), forms_of::pair).map(|(p, c, r)| (p.one_line(), c, r))
    };
    let expected = ("[user] The sky is".to_owned(), " blue.".to_owned(), " green.".to_owned());
    assert_eq!(of("The sky is blue.", "The sky is green."), Some(expected));
    let expected = ("[user] Größe: 1".to_owned(), "€".to_owned(), "₤".to_owned());
    assert_eq!(of("Größe: 1€", "Größe: 1₤"), Some(expected));
}

#[test]
fn hh_pairs_may_diverge_early() {
    let row = json!({
        "chosen": "\n\nHuman: q\n\nAssistant: a1\n\nHuman: r\n\nAssistant: c",
        "rejected": "\n\nHuman: q\n\nAssistant: a2"
    });
    let (prompt, chosen, rejected) = one(row, forms_of::pair).unwrap();
    assert_eq!(prompt.one_line(), PROMPT);
    assert_eq!((chosen.as_str(), rejected.as_str()), ("a1\n\nHuman: r\n\nAssistant: c", "a2"));
}

#[test]
fn demonstrations_in_every_form() {
    let (q, x, a, r) = (turn("user", "q"), turn("assistant", "x"), turn("assistant", "a"), turn("user", "r"));
    let cases = [
        (json!({ "prompt": "q", "completion": "x" }), PROMPT),
        (json!({ "prompt": [q], "completion": [x] }), PROMPT),
        (json!({ "prompt": [q], "completion": "x" }), PROMPT),
        (json!({ "prompt": "q", "completion": x }), PROMPT),
        (json!({ "messages": [q, x] }), PROMPT),
        (json!({ "prompt": "q", "messages": [q, x] }), PROMPT),
        (json!({ "messages": [q, a, r, x] }), DIALOGUE),
        (json!({ "conversations": [{ "from": "human", "value": "q" }, { "from": "gpt", "value": "x" }] }), PROMPT),
        (json!({ "messages": [q, { "role": "assistant", "content": "x", "weight": 1, "train": true }] }), PROMPT),
        (json!({ "messages": [q, { "role": "assistant", "content": "a", "weight": 0 }, r, x] }), DIALOGUE),
    ];
    for (row, expected) in cases {
        let (prompt, completion, finished) =
            one(row.clone(), forms_of::demonstration).unwrap_or_else(|| panic!("{row}"));
        assert_eq!((prompt.one_line().as_str(), completion.as_str(), finished), (expected, "x", true), "{row}");
    }
    let cut = json!({ "prompt": "q", "completion": "x", "finished": false });
    assert!(!one(cut, forms_of::demonstration).unwrap().2);
    let at_once = json!({ "prompt": "q", "completion": "", "finished": true });
    assert_eq!(one(at_once, forms_of::demonstration).unwrap().1, "");
}

#[test]
fn ratings_in_every_form() {
    let (q, x) = (turn("user", "q"), turn("assistant", "x"));
    let attributes = ["helpfulness", "verbosity"].map(String::from);
    let rated = |row: Value| one(row, |columns, notes| forms_of::rating(columns, &attributes, notes));
    let cases = [
        json!({ "prompt": "q", "response": "x", "helpfulness": 4, "verbosity": null }),
        json!({ "prompt": "q", "completion": "x", "helpfulness": 4.0 }),
        json!({ "prompt": [q], "response": [x], "helpfulness": 4 }),
        json!({ "messages": [q, x], "helpfulness": 4, "coherence": "not asked for" }),
        json!({ "conversations": [{ "from": "human", "value": "q" }, { "from": "gpt", "value": "x" }], "helpfulness": 4 }),
    ];
    for row in cases {
        let ((prompt, answer, finished), ratings) = rated(row.clone()).unwrap_or_else(|| panic!("{row}"));
        assert_eq!((prompt.one_line().as_str(), answer.as_str(), finished), (PROMPT, "x", true), "{row}");
        assert_eq!(ratings, [Some(4.0), None], "{row}");
    }
    assert!(rated(json!({ "prompt": "q", "response": "x" })).is_none());
    assert!(!rated(json!({ "prompt": "q", "response": "x", "finished": false, "verbosity": -1 })).unwrap().0.2);
}

#[test]
fn bytes_in_every_form() {
    let row = "{\"prompt\": \"q\"}";
    let mark = "\u{feff}";
    let cases = [
        format!("{row}\n{row}\n").into_bytes(),
        format!("{row}\n{row}").into_bytes(),
        format!("{mark}{row}\r\n\r\n  \r\n{row}\r\n").into_bytes(),
        format!("{mark}{row}\n{mark}{row}\n").into_bytes(),
        gzipped(format!("{mark}{row}\n{row}\n").as_bytes()),
        [gzipped(format!("{row}\n").as_bytes()), gzipped(row.as_bytes())].concat(),
    ];
    for bytes in cases {
        let (read, _) = rows(&bytes, forms_of::prompt);
        let read: Vec<String> = read.unwrap().iter().map(Prompt::one_line).collect();
        assert_eq!(read, [PROMPT, PROMPT], "{:?}", String::from_utf8_lossy(&bytes));
    }
}
