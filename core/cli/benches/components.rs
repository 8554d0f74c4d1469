//! A loss and a reward across the plugin interface beside the same code built in, and a script function:
//! `cargo bench -p motrain -- LOSS REWARD`, two libraries.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use anyhow::{Result, bail};
use clap::Parser;
use motrain::{components, script};
use motrain_core::Prompt;
use motrain_core::loss::PairBatch;
use motrain_core::registry::Registry;
use motrain_core::reward::{RewardSource, Sample};
use motrain_engine::plan::ScriptSource;
use motrain_host::{Asker, Permit, Request};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

const PAIRS: usize = 64;
const SAMPLES: usize = 256;

#[derive(Parser)]
struct Args {
    /// Holds `motrain.cdpo`.
    loss: PathBuf,
    /// Holds `acme.about`.
    reward: PathBuf,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    motrain_engine::environment::settle();
    let Args { loss, reward, .. } = Args::parse();
    let mut registry = components::shipped("cpu", "f32")?;
    for path in [loss, reward] {
        motrain_host::load(&mut registry, &Request { path, ..Request::default() }, 0)?;
    }
    losses(&registry)?;
    rewards(&registry)?;
    script_reward(registry)
}

/// The shortest of many runs, in seconds.
fn best(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let clock = Instant::now();
        work();
        best = best.min(clock.elapsed().as_secs_f64());
    }
    best
}

fn losses(registry: &Registry) -> Result<()> {
    let column = |first: f64| (0..PAIRS).map(|i| first - i as f64 * 0.1).collect::<Vec<f64>>();
    let pairs = PairBatch {
        policy_first: column(-40.0),
        policy_second: column(-55.0),
        reference_first: column(-42.0),
        reference_second: column(-50.0),
        tokens_first: vec![10; PAIRS],
        tokens_second: vec![12; PAIRS],
        label: vec![1.0; PAIRS],
        weights: vec![0.5; 2 * PAIRS],
        margins: vec![0.1; 2 * PAIRS],
        other: None,
    };
    let built_in = registry.losses.build("dpo", &json!({ "beta": 0.1 }))?;
    let plugin = registry.losses.build("motrain.cdpo", &json!({ "beta": 0.1, "noise": 0.0 }))?;
    let gap = |(a, b): (&f64, &f64)| (a - b).abs();
    if built_in.evaluate(&pairs)?.loss.iter().zip(&plugin.evaluate(&pairs)?.loss).map(gap).any(|g| g > 1e-9) {
        bail!("the plugin's loss differs from the built-in one, so their times do not compare");
    }
    let own = best(|| drop(std::hint::black_box(built_in.evaluate(&pairs)))) * 1e6;
    let other = best(|| drop(std::hint::black_box(plugin.evaluate(&pairs)))) * 1e6;
    println!("{PAIRS} DPO pairs: built in {own:.2} us, plugin {other:.2} us");
    Ok(())
}

fn with_samples<T>(work: impl FnOnce(&[Sample]) -> T) -> T {
    let prompt = Prompt::user("How do I boil an egg?");
    let completion = "Put the egg into boiling water for seven minutes, then cool it under the tap.";
    let row = Value::Null;
    work(&vec![Sample { prompt: &prompt, completion, finished: true, row: &row }; SAMPLES])
}

fn per_sample(source: &dyn RewardSource, samples: &[Sample]) -> f64 {
    best(|| drop(std::hint::black_box(source.score(samples)))) / SAMPLES as f64
}

fn rewards(registry: &Registry) -> Result<()> {
    let built_in = registry.rewards.build("length", &json!({ "target": 20.0 }))?;
    let plugin = registry.rewards.build("acme.about", &json!({ "words": 20.0 }))?;
    with_samples(|samples| {
        let (own, other) = (per_sample(built_in.as_ref(), samples) * 1e9, per_sample(plugin.as_ref(), samples) * 1e9);
        let over = other - own;
        println!("reward, {SAMPLES} samples: built in {own:.0} ns, plugin {other:.0} ns a sample: {over:.0} ns more");
    });
    Ok(())
}

fn script_reward(registry: Registry) -> Result<()> {
    let source = r#"
        let r = reward_fn("R", |prompt, answer| -answer.len());
        rewards("rewards", #{ sources: [r], policy: "none", prompts: #{ paths: ["none"] } });
    "#;
    let config = json!({ "seed": 0, "device": "cpu", "dtype": "f32" });
    let script = ScriptSource { path: "bench.rhai".into(), source: source.into(), modules: Default::default(), config };
    let permit = Permit { asker: Asker::Script, roots: vec![], hashes: Default::default() };
    let (_, registry) = script::run(&script, registry, permit)?;
    let built = registry.rewards.build("R", &Value::Null)?;
    with_samples(|samples| {
        println!("script reward function: {:.0} calls/s", 1.0 / per_sample(built.as_ref(), samples));
    });
    Ok(())
}
