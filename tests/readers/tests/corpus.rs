//! Every input of the committed corpora, and every one that ever failed, is read or refused on the plain build too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Far above what any takes: a hang is a failure that names its input, not a test that never ends.
const LONGEST: Duration = Duration::from_secs(30);

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.sort();
    all
}

#[test]
fn corpora_and_regressions_are_read_or_refused() {
    let fuzz = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"));
    for (name, reader) in motrain_readers::READERS {
        let corpus = inputs(&fuzz.join("corpus").join(name));
        assert!(corpus.len() > 2, "{name} has no corpus");
        for input in corpus.into_iter().chain(inputs(&fuzz.join("regressions").join(name))) {
            let bytes = std::fs::read(&input).unwrap();
            let begun = Instant::now();
            let failed = std::panic::catch_unwind(|| reader(&bytes)).is_err();
            assert!(!failed, "{} makes its reader panic", input.display());
            assert!(begun.elapsed() < LONGEST, "{} takes {:?}", input.display(), begun.elapsed());
        }
    }
}
