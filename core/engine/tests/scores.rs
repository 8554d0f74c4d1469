//! What becomes of scores before a policy is trained on them: second opinions on an objective and when their disagreement stops a stage, GDPO's last
//! step, and what a cut answer loses before judges.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::judge::{Duel, Judge, Verdict};
use motrain_core::registry::Entry;
use motrain_core::reward::{RewardSource, Sample};
use motrain_engine::plan::Stage;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use world::{World, find, lines};

const KINDS: [&str; 2] = ["online_preference", "reinforce"];

/// The rewards of the world, and second opinions on A: the scores of words, and the raw score that becomes 0.
fn opinions(world: &World, all: &[(Value, f64)]) -> Value {
    let mut rewards = world.rewards();
    let opinion = |(i, (words, low)): (usize, &(Value, f64))| {
        let source = json!({ "name": "lexicon", "options": { "words": words } });
        json!({ "name": format!("A{}", i + 2), "of": "A", "scale": [low, low + 1.0], "source": source })
    };
    rewards["sources"].as_array_mut().unwrap().extend(all.iter().enumerate().map(opinion));
    rewards
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(find(&find(run, "model"), "model.safetensors")).unwrap()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"))
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
}

/// Deviation and mean, by their definitions.
fn spread(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    ((x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt(), mean)
}

/// Every completion of the first step is logged: what it was trained on, and what every reward said of it.
#[test]
fn an_objective_is_the_mean_of_its_opinions_less_their_variance() {
    let world = World::new();
    let rewards = opinions(&world, &[(json!({ "b": 1 }), 0.0), (json!({ "c": 1, "a": 0.5 }), 0.0)]);
    for kind in KINDS {
        let changes = json!({ "drift": { "penalty": 0.6 }, "train": { "steps": 1, "batch_size": 4 } });
        let run = world.run(kind, &[rewards.clone(), world.online(kind, &changes)]).unwrap();
        let (mut apart, mut own) = (vec![], vec![]);
        for line in lines(&run, "completions.jsonl") {
            let members = ["A", "A2", "A3"].map(|name| number(&line["raw"], name));
            let (deviation, mean) = spread(&members);
            near(line["scores"][0].as_f64().unwrap(), mean - 0.6 * deviation * deviation);
            near(line["scores"][1].as_f64().unwrap(), number(&line["raw"], "B"));
            apart.push(deviation);
            own.push(members[0]);
        }
        let step = lines(&run, "metrics.jsonl").remove(0);
        near(number(&step, "drift/A/disagreement"), spread(&apart).1);
        near(number(&step, "rewards/A/mean"), spread(&own).1);
        assert!(number(&step, "drift/A/agreement").abs() < 1.0 && step["drift/B/disagreement"].is_null(), "{step}");
        assert!(step["watch/A2/mean"].is_number() && apart.iter().any(|d| *d > 0.3), "{step}");
        let scales: Value = serde_json::from_slice(&std::fs::read(find(&run, "scales.json")).unwrap()).unwrap();
        assert!(number(&scales["disagreement"], "A") > 0.0 && scales["disagreement"]["B"].is_null(), "{scales}");
    }
}

/// An opinion that says ½ more and a penalty that takes as much leave the score as it is, and so does no penalty; another penalty does not.
#[test]
fn what_is_trained_on_follows_the_penalty_alone() {
    let world = World::new();
    let (same, other) = (json!({ "a": 1 }), json!({ "b": 1 }));
    for kind in KINDS {
        let train = |out: &str, all: &[(Value, f64)], drift: Value| {
            let stage = world.online(kind, &json!({ "drift": drift }));
            weights(&world.run(&format!("{kind}-{out}"), &[opinions(&world, all), stage]).unwrap())
        };
        let alone = train("alone", &[], json!({}));
        // (a + (a + 1)) / 2 − 2·¼
        assert!(alone == train("same", &[(same.clone(), -1.0)], json!({ "penalty": 2.0 })), "{kind}");
        assert!(alone == train("reported", &[(other.clone(), 0.0)], json!({})), "{kind}");
        assert!(alone != train("other", &[(other.clone(), 0.0)], json!({ "penalty": 2.0 })), "{kind}");
    }
}

/// The mean of `a` and `2c − a` is `c`: as good as no penalty trains as the reward `c` would, and a penalty otherwise.
#[test]
fn a_known_mean_trains_as_that_reward_does() {
    let world = World::new();
    let steps = |out: &str, rewards: Value, penalty: f64| {
        let stage = world.online("reinforce", &json!({ "drift": { "penalty": penalty }, "baseline": "rloo" }));
        let run = world.run(out, &[rewards, stage]).unwrap();
        lines(&run, "metrics.jsonl").iter().map(|l| number(l, "grad_norm")).collect::<Vec<_>>()
    };
    let mut plain = world.rewards();
    plain["sources"][0]["source"]["options"]["words"] = json!({ "c": 1.0 });
    let both = || opinions(&world, &[(json!({ "c": 2, "a": -1 }), 0.0)]);
    let (plain, mean, penalised) = (steps("c", plain, 0.0), steps("mean", both(), 1e-9), steps("less", both(), 0.5));
    let gap = |other: &[f64]| plain.iter().zip(other).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    assert!(gap(&mean) < 1e-4 && gap(&penalised) > 1e-2, "{plain:?} {mean:?} {penalised:?}");
}

/// Counts the word "a" until it has been asked so often, and fails once.
struct Flaky(Arc<AtomicUsize>);

impl RewardSource for Flaky {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            1 => Err("away".into()),
            _ => Ok(batch.iter().map(|s| s.completion.split(' ').filter(|w| *w == "a").count() as f64).collect()),
        }
    }
}

