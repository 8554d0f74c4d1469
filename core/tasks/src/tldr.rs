//! `tldr`: a short story is summed up. Every further fact makes a summary better and a little riskier, conclusions that the
//! story does not state make it better still but are not entailed, and an invented fact is bad for both.

use super::{Contrast, Said, first, pick, sentences};
use motrain_core::rng::Rng;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

const RELATIONS: [&str; 10] =
    ["brother", "sister", "boss", "friend", "neighbor", "uncle", "cousin", "teacher", "roommate", "aunt"];
const NAMES: [&str; 12] =
    ["Tom", "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Lucy"];
const EVENTS: [&str; 14] = [
    "broke my bike",
    "lost my keys",
    "sold my old car",
    "ate my lunch",
    "painted my door red",
    "took my blue coat",
    "forgot my birthday",
    "read my letters",
    "burned the dinner",
    "missed my wedding",
    "lied about the money",
    "gave away my cat",
    "crashed into my fence",
    "told my secret",
];
const DAYS: [&str; 12] = [
    "on Monday",
    "on Tuesday",
    "on Wednesday",
    "on Thursday",
    "on Friday",
    "on Saturday",
    "on Sunday",
    "last week",
    "last month",
    "last summer",
    "yesterday",
    "this morning",
];
const REASONS: [&str; 12] = [
    "the rent was late",
    "the phone was off",
    "the road was wet",
    "nobody said a word",
    "the party was loud",
    "the bus never came",
    "the lights went out",
    "the dog ran away",
    "the list was wrong",
    "the shop was closed",
    "the rain did not stop",
    "the letter came too late",
];
const PLACES: [&str; 10] = [
    "the office",
    "the beach",
    "my house",
    "the old school",
    "a small cafe",
    "the train station",
    "the park",
    "the market",
    "a hotel",
    "the garage",
];
const FEELINGS: [&str; 10] =
    ["angry", "sad", "confused", "tired", "ashamed", "worried", "hurt", "nervous", "lonely", "guilty"];
const DEMANDS: [&str; 12] = [
    "pay for it",
    "say sorry first",
    "keep it quiet",
    "move out soon",
    "help with the repair",
    "forget about it",
    "bring a gift",
    "write a letter",
    "come to dinner",
    "lend some money",
    "find a new job",
    "wait until spring",
];
const FILLERS: [&str; 8] = [
    "I do not know what to think.",
    "This is a long story.",
    "Please read it all.",
    "It still feels strange.",
    "Nobody else was there.",
    "I have told my mother.",
    "We have not talked since.",
    "I could not sleep.",
];

/// What a summary sentence of each kind of fact begins with; the rest must stand in the story.
const FACTS: [&str; 6] = ["My ", "It happened ", "It was because ", "We were at ", "I feel ", "They want me to "];
const KINDS: [&str; 6] = ["event", "day", "reason", "place", "feeling", "demand"];
/// How often a contrast is about each: reward models find a single wrong word last.
const TOLD: [f64; 6] = [1.0, 2.0, 1.0, 1.0, 2.0, 1.0];
const TAKEAWAYS: [&str; 4] = [
    "I should talk to them soon",
    "We may not be friends after this",
    "It is time to set clear limits",
    "Maybe it is partly my fault",
];
/// What a post ends with.
pub const END: &str = "\n\nTL;DR:";

/// A post to summarise.
pub fn prompt(rng: &mut Rng) -> String {
    let (relation, name) = (pick(rng, &RELATIONS), pick(rng, &NAMES));
    let opening = format!("My {relation} {}. It happened {}.", pick(rng, &EVENTS), pick(rng, &DAYS));
    let mut rest = vec![
        format!("The reason is that {}.", pick(rng, &REASONS)),
        format!("{name} and I were at {} that day.", pick(rng, &PLACES)),
        format!("Now I feel {} about it.", pick(rng, &FEELINGS)),
        format!("{name} wants me to {}.", pick(rng, &DEMANDS)),
    ];
    rest.insert(rng.random_range(0..=rest.len()), (*pick(rng, &FILLERS)).to_owned());
    format!("{opening} {}{END}", rest.join(" "))
}

