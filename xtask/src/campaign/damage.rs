//! Damages to a file's bytes, as disks, transfers and hands make them.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What takes the place of a number in a text.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1e999",
    "-1e-999",
    "NaN",
    "Infinity",
    "null",
    "9223372036854775808",
    "18446744073709551616",
    "4294967295",
    "2147483648",
    "0.1",
    "\"7\"",
    "[]",
];
/// What takes the place of a byte's value and its neighbours.
const WORDS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, u64::MAX];

/// Damages `bytes` once to four times; says how.
pub fn damage(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> String {
    let times = [1, 1, 1, 2, 4].choose(rng).copied().unwrap_or(1);
    (0..times).map(|_| once(bytes, rng)).collect::<Vec<_>>().join(", ")
}

fn once(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> &'static str {
    if bytes.is_empty() {
        bytes.extend((0..rng.random_range(1..40)).map(|_| rng.random::<u8>()));
        return "filled";
    }
    let numbers = numbers(bytes);
    let at = place(bytes.len(), rng);
    let length = rng.random_range(1..=64).min(bytes.len() - at);
    match rng.random_range(0..9) {
        0 => {
            bytes[at] ^= 1 << rng.random_range(0..8);
            "a bit turned"
        }
        1 => {
            bytes[at] = rng.random();
            "a byte replaced"
        }
        2 => {
            bytes.truncate(at);
            "cut"
        }
        3 => {
            bytes.drain(at..at + length);
            "bytes taken out"
        }
        4 => {
            let copied = bytes[at..at + length].to_vec();
            let to = place(bytes.len(), rng);
            let times = [1, 1, 3, 1000].choose(rng).copied().unwrap_or(1);
            bytes.splice(to..to, copied.repeat(times));
            "bytes repeated"
        }
        5 => {
            bytes[at..at + length].fill([0, b' ', 0xff].choose(rng).copied().unwrap_or(0));
            "bytes overwritten"
        }
        6 => {
            let word = WORDS.choose(rng).copied().unwrap_or(0).to_le_bytes();
            let width = [1, 4, 8].choose(rng).copied().unwrap_or(8).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&word[..width]);
            "a word replaced"
        }
        _ if numbers.is_empty() => {
            bytes.insert(at, rng.random());
            "a byte put in"
        }
        _ => {
            let range = numbers[rng.random_range(0..numbers.len())].clone();
            bytes.splice(range, NUMBERS.choose(rng).copied().unwrap_or("0").bytes());
            "a number replaced"
        }
    }
}

/// A place in a file; heads, where lengths and keys stand, as often as all the rest.
fn place(length: usize, rng: &mut ChaCha8Rng) -> usize {
    let end = if rng.random() { length } else { length.min(512) };
    rng.random_range(0..end)
}

/// Where decimal numbers stand in the first part of a text.
fn numbers(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    for (i, byte) in bytes.iter().take(100_000).enumerate() {
        match (byte.is_ascii_digit() || *byte == b'.', start) {
            (true, None) => start = Some(i),
            (false, Some(from)) => {
                found.push(from..i);
                start = None;
            }
            _ => {}
        }
    }
    found
}