/// A policy that says more and more of what only its own reward likes is stopped where the disagreement over ten steps is first above the limit, though it
/// was interrupted within these ten.
#[test]
fn training_stops_above_the_limit_and_interruptions_change_nothing() {
    let mut world = World::new();
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let flaky = left.clone();
    let entry = move |_: &Value| Ok(Box::new(Flaky(flaky.clone())) as Box<dyn RewardSource>);
    let entry = Entry::dynamic("flaky".into(), "fails".into(), json!({ "type": "object", "properties": {} }), entry);
    world.registry.rewards.add(entry).unwrap();
    let train = json!({ "steps": 40, "batch_size": 8, "micro_batch_size": 8, "checkpoint_every": 40 });
    let mut rewards = opinions(&world, &[(json!({ "nothing": 1 }), 0.0)]);
    rewards["sources"][0]["source"] = json!({ "name": "flaky" });
    let stages = |kind: &str, stop: f64| {
        let all_on_a = json!({ "name": "fixed", "options": { "weights": [1.0, 0.0] } });
        let changes = json!({ "drift": { "stop": stop }, "train": train, "sampler": all_on_a });
        [rewards.clone(), world.online(kind, &changes)]
    };
    let apart = |run: &Path| -> Vec<f64> {
        lines(run, "metrics.jsonl").iter().map(|l| number(l, "drift/A/disagreement")).collect()
    };
    for kind in KINDS {
        let free = apart(&world.run(&format!("{kind}-free"), &stages(kind, 0.0)).unwrap());
        assert_eq!(free.len(), 40);
        let recent = |end: usize| free[end - 10..end].iter().sum::<f64>() / 10.0;
        // The limit is the highest mean before the last that is higher than all before it.
        let before = |end: usize| (10..end).map(recent).fold(0.0, f64::max);
        let end = (11..=40).rfind(|end| recent(*end) > before(*end)).unwrap_or_else(|| panic!("no drift: {free:?}"));
        let most = before(end);
        let run = world.run(&format!("{kind}-stopped"), &stages(kind, most)).unwrap();
        assert_eq!(apart(&run), free[..end], "{kind}");
        // The rewards' own fit asks once, and each step.
        left.store(1 + (end - 4), Ordering::Relaxed);
        let out = format!("{kind}-resumed");
        let error = world.run(&out, &stages(kind, most)).unwrap_err().to_string();
        assert!(error.contains("away"), "{error}");
        let resumed = world.run(&out, &stages(kind, most)).unwrap();
        assert!(apart(&resumed) == free[..end] && weights(&resumed) == weights(&run), "{kind}: {:?}", apart(&resumed));
    }
}