/// The six facts of a story, as summary sentences.
fn facts(post: &str) -> Option<[String; 6]> {
    let after = |mark: &str, until: &str| -> Option<String> {
        let from = post.find(mark)? + mark.len();
        Some(post[from..from + post[from..].find(until)?].to_owned())
    };
    let relation = RELATIONS.iter().find(|r| post.starts_with(&format!("My {r} ")))?;
    let event = EVENTS.iter().find(|e| post.starts_with(&format!("My {relation} {e}.")))?;
    Some([
        format!("My {relation} {event}."),
        format!("It happened {}.", after("It happened ", ".")?),
        format!("It was because {}.", after("The reason is that ", ".")?),
        format!("We were at {}.", after(" and I were at ", " that day")?),
        format!("I feel {}.", after("Now I feel ", " about")?),
        format!("They want me to {}.", after(" wants me to ", ".")?),
    ])
}

/// A demonstration: some facts, sometimes with conclusions.
pub fn answer(prompt: &str, rng: &mut Rng) -> String {
    let Some(facts) = facts(prompt) else {
        return "I do not know.".into();
    };
    let mut parts = facts.to_vec();
    let count = rng.random_range(1..=facts.len());
    while parts.len() > count {
        parts.remove(rng.random_range(0..parts.len()));
    }
    let mut conclusions = TAKEAWAYS.to_vec();
    let concluded = *pick(rng, &[0, 0, 0, 1, 1, 2]);
    for _ in 0..concluded {
        parts.push(format!("{}.", conclusions.remove(rng.random_range(0..conclusions.len()))));
    }
    parts.join(" ")
}

/// Any facts, in their order, with up to two conclusions.
pub fn answers(prompt: &str) -> Vec<String> {
    let Some(facts) = facts(prompt) else { return vec![] };
    let conclusions = TAKEAWAYS.map(|said| format!("{said}."));
    let mut out = Vec::new();
    for chosen in 1..1usize << facts.len() {
        for concluded in 0..=2 {
            let facts = facts.iter().enumerate().filter(|(k, _)| chosen >> k & 1 == 1).map(|(_, fact)| fact.as_str());
            let parts = facts.chain(conclusions.iter().take(concluded).map(String::as_str));
            out.push(parts.collect::<Vec<_>>().join(" "));
        }
    }
    out
}

/// Some of a story's facts, and the same with one of them from another story.
pub fn contrast(story: &str, rng: &mut Rng) -> Option<Contrast> {
    let (own, other) = (facts(story)?, facts(&prompt(rng))?);
    let differ: Vec<usize> = (0..own.len()).filter(|&k| own[k] != other[k]).collect();
    let at = *differ.choose_weighted(rng, |k| TOLD[*k]).ok()?;
    let chosen: Vec<usize> = (0..own.len()).filter(|&k| k == at || rng.random_bool(0.4)).collect();
    let told = |wrong: bool| {
        let fact = |&k: &usize| if wrong && k == at { other[k].as_str() } else { own[k].as_str() };
        chosen.iter().map(fact).collect::<Vec<_>>().join(" ")
    };
    Some(Contrast { prompt: story.to_owned(), kind: KINDS[at], right: told(false), wrong: told(true) })
}

/// The kinds of facts that a summary states, each with whether the story states it.
pub fn said(prompt: &str, summary: &str) -> Vec<Said<bool>> {
    let Some(facts) = facts(prompt) else { return vec![] };
    let of = |sentence: &str| {
        let kind = FACTS.iter().position(|start| sentence.starts_with(start))?;
        Some((KINDS[kind], facts[kind].trim_end_matches('.') == sentence))
    };
    sentences(summary).filter_map(of).collect()
}

