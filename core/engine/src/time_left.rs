//! How long the rest of a run will take, by how long its finished stages of the same kind took.

use indicatif::HumanDuration;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Times of finished stages, by kind of stage.
pub struct TimeLeft<K> {
    took: HashMap<K, Vec<f64>>,
}

impl<K: Hash + Eq> TimeLeft<K> {
    pub fn new() -> Self {
        Self { took: HashMap::new() }
    }

    pub fn finished(&mut self, kind: K, seconds: f64) {
        self.took.entry(kind).or_default().push(seconds);
    }

    /// The time that stages of these kinds will take; none while too few of the kinds are known for a number worth showing.
    fn of(&self, stages: impl Iterator<Item = K>) -> Option<Duration> {
        let (mut seconds, mut known, mut all) = (0.0, 0, 0);
        for kind in stages {
            all += 1;
            if let Some(took) = self.took.get(&kind) {
                known += 1;
                seconds += took.iter().sum::<f64>() / took.len() as f64;
            }
        }
        // Nine in ten: one stage of an unknown kind must not hide the time for good.
        let enough = known > 0 && known * 10 >= all * 9;
        enough.then(|| Duration::from_secs_f64(seconds * f64::from(all) / f64::from(known)))
    }

    /// ", about 5 minutes left", or nothing.
    pub fn told(&self, stages: impl Iterator<Item = K>) -> String {
        self.of(stages).map_or(String::new(), |time| format!(", about {} left", HumanDuration(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_means_by_kind_once_nine_in_ten_are_known() {
        let mut left = TimeLeft::new();
        left.finished("train", 100.0);
        left.finished("train", 140.0);
        assert_eq!(left.told(["train", "evaluate"].into_iter()), "");
        left.finished("evaluate", 60.0);
        assert_eq!(left.told(["train", "evaluate"].into_iter()), ", about 3 minutes left");
        let last_unknown = std::iter::repeat_n("train", 9).chain(["compare"]);
        assert_eq!(left.of(last_unknown), Some(Duration::from_secs(1200)));
    }
}
