//! Mutants of the JSON texts within an input: a whole file of a bundle, the head of a safetensors file, a line.

use libfuzzer_sys::fuzzer_mutate;
use motrain_readers::bundle;
use serde_json::{Value, json};
use std::ops::Range;

/// Texts above this size take too long to parse for each mutant.
const LARGEST: usize = 1 << 16;

/// SplitMix64: a seed decides the whole mutation.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

pub fn mutant(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut dice = Dice(u64::from(seed));
    let places = places(data);
    let place = places.get(dice.below(places.len()))?.clone();
    let mut value: Value = serde_json::from_slice(data.get(place.clone())?).ok()?;
    for _ in 0..=dice.below(3) {
        let whole = value.clone();
        let count = count(&value);
        change(nth(&mut value, &mut dice.below(count))?, &whole, &mut dice);
    }
    let text = serde_json::to_vec(&value).ok()?;
    let mut out = data[..place.start].to_vec();
    if let Some(length) = head_length(&out, place.len()) {
        out[length].copy_from_slice(&(text.len() as u64).to_le_bytes());
    }
    out.extend_from_slice(&text);
    out.extend_from_slice(&data[place.end..]);
    Some(out)
}

/// Where JSON objects and lists may stand.
fn places(data: &[u8]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    for file in bundle::places(data) {
        let content = &data[file.clone()];
        let length = content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize);
        if let Some(end) = length.checked_add(8).filter(|end| *end <= content.len()) {
            all.push(file.start + 8..file.start + end);
        }
        let mut start = file.start;
        for line in content.split_inclusive(|b| *b == b'\n') {
            all.push(start..start + line.len());
            start += line.len();
        }
        all.push(file);
    }
    all.retain(|place| matches!(data[place.clone()].first(), Some(b'{' | b'[')) && place.len() < LARGEST);
    all
}

/// Where the length of a safetensors head stands, if that is what lies behind.
fn head_length(before: &[u8], length: usize) -> Option<Range<usize>> {
    let at = before.len().checked_sub(8)?;
    (before[at..] == (length as u64).to_le_bytes()).then_some(at..before.len())
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn count(value: &Value) -> usize {
    1 + children(value).map(count).sum::<usize>()
}

/// The value at which `left`, counted down before each, is zero.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|v| nth(v, left)),
        Value::Object(map) => map.values_mut().find_map(|v| nth(v, left)),
        _ => None,
    }
}

/// Changes one value; `whole` is what it stands in.
fn change(value: &mut Value, whole: &Value, dice: &mut Dice) {
    let other = |dice: &mut Dice| {
        let mut copy = whole.clone();
        nth(&mut copy, &mut dice.below(count(whole))).map(std::mem::take).unwrap_or_default()
    };
    match (dice.below(4), value) {
        (0, value) => *value = edge(dice),
        (1, value) => *value = other(dice),
        (_, Value::Array(list)) => match dice.below(3) {
            0 if !list.is_empty() => drop(list.remove(dice.below(list.len()))),
            1 => list.push(other(dice)),
            _ => list.extend_from_within(..),
        },
        (_, Value::Object(map)) => {
            let key = map.keys().nth(dice.below(map.len())).cloned().unwrap_or_default();
            match dice.below(3) {
                0 => drop(map.shift_remove(&key)),
                1 => drop(map.insert(text(&key), other(dice))),
                _ => {
                    let moved = map.shift_remove(&key).unwrap_or_default();
                    map.insert(text(&key), moved);
                }
            }
        }
        (_, Value::String(said)) => *said = text(said),
        (_, Value::Number(n)) => {
            let near = n.as_i64().unwrap_or(1 << 53);
            let steps = [near.wrapping_add(1), near.wrapping_sub(1), near.wrapping_neg(), near.wrapping_mul(2)];
            *n = steps[dice.below(steps.len())].into();
        }
        (_, value) => *value = edge(dice),
    }
}

/// Any change of a text, by libFuzzer: it knows the words of the sources.
fn text(said: &str) -> String {
    let mut buffer = said.as_bytes().to_vec();
    let size = buffer.len();
    buffer.resize(size + 64, 0);
    let size = fuzzer_mutate(&mut buffer, size, size + 64);
    String::from_utf8_lossy(&buffer[..size.min(buffer.len())]).into_owned()
}

/// Values at which sizes, counts and types break.
fn edge(dice: &mut Dice) -> Value {
    match dice.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1),
        5 => json!(1u64 << dice.below(64)),
        6 => json!(i64::MIN),
        7 => json!(u64::MAX),
        8 => json!(1e308),
        9 => json!(0.5),
        10 => json!(""),
        11 => json!("x"),
        12 => json!("\u{0}é\u{10ffff}"),
        13 => json!([]),
        14 => json!({}),
        _ => json!([[[1]]]),
    }
}
