//! The verdict that a judge's reply states. What mentions both answers, or names one without saying that it is better, states none.

use motrain_core::judge::Verdict;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

const NOUN: &str = "(?:the )?(?:responses?|answers?|assistants?|options?|outputs?|models?|completions?|candidates?|repl(?:y|ies)|summary|text|choice)";

/// Words behind which a name is the verdict.
const SAYS: &str = r"(?:verdict|winner|judge?ment|decision|preference|vote|choose|pick|prefer|select)\b|(?:answer|choice|better|best|preferred)\b(?: (?:one|response|answer|assistant|option|output|model|completion))?[*_`\x22 ]*(?:[:=]|\bis\b)";

const BETWEEN: &str = r#"(?:[\s:=*_"'`“”‘’(\[{]|\b(?:is|the|would|be|my|final|goes|to|for|with|that|response|answer|assistant|option|output|model|completion)\b)*"#;

struct Patterns {
    name: Regex,
    tag: Regex,
    says: Regex,
    either: Regex,
    better: Regex,
    than: Regex,
    mention: Regex,
    negated: Regex,
    concludes: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let regex = |pattern: &str| Regex::new(pattern).ok();
    Some(Patterns {
        name: regex(&format!(
            r"(?i)^(?:the\s+)?(?:{NOUN}\s+)?#?(1|2|0|a|b|c|first|second|tie|draw|neither|equal)(?:\s+{NOUN})?(?:\s+(?:is|wins)(?:\s+better)?)?$"
        ))?,
        tag: regex(
            r"(?is)<(?:verdict|answer|choice|winner|judge?ment|decision|final|final_answer|result|output)(?:\s[^<>]*)?>([^<>]*)</\w+\s*>|\\boxed\{([^{}]*)\}|\[\[([^\[\]]*)\]\]",
        )?,
        says: regex(&format!(r"(?i)\b(?:{SAYS}){BETWEEN}(?:#)?\b([012abc]|first|second|tie|draw|neither)\b"))?,
        either: regex(&format!(
            r"(?i)^[*_`\x22')\]\s]*(?:[,/&+-]|\bor\b|\band\b|\bthan\b)+\s*(?:{NOUN}\s+)?#?[012abc]\b"
        ))?,
        better: regex(&format!(
            r"(?:(?i:{NOUN})\s+[*_`]*([12ABab])|\b([12AB])|(?i:\bthe (first|second)(?:\s+(?:{NOUN}|one))?))[*_`]*\s+(?i:(?:is|was|seems|looks)\s+(?:\w+\s+){{0,3}}?(?:better|best|superior|preferred|preferable|more\s+\w+|stronger|the winner)|wins)\b"
        ))?,
        than: regex(&format!(r"(?i)\b(?:than|over)\s+(?:{NOUN}\s+)?[*_`]*(?:[12ab]\b|the (?:first|second|other))"))?,
        mention: regex(&format!(r"(?i:{NOUN})\s+[*_`]*([12ABab])\b|\b([12AB])\b|\b(?i:(first|second))\b"))?,
        negated: regex(r"(?i)\b(?:not|never|neither|nor|cannot|hardly)\b|n['’]t\b|\b(?:worse|worst|both|equally)\b")?,
        concludes: regex(
            r"(?i)^[\s*_`#>-]*(?:(?:so|thus|therefore|hence|my|the|final|overall)\b[\s,*_]*)*(?:verdict|answer|choice|winner|decision|judge?ment)\b",
        )?,
    })
});

/// The verdict that a reply states; why there is none that is sure.
pub fn stated(reply: &str) -> Result<Verdict, String> {
    let p = PATTERNS.as_ref().ok_or("motrain's patterns do not compile")?;
    let text: String = reply
        .chars()
        .map(
            |c| if ('\u{ff01}'..='\u{ff5e}').contains(&c) { char::from_u32(c as u32 - 0xfee0).unwrap_or(c) } else { c },
        )
        .collect();
    let tags: Vec<Option<Verdict>> = p
        .tag
        .captures_iter(&text)
        .map(|c| named(p, c.iter().skip(1).flatten().next().map_or("", |m| m.as_str())))
        .collect();
    if !tags.is_empty() {
        return agreed(tags);
    }
    if let Some(json) =
        text.find('{').zip(text.rfind('}')).and_then(|(a, b)| serde_json::from_str::<Value>(text.get(a..=b)?).ok())
    {
        return in_json(p, &json);
    }
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = lines.last().copied().unwrap_or("");
    if named(p, last).is_some() {
        return agreed(lines.iter().filter_map(|line| named(p, line)).map(Some).collect());
    }
    let all: Vec<Option<Verdict>> = lines.iter().flat_map(|line| on_line(p, line)).collect();
    let concluded = if p.concludes.is_match(last) { on_line(p, last) } else { vec![] };
    if let Some(stated) = [concluded, all].into_iter().find(|stated| !stated.is_empty()) {
        return agreed(stated);
    }
    sentence(p, &text)
}

fn verdict(name: &str) -> Option<Verdict> {
    match name.to_lowercase().as_str() {
        "1" | "a" | "first" => Some(Verdict::First),
        "2" | "b" | "second" => Some(Verdict::Second),
        "0" | "c" | "tie" | "draw" | "neither" | "equal" => Some(Verdict::Tie),
        _ => None,
    }
}

