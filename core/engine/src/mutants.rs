//! Damaged copies of files, the same on every machine: readers must read or refuse them, and neither panic, abort nor hang.

use motrain_core::rng::Rng;
use rand::{Rng as _, SeedableRng};

/// Numbers at which sizes and counts break.
const EDGES: [u64; 10] = [0, 1, 255, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, 1 << 62, i64::MAX as u64, u64::MAX];

/// `count` copies with a byte changed, a number put in, a piece cut out or doubled, or the end cut off.
pub fn of(original: &[u8], count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |seed| {
        let mut rng = Rng::seed_from_u64(seed);
        let mut bytes = original.to_vec();
        for _ in 0..rng.random_range(1..4) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.random_range(0..bytes.len());
            let end = (at + rng.random_range(1..24usize)).min(bytes.len());
            match rng.random_range(0..6) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => {
                    let edge = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
                    let width = edge.len().min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&edge[..width]);
                }
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// The same for JSON: besides damaged texts, each number and word is replaced by others that are valid.
pub fn of_json(original: &str, count: u64) -> impl Iterator<Item = String> {
    const OTHERS: [&str; 14] = [
        "0",
        "-1",
        "1e308",
        "4611686018427387904",
        "-9223372036854775808",
        "1.5",
        "null",
        "true",
        "false",
        "\"\"",
        "\"x\"",
        "[]",
        "{}",
        "[[[1]]]",
    ];
    let damaged = of(original.as_bytes(), count / 2).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let changed = (0..count / 2).map(move |seed| {
        let mut rng = Rng::seed_from_u64(seed);
        let value: serde_json::Value = serde_json::from_str(original).unwrap();
        let mut map = value.as_object().unwrap().clone();
        for _ in 0..rng.random_range(1..3) {
            let key = map.keys().nth(rng.random_range(0..map.len())).unwrap().clone();
            map[&key] = serde_json::from_str(OTHERS[rng.random_range(0..OTHERS.len())]).unwrap();
        }
        serde_json::to_string(&map).unwrap()
    });
    damaged.chain(changed)
}
