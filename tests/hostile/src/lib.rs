//! Components with every bug that a plugin in Rust can have short of a crash.

use motrain_plugin::{
    Component, Duel, Judge, LabelRule, Loss, Pair, PairLoss, PartialReward, Reward, Sample, Sampler, Verdict,
};
use std::time::Duration;

motrain_plugin::options! {
    /// Options of `hostile.reward`.
    pub struct Options {
        /// What goes wrong.
        bug: String = "none".into(),
        /// The call that goes wrong, counted from 0.
        at: f64 = 0.0,
    }
}

struct HostileReward {
    options: Options,
    calls: std::sync::atomic::AtomicU64,
}

impl Component for HostileReward {
    const NAME: &'static str = "hostile.reward";
    const SUMMARY: &'static str = "a reward with the bug that its options name";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        match options.bug.as_str() {
            "panic in create" => panic!("boom in create"),
            "error in create" => Err("option \"bug\" asked for it".into()),
            _ => Ok(Self { options, calls: Default::default() }),
        }
    }
}

impl Drop for HostileReward {
    fn drop(&mut self) {
        if self.options.bug == "panic in destroy" {
            panic!("boom in destroy");
        }
    }
}

impl Reward for HostileReward {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let good: Vec<f64> = samples.iter().map(|s| s.completion.len() as f64).collect();
        if call < self.options.at as u64 {
            return Ok(good);
        }
        match self.options.bug.as_str() {
            "panic in score" => panic!("boom in score"),
            "error without text" => Err(String::new()),
            "NaN" => Ok(samples.iter().map(|_| f64::NAN).collect()),
            "too few" => Ok(good[1..].to_vec()),
            "too many" => Ok([good.clone(), good].concat()),
            "slow" => {
                std::thread::sleep(Duration::from_millis(1500));
                Ok(good)
            }
            // In training only: its batch is 8 prompts of 2 completions.
            "crash" if samples.len() == 16 => {
                // SAFETY: none: this is the crash that the test asks for.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
                Ok(good)
            }
            _ => Ok(good),
        }
    }
}

motrain_plugin::options! {
    /// No options.
    pub struct Nothing {}
}

struct BadSampler;
impl Component for BadSampler {
    const NAME: &'static str = "hostile.sampler";
    const SUMMARY: &'static str = "weights that do not add up to 1";
    type Options = Nothing;
    fn create(_options: Nothing, _seed: u64) -> Result<Self, String> {
        Ok(Self)
    }
}
impl Sampler for BadSampler {
    fn sample(&self, objectives: usize, _index: u64, _seed: u64) -> Result<Vec<f64>, String> {
        Ok(vec![0.9; objectives])
    }
}

struct BadLabel;
impl Component for BadLabel {
    const NAME: &'static str = "hostile.label";
    const SUMMARY: &'static str = "a label that is no probability";
    type Options = Nothing;
    fn create(_options: Nothing, _seed: u64) -> Result<Self, String> {
        Ok(Self)
    }
}
impl LabelRule for BadLabel {
    fn label(&self, _weights: &[f64], _first: &[f64], _second: &[f64]) -> Option<f64> {
        Some(1.5)
    }
}

struct BadLoss;
impl Component for BadLoss {
    const NAME: &'static str = "hostile.loss";
    const SUMMARY: &'static str = "a loss whose derivative has the wrong sign";
    type Options = Nothing;
    fn create(_options: Nothing, _seed: u64) -> Result<Self, String> {
        Ok(Self)
    }
}
impl Loss for BadLoss {
    fn evaluate(&self, pair: &Pair) -> PairLoss {
        let gap = pair.log_ratio_gap();
        PairLoss { loss: 0.01 * gap * gap, d_first: -0.02 * gap, d_second: 0.02 * gap }
    }
}

/// Scores what ends in a full stop and leaves out the rest.
struct Finished;
impl Component for Finished {
    const NAME: &'static str = "hostile.partial";
    const SUMMARY: &'static str = "a reward that does not score all answers";
    type Options = Nothing;
    fn create(_options: Nothing, _seed: u64) -> Result<Self, String> {
        Ok(Self)
    }
}
impl PartialReward for Finished {
    fn score(&self, samples: &[Sample]) -> Result<Vec<Option<f64>>, String> {
        let one = |s: &Sample| s.completion.ends_with('.').then_some(s.completion.len() as f64);
        Ok(samples.iter().map(one).collect())
    }
}

struct BadJudge(Options);
impl Component for BadJudge {
    const NAME: &'static str = "hostile.judge";
    const SUMMARY: &'static str = "a judge with the bug that its options name";
    type Options = Options;
    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        Ok(Self(options))
    }
}
impl Judge for BadJudge {
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String> {
        match self.0.bug.as_str() {
            "panic" => panic!("boom in judge"),
            "error" => Err("the scales are broken".into()),
            "too few" => Ok(duels.iter().skip(1).map(|_| Some(Verdict::Tie)).collect()),
            "too many" => Ok(vec![None; duels.len() + 1]),
            _ => Ok(vec![Some(Verdict::First); duels.len()]),
        }
    }
}

motrain_plugin::export! {
    rewards: [HostileReward, Finished], samplers: [BadSampler], labels: [BadLabel], losses: [BadLoss], judges: [BadJudge],
}
