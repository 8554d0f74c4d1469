//! The number that a model's reply states. A number that only stands somewhere in a sentence ("it has 3 parts") is
//! not stated, and of several that differ only a concluding one counts: what is not sure is no score.

use super::number::{Number, Stated, alone, number_at, plain, whole};
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// Words after which a number is a score, and those after which it is one only behind "is", ":" or "=".
const SCORE: &str = "score|scored|rating|rate|rated|grade|graded|mark|reward|evaluation|assessment|give|gave|assign|award|deserves?|earns?|gets|say";
const RESULT: &str = "answer|result|overall|total|final|verdict|number|value|points";

/// What may stand between such a word and its number.
const BETWEEN: &str = r#"[\s:=*_"'`“”‘’()\[\]<>|→{}]|-+[\s>]|\b(?:score|rating|overall|final|total|is|was|be|would|should|of|as|at|it|this|that|the|an?|answer|response|reply|completion|to|with|my|your|about|around|approximately|roughly|number|value|quality)\b"#;

const TAG: &str = "score|rating|grade|mark|reward|answer|result|number|value|final|final_score|final_answer|output|verdict|overall|overall_score";

struct Patterns {
    scored: Regex,
    resulted: Regex,
    named: Regex,
    fraction: Regex,
    tag: Regex,
    hint: Regex,
    concludes: Regex,
    off: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let regex = |pattern: &str| Regex::new(pattern).ok();
    Some(Patterns {
        scored: regex(&format!(r"(?i)\b(?:{SCORE})\b(?:{BETWEEN})*?([+-]?[.,]?[0-9])"))?,
        resulted: regex(&format!(r#"(?i)\b(?:{RESULT})\b[*_"'`\s]*(?:[:=]|\bis\b)(?:{BETWEEN})*?([+-]?[.,]?[0-9])"#))?,
        named: regex(r#"^[\s*_"'`#>-]*\p{L}[\p{L}\s_-]{0,40}[*_"'`\s]*[:=][\s*_"'`]*"#)?,
        fraction: regex(r"(?i)([0-9]+(?:[.,][0-9]+)?)\s*(?:/\s*(?:5|10|20|100)|\s+out\s+of\s+(?:5|10|20|100))\b")?,
        tag: regex(&format!(
            r"(?is)<(?:{TAG})(?:\s[^<>]*)?>([^<>]*)</(?:{TAG})\s*>|\\boxed\{{([^{{}}]*)\}}|\[\[([^\[\]]*)\]\]"
        ))?,
        hint: regex(r"[(\[][^()\[\]\n]*[)\]](\s*[*_]*\s*[:=])")?,
        concludes: regex(&format!(
            r"(?i)^[\s*_`#>-]*(?:(?:so|thus|therefore|hence|my|the|final|overall|total|average)\b[\s,*_]*)*(?:score|rating|grade|mark|reward|evaluation|{RESULT})\b"
        ))?,
        off: regex(r"(?i)^\s+(?:[-–—(]|because\b|since\b)")?,
    })
});

/// The number that a reply states; why there is none that is sure.
pub fn stated(reply: &str) -> Stated {
    let p = PATTERNS.as_ref().ok_or("motrain's patterns do not compile")?;
    let text = plain(reply);
    let tags: Vec<Stated> = p
        .tag
        .captures_iter(&text)
        .map(|c| alone(c.iter().skip(1).flatten().next().map_or("", |m| m.as_str())))
        .collect();
    if !tags.is_empty() {
        return agreed(tags);
    }
    if let Some(json) = object(&text) {
        return in_json(&json);
    }
    // "Score (0-10): 8"
    let text = p.hint.replace_all(&text, "$1");
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let alone_on: Vec<Stated> = lines.iter().map(|line| alone(line)).filter(Result::is_ok).collect();
    let last = lines.last().copied().unwrap_or("");
    if alone(last).is_ok() {
        return agreed(alone_on);
    }
    let all: Vec<Stated> = lines.iter().flat_map(|line| on_line(p, line)).collect();
    let concluded = if p.concludes.is_match(last) { on_line(p, last) } else { vec![] };
    match [concluded, all].into_iter().find(|stated| !stated.is_empty()) {
        Some(stated) => agreed(stated),
        None => unlabelled(p, &text, &lines),
    }
}

/// What a text without a statement may still say: "a solid 7/10", "8, because it is kind", "Warmth: 8".
fn unlabelled(p: &Patterns, text: &str, lines: &[&str]) -> Stated {
    let fractions: Vec<Stated> =
        p.fraction.find_iter(text).filter(|m| ends(&text[m.end()..])).map(|m| whole(text, m.start())).collect();
    if !fractions.is_empty() {
        return agreed(fractions);
    }
    if let Some(Ok(number)) = lines.first().and_then(|line| opening(p, line)) {
        return Ok(number);
    }
    // A name of the user's own counts only where no other line holds a number.
    let mut numbered = lines.iter().filter(|line| line.contains(|c: char| c.is_ascii_digit()));
    match (numbered.next().and_then(|line| Some(&line[p.named.find(line)?.end()..])), numbered.next()) {
        (Some(named), None) => alone(named),
        _ => Err("it states none".into()),
    }
}

/// A number that begins a line and is set off from the rest, which holds no other.
fn opening(p: &Patterns, line: &str) -> Option<Stated> {
    let line = line.trim_start_matches(|c: char| c.is_whitespace() || "*_`\"#>".contains(c));
    let (number, rest) = number_at(line, 0).ok()?;
    let rest = rest.trim_start_matches(['*', '_', '`', '"']);
    let off = rest.starts_with([',', ':', ';']) || p.off.is_match(rest);
    (off && !rest.contains(|c: char| c.is_numeric())).then_some(Ok(number))
}

/// All numbers that a line states: the line is one, or a word says so.
fn on_line(p: &Patterns, line: &str) -> Vec<Stated> {
    if let Ok(number) = alone(line) {
        return vec![Ok(number)];
    }
    let found =
        |words: &Regex| words.captures_iter(line).filter_map(|c| c.get(1)).map(|m| m.start()).collect::<Vec<_>>();
    let mut places = [found(&p.scored), found(&p.resulted)].concat();
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|at| whole(line, at)).collect()
}

fn ends(rest: &str) -> bool {
    rest.trim_start_matches(|c: char| "*_`\"')]".contains(c)).is_empty()
        || rest.starts_with(|c: char| ".,;:!?*_`\"')]\n".contains(c))
        || rest.trim_start().starts_with(['\n', '-', '–', '—', '('])
}

/// The one number that all statements agree on.
fn agreed(statements: Vec<Stated>) -> Stated {
    let numbers = statements.into_iter().collect::<Result<Vec<Number>, String>>()?;
    let first = *numbers.first().ok_or("it states none")?;
    match numbers.iter().find(|n| n.value != first.value) {
        Some(other) => Err(format!("it states {} and {}", first.value, other.value)),
        None => Ok(numbers.into_iter().find(|n| n.of.is_some() || n.percent).unwrap_or(first)),
    }
}

/// The JSON object that a text is or ends with, fenced or not.
fn object(text: &str) -> Option<serde_json::Map<String, Value>> {
    let (from, to) = (text.find('{')?, text.rfind('}')?);
    serde_json::from_str(text.get(from..=to)?).ok()
}

fn in_json(json: &serde_json::Map<String, Value>) -> Stated {
    const KEYS: [&str; 13] = [
        "score",
        "rating",
        "grade",
        "mark",
        "reward",
        "overall",
        "overall_score",
        "final_score",
        "final",
        "total",
        "result",
        "value",
        "answer",
    ];
    let read = |value: &Value| match value {
        Value::Number(n) => Ok(Number { value: n.as_f64().unwrap_or(f64::NAN), of: None, percent: false }),
        Value::String(s) => alone(s),
        other => Err(format!("its JSON says {other}")),
    };
    let known = json.iter().filter(|(key, _)| KEYS.contains(&key.to_lowercase().as_str()));
    let known: Vec<Stated> = known.map(|(_, value)| read(value)).collect();
    if !known.is_empty() {
        return agreed(known);
    }
    let others: Vec<Stated> = json.values().map(read).filter(Result::is_ok).collect();
    if others.len() == 1 { agreed(others) } else { Err("its JSON has no \"score\"".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_are_sure() {
        for (text, expected) in [
            ("8", 8.0),
            (" 8.\n", 8.0),
            ("7.5", 7.5),
            ("7,5", 7.5),
            ("1e-1", 0.1),
            ("-3", -3.0),
            ("８", 8.0),
            ("８．５／１０", 8.5),
            ("1,234,567", 1234567.0),
            ("1,234.5", 1234.5),
            ("**8**", 8.0),
            ("\"8\"", 8.0),
            ("[8]", 8.0),
            ("8️⃣", 8.0),
            ("8/10", 8.0),
            ("8 / 10", 8.0),
            ("8 out of 10", 8.0),
            ("8 of 10", 8.0),
            ("8 points", 8.0),
            ("4 stars out of 5", 4.0),
            ("Score: 8", 8.0),
            ("**Score:** 8/10", 8.0),
            ("Score (0-10): 8", 8.0),
            ("Rating: 8/10 because .5 of it is 1,000 times good", 8.0),
            ("Score - 8", 8.0),
            ("I would say 8.", 8.0),
            ("I'd give it an 8 out of 10, since it is kind.", 8.0),
            ("I rate this response 8 because it has 3 parts.", 8.0),
            ("On a scale from 1 to 10, I would rate this a 7.", 7.0),
            ("This is a solid 7/10.", 7.0),
            ("8\n\nThe answer is kind and makes 3 points.", 8.0),
            ("It makes 3 points in 12 words.\n\n8", 8.0),
            ("Clarity: 7\nWarmth: 9\nOverall score: 8", 8.0),
            ("Score: 3\nOn reflection:\nScore: 8", 8.0),
            ("Warmth: 8", 8.0),
            ("8 – kind and short", 8.0),
            ("**8**: kind", 8.0),
            ("8, because it is kind", 8.0),
            ("Clarity score: 8\nWarmth score: 8", 8.0),
            ("8\n8", 8.0),
            ("<score>8</score> with a confidence of 3", 8.0),
            ("Rating: [[8]]", 8.0),
            ("so it is \\boxed{8}", 8.0),
            ("{\"score\": 8, \"reason\": \"3 points\"}", 8.0),
            ("```json\n{\"rating\": \"8/10\"}\n```", 8.0),
            ("Here it is: {\"warmth\": 8}", 8.0),
            ("The final answer is: 8", 8.0),
        ] {
            assert_eq!(stated(text).map(|n| n.value), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_sure_is_no_number() {
        for text in [
            "",
            "eight",
            "eight out of 10",
            "On a scale of 10: eight",
            ".7",
            "Score: .7",
            "−7",
            "Score: −7",
            "7-8",
            "7–8",
            "7 to 8",
            "7 or 8",
            "Score: 7 or 8",
            "Score: 7, maybe 8",
            "between 7 and 8",
            "7-8/10",
            "7+",
            "8 ± 1",
            "8½",
            "½",
            "٨",
            "Score: ٨ out of 10",
            "1,000",
            "1.234,5",
            "1.2.3",
            "10/10/2024",
            "8:30",
            "8th",
            "A4",
            "- 8",
            "1e999",
            "The answer has 3 sentences.",
            "3 out of 5 sentences are rude.",
            "It is open 24/7.",
            "Answer 2 is better.",
            "I give it 2 thumbs up.",
            "Warmth: 7\nClarity: 9",
            "Warmth score: 7\nClarity score: 9",
            "Rating: 7\nWait, no. Rating: 8",
            "7\n9",
            "8, because it has 3 parts",
            "3 sentences, all rude",
            "Score: 7\nScore: 9 or so, 10 at best, or 8",
            "<score>7</score><score>9</score>",
            "<score>seven</score> 8",
            "[[A]]",
            "{\"warmth\": 7, \"clarity\": 9}",
            "{\"score\": null, \"reason\": \"8\"}",
            "{\"score\": [7, 8]}",
            "It is very kind.",
        ] {
            assert!(stated(text).is_err(), "{text}: {:?}", stated(text));
        }
    }
}
