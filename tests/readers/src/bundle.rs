//! Several files in one input: each begins with a line `--- NAME`. Bytes before the first such line are the reader's main file.

use std::ops::Range;

const MARK: &[u8] = b"--- ";
/// No line that begins a file is longer.
const LONGEST: usize = 64;

/// The files of a bundle by name: those of `names`, of which the first is the main one.
pub fn files<'a>(data: &'a [u8], names: &[&'a str]) -> Vec<(&'a str, &'a [u8])> {
    let named = |place: Range<usize>| {
        let name = name_before(data, place.start).map_or(names[0].as_bytes(), |line| &data[line]);
        Some((*names.iter().find(|n| n.as_bytes() == name)?, &data[place]))
    };
    places(data).into_iter().filter_map(named).collect()
}

/// Where the contents of the files stand.
pub fn places(data: &[u8]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < data.len() {
        let rest = &data[at..];
        let end = rest.iter().take(LONGEST).position(|b| *b == b'\n');
        match end.filter(|_| rest.starts_with(MARK) && (at == 0 || data[at - 1] == b'\n')) {
            Some(end) => {
                // The line feed before a mark belongs to the mark.
                all.push(start..at.saturating_sub(1).max(start));
                at += end + 1;
                start = at;
            }
            None => at += 1,
        }
    }
    all.push(start..data.len());
    all.retain(|place| place.start > 0 || !place.is_empty());
    all
}

/// The name on the line above the content that starts at `start`.
fn name_before(data: &[u8], start: usize) -> Option<Range<usize>> {
    let end = start.checked_sub(1)?;
    let line = data[..end].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    Some(line + MARK.len()..end)
}
