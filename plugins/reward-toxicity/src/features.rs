//! Text as a bag of hashed features: words, pairs of words, and letter trigrams and quadrigrams inside words.

use motrain_plugin::toolbox::words;

/// Number of hash buckets.
pub const BUCKETS: usize = 1 << 15;

/// Calls `take` with the bucket of each feature.
pub fn each(text: &str, mut take: impl FnMut(usize)) {
    let lower = text.to_lowercase();
    let mut before: Option<&str> = None;
    for word in words(&lower) {
        take(bucket(&["w", word]));
        take(bucket(&["p", before.unwrap_or("^"), " ", word]));
        before = Some(word);
        let marked: Vec<char> = std::iter::once('<').chain(word.chars()).chain(std::iter::once('>')).collect();
        for n in [3, 4] {
            for gram in marked.windows(n) {
                let mut text = [0u8; 16];
                let mut length = 0;
                for c in gram {
                    length += c.encode_utf8(&mut text[length..]).len();
                }
                take(bucket(&["l", std::str::from_utf8(&text[..length]).unwrap_or_default()]));
            }
        }
    }
}

/// FNV-1a.
fn bucket(parts: &[&str]) -> usize {
    let bytes = parts.iter().flat_map(|p| p.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 29)) as usize % BUCKETS
}
