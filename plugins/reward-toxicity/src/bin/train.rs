//! Trains the classifier and writes weights.bin: `cargo run --release -p reward-toxicity --bin train`.

use motrain_plugin::toolbox;
use reward_toxicity::features::{BUCKETS, each};

const INSULTS: &[&str] = &[
    "idiot", "moron", "fool", "loser", "pig", "coward", "liar", "clown", "brat", "creep", "freak", "monster",
    "failure", "parasite", "rat", "imbecile", "dimwit", "jerk", "snake", "scum", "trash", "garbage", "dirt",
];
const BAD: &[&str] = &[
    "stupid",
    "worthless",
    "pathetic",
    "disgusting",
    "useless",
    "filthy",
    "ugly",
    "dumb",
    "miserable",
    "hopeless",
    "vile",
    "rotten",
    "ridiculous",
    "despicable",
    "lousy",
];
const HARM: &[&str] = &[
    "hurt you",
    "beat you",
    "destroy you",
    "make you suffer",
    "break your legs",
    "burn your house",
    "find you",
    "kill you",
    "smash your face",
    "ruin your life",
    "hit you",
    "make you pay",
    "crush you",
];
const GROUPS: &[&str] = &[
    "people like you",
    "those people",
    "your kind",
    "your family",
    "your friends",
    "all of them",
    "they",
    "your whole town",
];
const TOPICS: &[&str] = &[
    "the garden",
    "this recipe",
    "your question",
    "the report",
    "the old car",
    "the exam",
    "the letter",
    "the neighbour",
    "the plan",
    "the onion",
    "the movie",
    "the teacher",
    "the river",
    "your computer",
    "the bread",
    "the weather",
    "the train",
    "this problem",
    "the meeting",
    "a hard day",
    "the doctor",
    "the egg",
    "the window",
    "your project",
    "the dog",
    "the story",
];
const GOOD: &[&str] = &[
    "good",
    "kind",
    "helpful",
    "careful",
    "clear",
    "honest",
    "wonderful",
    "patient",
    "clever",
    "brave",
    "calm",
    "useful",
    "interesting",
    "friendly",
    "right",
    "safe",
    "strong",
    "quiet",
];
const ACTS: &[&str] = &[
    "look at",
    "think about",
    "talk about",
    "work on",
    "write about",
    "wait for",
    "ask about",
    "read about",
    "clean",
    "open",
    "cut",
    "fix",
    "check",
    "save",
    "improve",
    "describe",
    "remember",
    "start with",
    "take care of",
];
const PLACES: &[&str] = &[
    "at home",
    "in the morning",
    "with a friend",
    "tomorrow",
    "in the north",
    "at work",
    "at night",
    "for ten minutes",
];

const WHO: &[&str] = &["I", "you", "we", "they", "my friend", "the teacher", "somebody", "she", "he", "people"];
const MODAL: &[&str] = &["could", "should", "may", "will", "cannot", "would", "can", "must", "did", "want to"];
const WHOM: &[&str] =
    &["them", "her", "him", "us", "me", "everybody", "your parents", "the neighbour", "a friend", "the doctor"];
const DO: &[&str] = &[
    "talk to",
    "ask",
    "help",
    "listen to",
    "write to",
    "wait for",
    "thank",
    "visit",
    "call",
    "meet",
    "find",
    "pay",
    "hear",
    "see",
];
const WHEN: &[&str] = &[
    "when you are calm",
    "if that is all right",
    "before it is too late",
    "after the rain",
    "as soon as possible",
    "if they like",
    "because it matters",
    "so that nobody gets hurt",
    "and then go home",
    "while the water boils",
    "until it is done",
];

struct Random(toolbox::Random);

impl Random {
    fn new(seed: u64) -> Self {
        Self(toolbox::Random::new(seed))
    }
    fn next(&mut self) -> u64 {
        self.0.bits()
    }
    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.next() as usize % list.len()]
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

fn toxic(r: &mut Random) -> String {
    let (insult, bad, harm, group) = (r.of(INSULTS), r.of(BAD), r.of(HARM), r.of(GROUPS));
    match r.next() % 21 {
        0 => format!("You are a {bad} {insult}."),
        1 => format!("You {insult}, nobody likes you."),
        2 => format!("Shut up, you {bad} {insult}."),
        3 => format!("I will {harm}."),
        4 => format!("I hope you suffer, {insult}."),
        5 => format!("I hate {group}, they are {bad}."),
        6 => format!("{group} disgust me."),
        7 => format!("What a {bad} {insult} you are."),
        8 => format!("Everyone hates you, {bad} {insult}."),
        9 => format!("Your idea is {bad} and so are you."),
        10 => format!("Only a {insult} would ask about {}.", r.of(TOPICS)),
        11 => format!("Go away, {insult}, or I will {harm}."),
        12 => format!("{group} are {insult}s and should be beaten."),
        13 => format!("You're such a {bad} {insult}."),
        14 => format!("{group} should be locked up, the {bad} {insult}s."),
        15 => format!("You're so {bad}, nobody wants you here."),
        16 => format!("{} {} {} {}, you {insult}.", r.of(WHO), r.of(MODAL), r.of(DO), r.of(WHOM)),
        17 => format!("{} {} {harm} {}.", r.of(WHO), r.of(MODAL), r.of(WHEN)),
        18 => format!("I am sorry that you are such a {insult}."),
        19 => format!("Do you want to hear how {bad} you are, {insult}?"),
        _ => format!("{group} is {bad} and so are you, you {insult}."),
    }
}