#[derive(Default)]
struct Parts {
    facts: usize,
    takeaways: usize,
    /// Sentences that the story contradicts or that repeat another.
    wrong: usize,
}

fn parts(prompt: &str, summary: &str) -> Parts {
    let mut parts = Parts::default();
    let Some(facts) = facts(prompt) else {
        return parts;
    };
    let mut seen: Vec<&str> = Vec::new();
    for sentence in sentences(summary) {
        let takeaway = TAKEAWAYS.contains(&sentence);
        if seen.contains(&sentence) || !(takeaway || facts.iter().any(|fact| fact.trim_end_matches('.') == sentence)) {
            parts.wrong += 1;
            continue;
        }
        seen.push(sentence);
        parts.takeaways += usize::from(takeaway);
        parts.facts += usize::from(!takeaway);
    }
    parts
}

/// Gold summary quality: facts with diminishing returns, and conclusions, of which the first two help.
pub fn quality(prompt: &str, summary: &str) -> f64 {
    let p = parts(prompt, summary);
    first(&[0.34, 0.26, 0.18, 0.1, 0.05, 0.03], p.facts) + first(&[0.2, 0.06, -0.1, -0.1], p.takeaways)
        - 0.3 * p.wrong as f64
}

/// Gold conciseness: every sentence less is better, and none is no summary.
pub fn conciseness(_: &str, summary: &str) -> f64 {
    match sentences(summary).count() {
        0 => 0.0,
        said => 1.0 - 0.12 * (said - 1) as f64,
    }
}

/// Gold entailment: what the story states is entailed, but the more is said the more can be wrong.
pub fn entailment(prompt: &str, summary: &str) -> f64 {
    let p = parts(prompt, summary);
    let said = p.facts + p.takeaways + p.wrong;
    if said == 0 {
        return 0.0;
    }
    1.0 - first(&[0.0, 0.03, 0.07, 0.12, 0.18, 0.26], p.facts)
        - first(&[0.16, 0.3, 0.3, 0.3], p.takeaways)
        - 0.45 * p.wrong as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use motrain_core::rng::rng;

    #[test]
    fn gold_scores_read_the_text() {
        let q = "My boss ate my lunch. It happened on Monday. The reason is that the rent was late. Tom and I were at a hotel that \
                 day. Now I feel sad about it. Tom wants me to keep it quiet.\n\nTL;DR:";
        assert!((quality(q, "My boss ate my lunch. I feel sad.") - 0.6).abs() < 1e-12);
        assert!((entailment(q, "It happened on Monday. I feel sad.") - 0.97).abs() < 1e-12);
        assert!(entailment(q, "I feel angry.") < 0.6 && quality(q, "I feel angry.") < 0.0);
        let concluded = "My boss ate my lunch. I should talk to them soon.";
        assert!(quality(q, concluded) > quality(q, "My boss ate my lunch."));
        assert!(entailment(q, concluded) < 0.9);
        assert!(quality(q, &format!("{concluded} I should talk to them soon.")) < quality(q, concluded));
        assert!(entailment(q, "It happened on Tuesday. I feel sad.") < 0.6);
        assert_eq!([conciseness(q, ""), conciseness(q, "I feel sad."), conciseness(q, concluded)], [0.0, 1.0, 0.88]);
    }

    #[test]
    fn what_is_said_is_told_from_what_the_story_does_not_state() {
        let q = "My boss ate my lunch. It happened on Monday. The reason is that the rent was late. Tom and I were at a hotel that \
                 day. Now I feel sad about it. Tom wants me to keep it quiet.\n\nTL;DR:";
        let a = "My boss ate my lunch. We were at the park. I feel sad. Maybe it is partly my fault.";
        assert_eq!(said(q, a), [("event", true), ("place", false), ("feeling", true)]);
    }

    #[test]
    fn every_story_has_its_facts() {
        for i in 0..500 {
            let mut rng = rng(5, "t", i);
            let story = prompt(&mut rng);
            assert!(facts(&story).is_some(), "{story}");
        }
    }
}
