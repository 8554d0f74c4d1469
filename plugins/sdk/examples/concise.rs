//! A judge as a plugin: `cargo build -p motrain-plugin --example concise`, then `motrain plugin check target/debug/examples/libconcise.so`.

use motrain_plugin::{Component, Duel, Judge, Verdict, toolbox};

motrain_plugin::options! {
    /// Options of `example.concise`.
    pub struct Options {
        /// Answers whose words differ by fewer are a tie.
        margin: f64 = 3.0,
    }
}

struct Concise(Options);

impl Component for Concise {
    const NAME: &'static str = "example.concise";
    const SUMMARY: &'static str = "the answer with fewer words is better; none without words is judged";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        match options.margin {
            margin if margin >= 1.0 => Ok(Self(options)),
            margin => Err(format!("option \"margin\" must be at least 1, not {margin}")),
        }
    }
}

impl Judge for Concise {
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String> {
        let one = |duel: &Duel| {
            let [first, second] = [duel.first, duel.second].map(|answer| toolbox::words(answer).count() as f64);
            match second - first {
                _ if first == 0.0 || second == 0.0 => None,
                more if more >= self.0.margin => Some(Verdict::First),
                more if more <= -self.0.margin => Some(Verdict::Second),
                _ => Some(Verdict::Tie),
            }
        };
        Ok(duels.iter().map(one).collect())
    }
}

motrain_plugin::export! { judges: [Concise] }
