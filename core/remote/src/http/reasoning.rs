//! The answer behind a model's reasoning, in the marks that reasoning models write.

use regex::Regex;
use std::sync::LazyLock;

/// Beginnings and ends of reasoning: DeepSeek, Qwen and most others; Magistral; Kimi; Seed; Command; Sky.
const MARKS: [(&str, &str); 6] = [
    (
        r"<(?:think|thinking|thought|thoughts|reasoning|reason|analysis|scratchpad|reflection)(?:\s[^>]*)?>",
        r"</(?:think|thinking|thought|thoughts|reasoning|reason|analysis|scratchpad|reflection)\s*>",
    ),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<seed:think>", r"</seed:think>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
];

/// gpt-oss: channels, of which only the final one is the answer.
const CHANNEL: &str = r"<\|channel\|>\s*(\w+).*?<\|message\|>";

/// Marks around the answer itself.
const AROUND: &str = r"<\|(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution|return|end|start|im_end|eot_id)\|>(?:assistant)?";

fn regex(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("(?is){pattern}")).ok()
}

struct Patterns {
    /// Whole blocks, ends and beginnings.
    blocks: Vec<[Regex; 3]>,
    channel: Regex,
    around: Regex,
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| {
    let block = |(begin, end): &(&str, &str)| Some([regex(&format!("{begin}.*?{end}"))?, regex(end)?, regex(begin)?]);
    let blocks = MARKS.iter().map(block).collect::<Option<_>>()?;
    Some(Patterns { blocks, channel: regex(CHANNEL)?, around: regex(AROUND)? })
});

/// The text without its reasoning; an error where the reasoning has no end.
pub fn stripped(text: &str) -> Result<String, &'static str> {
    let patterns = PATTERNS.as_ref().ok_or("met a fault of motrain's: its patterns do not compile")?;
    let mut text = last_channel(&patterns.channel, text)?.to_owned();
    for [block, end, begin] in &patterns.blocks {
        text = block.replace_all(&text, "").into_owned();
        // A chat template may have written the beginning into the prompt.
        if let Some(last) = end.find_iter(&text).last() {
            text = text[last.end()..].to_owned();
        }
        if begin.is_match(&text) {
            return Err("gave reasoning that has no end, and no answer");
        }
    }
    Ok(patterns.around.replace_all(&text, "").trim().to_owned())
}

fn last_channel<'a>(channel: &Regex, text: &'a str) -> Result<&'a str, &'static str> {
    match channel.captures_iter(text).last() {
        Some(last) if last[1].eq_ignore_ascii_case("final") => Ok(&text[last.get(0).map_or(0, |m| m.end())..]),
        Some(_) => Err("gave reasoning in channels, but no final one"),
        // Servers that drop special tokens leave the names of the channels.
        None if text.strip_prefix("analysis").is_some_and(|rest| rest.starts_with(char::is_uppercase)) => text
            .rsplit_once("assistantfinal")
            .map(|(_, answer)| answer)
            .ok_or("gave reasoning in channels, but no final one"),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_behind_the_reasoning() {
        for said in [
            "8",
            "<think>\n3 points in 12 words\n</think>\n\n8",
            "<think></think>8",
            "3 points</think>\n8",
            "<THINKING lang=\"en\">3</THINKING> 8",
            "<think>1<think>2</think>3</think>8",
            "<reasoning>3</reasoning>8",
            "[THINK]3[/THINK]8",
            "◁think▷3◁/think▷8",
            "<|channel|>analysis<|message|>3 of 10<|end|><|start|>assistant<|channel|>final<|message|>8<|return|>",
            "<|channel|>final <|constrain|>json<|message|>8",
            "analysisThe answer has 3 points.assistantfinal8",
            "<|START_THINKING|>3<|END_THINKING|><|START_RESPONSE|>8<|END_RESPONSE|>",
            "<|begin_of_thought|>3<|end_of_thought|>\n<|begin_of_solution|>8<|end_of_solution|>",
        ] {
            assert_eq!(stripped(said), Ok("8".into()), "{said}");
        }
    }

    #[test]
    fn reasoning_without_an_end_is_no_answer() {
        for said in [
            "<think>I would say 8",
            "<think>a</think> then <think>8",
            "[THINK]8",
            "<|channel|>analysis<|message|>8",
            "analysisThe answer is worth 8",
        ] {
            assert!(stripped(said).is_err(), "{said}");
        }
        assert_eq!(stripped("<think>8</think>"), Ok(String::new()));
    }
}
