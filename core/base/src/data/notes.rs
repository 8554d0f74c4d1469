//! What is said about the rows of a file: how many were left out, and what of others is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

/// Kinds of notes that are said about one file.
const SAID: usize = 12;

/// Notes by kind, each with its number and first line.
#[derive(Default)]
pub struct Notes {
    /// The line being read.
    pub line: usize,
    left_out: Counts,
    remarks: Counts,
}

type Counts = BTreeMap<String, (usize, usize)>;

impl Notes {
    /// Leaves out the row of this line, since `why` is so.
    pub fn leave_out<T>(&mut self, why: &str) -> Option<T> {
        count(&mut self.left_out, why, self.line);
        None
    }

    /// Says that `what` is so of the row of this line.
    pub fn remark(&mut self, what: &str) {
        count(&mut self.remarks, what, self.line);
    }

    /// A sentence for each kind.
    pub fn sentences(&self) -> Vec<String> {
        let left_out = self.left_out.iter().map(|(why, n)| format!("left out {}: {why} ({})", rows(n.0), place(n)));
        let remarks = self.remarks.iter().map(|(what, n)| format!("{}: {what} ({})", rows(n.0), place(n)));
        let mut all: Vec<String> = left_out.chain(remarks).collect();
        let more = all.len().saturating_sub(SAID);
        if more > 0 {
            all.truncate(SAID);
            all.push(format!("{more} more kinds of notes"));
        }
        all
    }

    /// Warns of everything, once in a process: several stages read the same files.
    pub fn say(&self, path: &Path) {
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        for sentence in self.sentences() {
            let message = format!("{}: {sentence}", path.display());
            if SAID.lock().is_ok_and(|mut said| said.insert(message.clone())) {
                tracing::warn!("{message}");
            }
        }
    }
}

fn count(counts: &mut Counts, kind: &str, line: usize) {
    counts.entry(kind.into()).or_insert((0, line)).0 += 1;
}

fn rows(n: usize) -> String {
    if n == 1 { "1 row".into() } else { format!("{n} rows") }
}

fn place((n, line): &(usize, usize)) -> String {
    if *n == 1 { format!("line {line}") } else { format!("the first in line {line}") }
}