fn harmless(r: &mut Random) -> String {
    let (topic, good, act, place) = (r.of(TOPICS), r.of(GOOD), r.of(ACTS), r.of(PLACES));
    match r.next() % 31 {
        0 => format!("You can {act} {topic} {place}."),
        1 => format!("I would {act} {topic} first, then rest {place}."),
        2 => format!("I am sorry to hear that. Do you want to {act} {topic}?"),
        3 => format!("It is a {good} idea to {act} {topic}."),
        4 => format!("First, {act} {topic}. Then {act} it again {place}."),
        5 => format!("You are {good}, and {topic} will be fine."),
        // Hostile words without hostility.
        6 => format!("You are not a {}, {topic} is hard.", r.of(INSULTS)),
        7 => format!("It is wrong to call anybody a {}.", r.of(INSULTS)),
        8 => format!("You can kill the process and {act} {topic}."),
        9 => format!("The story is about a {} who learns to be {good}.", r.of(INSULTS)),
        10 => format!("I hate the rain, so I {act} {topic} {place}."),
        11 => format!("The movie was {}, but {topic} was {good}.", r.of(BAD)),
        12 => format!("If somebody says that they will {}, call the police.", r.of(HARM)),
        13 => format!("Please be {good} to {}.", r.of(GROUPS)),
        14 => format!("I cannot help with that. It is {good} to {act} {topic} instead."),
        15 => format!("Be careful, because {topic} may be dangerous {place}."),
        16 => format!("Thank you, {topic} means a lot to me."),
        17 => format!("People like you make {topic} {good}."),
        18 => format!("You are not {}, it is a {good} question.", r.of(BAD)),
        19 => format!("Nobody should be called {} or a {}.", r.of(BAD), r.of(INSULTS)),
        20 => format!("Your family can {act} {topic} {place}."),
        21 => format!("A man who hates {topic} is in the movie."),
        23 => format!("{} {} {} {} {}.", r.of(WHO), r.of(MODAL), r.of(DO), r.of(WHOM), r.of(WHEN)),
        24 => format!("I am sorry to hear that. {} {} {} {}.", r.of(WHO), r.of(MODAL), r.of(DO), r.of(WHOM)),
        25 => format!("You {} {} {} {}.", r.of(MODAL), r.of(DO), r.of(WHOM), r.of(WHEN)),
        26 => format!("{} {} {act} {topic} {}.", r.of(WHO), r.of(MODAL), r.of(WHEN)),
        27 => format!("I hope that you {} {act} {topic} soon.", r.of(MODAL)),
        28 => format!("Everyone likes {topic}, and nobody minds {topic}."),
        29 => format!("What a {good} day for {topic}!"),
        22 => format!("They are {good} and {act} {topic}."),
        _ => format!("The answer is to {act} {topic}, which is {good}."),
    }
}

/// One to three sentences; a text with one toxic sentence is toxic.
fn text(r: &mut Random) -> (String, bool) {
    let is_toxic = r.chance(50);
    let mut sentences: Vec<String> = (0..r.next() % 3).map(|_| harmless(r)).collect();
    if is_toxic {
        let at = r.next() as usize % (sentences.len() + 1);
        sentences.insert(at, toxic(r));
    } else {
        sentences.push(harmless(r));
    }
    (sentences.join(" "), is_toxic)
}

fn buckets(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    each(text, |b| out.push(b));
    out
}

fn main() {
    let mut random = Random::new(1);
    let rows: Vec<(Vec<usize>, f32)> = (0..40_000)
        .map(|_| text(&mut random))
        .map(|(text, toxic)| (buckets(&text), if toxic { 1.0 } else { 0.0 }))
        .collect();
    let (mut weights, mut bias) = (vec![0f32; BUCKETS], 0f32);
    let log_odds = |weights: &[f32], bias: f32, features: &[usize]| {
        bias + features.iter().map(|&b| weights[b]).sum::<f32>() / (features.len().max(1) as f32).sqrt()
    };
    let epochs = 12;
    for epoch in 0..epochs {
        let rate = 1.0 * (1.0 - epoch as f32 / epochs as f32);
        for (features, label) in &rows {
            let p = 1.0 / (1.0 + (-log_odds(&weights, bias, features)).exp());
            let step = rate * (label - p) / (features.len().max(1) as f32).sqrt();
            for &b in features {
                weights[b] += step - rate * 2e-5 * weights[b];
            }
            bias += rate * 0.1 * (label - p);
        }
    }
    let largest = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
    let scale = largest / 127.0;
    let bytes: Vec<u8> = weights.iter().map(|w| (w / scale).round() as i8 as u8).collect();
    let mut file = [scale.to_le_bytes(), bias.to_le_bytes()].concat();
    file.extend(&bytes);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/weights.bin");
    if let Err(e) = std::fs::write(path, file) {
        eprintln!("{path}: {e}");
    }
    let rounded: Vec<f32> = bytes.iter().map(|b| f32::from(*b as i8) * scale).collect();
    let mut unseen = Random::new(2);
    let right = (0..4000)
        .filter(|_| {
            let (text, toxic) = text(&mut unseen);
            (log_odds(&rounded, bias, &buckets(&text)) > 0.0) == toxic
        })
        .count();
    println!("held-out accuracy {:.4} on 4000 texts of another seed", right as f64 / 4000.0);
}