#[test]
fn a_guard_that_does_nothing_is_not_there() {
    let world = World::new();
    for kind in KINDS {
        let options = |changes: Value| {
            let mut stage = world.online(kind, &changes);
            ["id", "kind"].iter().for_each(|key| drop(stage.as_object_mut().unwrap().remove(*key)));
            json!(Stage::read(kind, "s", &stage).unwrap())
        };
        let without = options(json!({}));
        assert_eq!(without, options(json!({ "drift": { "penalty": 0.0, "stop": 0.0 } })));
        assert!(!without.to_string().contains("drift"), "{without}");
    }
}

/// Whatever the weights and the groups, advantages have a deviation of 1 in every step.
#[test]
fn gdpo_gives_every_batch_the_same_spread() {
    let world = World::new();
    let spreads = |normalise: &str| {
        let baseline = json!({ "name": "grpo", "options": { "scale": false } });
        let changes = json!({ "normalise": normalise, "kl": 0.0, "completions": 3, "baseline": baseline });
        let run = world.train(normalise, "reinforce", &changes).unwrap();
        lines(&run, "metrics.jsonl").iter().map(|l| number(l, "advantages/std")).collect::<Vec<_>>()
    };
    let (by_group, gdpo) = (spreads("group"), spreads("gdpo"));
    assert!(gdpo.iter().all(|s| (s - 1.0).abs() < 1e-3), "{gdpo:?}");
    assert!(by_group.iter().all(|s| (s - 1.0).abs() > 1e-2), "{by_group:?}");
}

/// Prefers more words; or, if told to look, an answer that came to its end (of four words none did), and then more words.
struct Words {
    looks: bool,
}

impl Judge for Words {
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String> {
        let count = |text: &str| text.split_whitespace().count();
        let worth = |text: &str| if self.looks && count(text) == 4 { 0 } else { 1 + count(text) };
        let one = |d: &Duel| match worth(d.first).cmp(&worth(d.second)) {
            std::cmp::Ordering::Greater => Verdict::First,
            std::cmp::Ordering::Less => Verdict::Second,
            std::cmp::Ordering::Equal => Verdict::Tie,
        };
        Ok(duels.iter().map(|d| Some(one(d))).collect())
    }
}

/// A penalty of two points turns every verdict for a cut answer against a finished one around; of one, it makes ties of them.
#[test]
fn a_cut_answer_loses_points_before_judges() {
    let mut world = World::new();
    for (name, looks) in [("words", false), ("ends", true)] {
        let entry = move |_: &Value| Ok(Box::new(Words { looks }) as Box<dyn Judge>);
        let entry = Entry::dynamic(name.into(), "counts".into(), json!({ "type": "object", "properties": {} }), entry);
        world.registry.judges.add(entry).unwrap();
    }
    let train = |judge: &str, penalty: f64| {
        let judges = vec![json!({ "name": judge }); 2];
        let steps = json!({ "steps": 3, "batch_size": 8, "micro_batch_size": 4 });
        let changes = json!({ "judges": judges, "missing_eos_penalty": penalty, "train": steps });
        world.train(&format!("{judge}-{penalty}"), "online_preference", &changes).unwrap()
    };
    let (turned, told, plain, tied) =
        (train("words", 2.0), train("ends", 0.0), train("words", 0.0), train("words", 1.0));
    assert!(weights(&turned) == weights(&told) && weights(&turned) != weights(&plain));
    let ties = |run: &Path| number(&lines(run, "metrics.jsonl")[0], "pairs/ties");
    assert!(ties(&tied) > ties(&turned) && ties(&turned) == ties(&plain), "{} {}", ties(&tied), ties(&turned));
}