/// A text that is a name in some decoration.
fn named(p: &Patterns, text: &str) -> Option<Verdict> {
    let inner = text.trim_matches(|c: char| c.is_whitespace() || r#"*_`"'“”‘’()[]{}<>#.:!,"#.contains(c));
    let inner = inner.trim_start_matches("It's a ").trim_start_matches("It is a ").trim_start_matches("a ");
    p.name.captures(inner).and_then(|c| verdict(c.get(1)?.as_str()))
}

/// Verdicts that a line states: it is one, or a word says so; `None` for one that is not sure.
fn on_line(p: &Patterns, line: &str) -> Vec<Option<Verdict>> {
    if let Some(verdict) = named(p, line) {
        return vec![Some(verdict)];
    }
    let said = |c: regex::Captures| {
        let name = c.get(1)?;
        let rest = &line[name.end()..];
        let letter = name.as_str().len() == 1 && name.as_str().chars().all(|c| c.is_ascii_lowercase());
        // "a" is a word too.
        if letter && !rest.trim_matches(|c: char| !c.is_alphanumeric()).is_empty() {
            return None;
        }
        let odd = rest.starts_with(['.', '/', '-']) && rest[1..].starts_with(|c: char| c.is_alphanumeric());
        let sure = !odd && !p.either.is_match(rest) && !p.negated.is_match(line);
        Some(verdict(name.as_str()).filter(|_| sure))
    };
    p.says.captures_iter(line).filter_map(said).collect()
}

/// "Response 1 is better", if the reply speaks of no other one but to compare.
fn sentence(p: &Patterns, text: &str) -> Result<Verdict, String> {
    let name = |c: &regex::Captures| c.iter().skip(1).flatten().next().and_then(|m| verdict(m.as_str()));
    let said: Vec<Verdict> = p.better.captures_iter(text).filter_map(|c| name(&c)).collect();
    let Some(first) = said.first() else { return Err("it states none".into()) };
    let rest = p.than.replace_all(text, "");
    let others = p.mention.captures_iter(&rest).filter_map(|c| name(&c)).any(|v| v != *first);
    if others || p.negated.is_match(text) { Err("it speaks of both".into()) } else { Ok(*first) }
}

fn in_json(p: &Patterns, json: &Value) -> Result<Verdict, String> {
    const KEYS: [&str; 11] = [
        "verdict",
        "winner",
        "answer",
        "choice",
        "better",
        "best",
        "preference",
        "preferred",
        "result",
        "decision",
        "judgement",
    ];
    let given = |value: &Value| match value {
        Value::String(text) => named(p, text),
        Value::Number(n) => named(p, &n.to_string()),
        _ => None,
    };
    let found: Vec<Option<Verdict>> = json
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| KEYS.contains(&key.to_lowercase().as_str()))
        .map(|(_, v)| given(v))
        .collect();
    if found.is_empty() { Err("its JSON has no \"verdict\"".into()) } else { agreed(found) }
}

fn agreed(verdicts: Vec<Option<Verdict>>) -> Result<Verdict, String> {
    let sure: Option<Vec<Verdict>> = verdicts.into_iter().collect();
    match sure.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|v| v == first) => Ok(*first),
        Some(_) => Err("it states several".into()),
        None => Err("it states one that is not sure".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motrain_core::judge::Verdict::{First, Second, Tie};

    #[test]
    fn forms_that_are_sure() {
        for (text, expected) in [
            ("1", First),
            (" 2.\n", Second),
            ("0", Tie),
            ("A", First),
            ("b", Second),
            ("**B**", Second),
            ("\"1\"", First),
            ("(2)", Second),
            ("１", First),
            ("[[A]]", First),
            ("I find it clearer. [[B]]", Second),
            ("[[C]]", Tie),
            ("Response 2", Second),
            ("Answer A", First),
            ("Assistant B.", Second),
            ("the first response", First),
            ("Tie", Tie),
            ("It's a tie.", Tie),
            ("Verdict: 2", Second),
            ("**Final verdict:** Response 1", First),
            ("My answer is B.", Second),
            ("answer: a", First),
            ("Winner: Assistant A", First),
            ("I prefer response 2.", Second),
            ("The better response is 1", First),
            ("Response 1 is better.", First),
            ("Response 1 is better than Response 2.", First),
            ("Assistant B is clearly more helpful", Second),
            ("The first response is better because it answers.", First),
            ("Response 1 has 2 flaws.\n\n1", First),
            ("Both are good.\nVerdict: 0", Tie),
            ("{\"reason\": \"1 is odd\", \"winner\": 2}", Second),
            ("```json\n{\"verdict\": \"A\"}\n```", First),
            ("<verdict>2</verdict>", Second),
        ] {
            assert_eq!(stated(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_sure_is_no_verdict() {
        for text in [
            "",
            "A or B",
            "1\n2",
            "On style, I prefer 1.\nOn facts, I prefer 2.",
            "1 or 2",
            "1/2",
            "12",
            "1.5",
            "-1",
            "3",
            "D",
            "both are fine",
            "Both are equally good.",
            "Response 1 and Response 2 are alike.",
            "Assistant A is better written, but B",
            "Assistant A is better at style, but Assistant B is more helpful.",
            "Response 1 is worse.",
            "Response 1 is not better.",
            "I do not prefer response 2.",
            "Verdict: A or B",
            "Verdict: 1 and 2",
            "[[A]] [[B]]",
            "[[A or B]]",
            "Winner: a matter of taste",
            "I have 2 remarks.",
            "Verdict: 1\nVerdict: 2\nsee above",
            "{\"winner\": \"both\"}",
            "{\"score\": 1}",
            "A good answer to a hard question.",
        ] {
            assert!(stated(text).is_err(), "{text}: {:?}", stated(text));
        }
    }
}
