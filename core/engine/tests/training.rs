//! What training does to a policy: it learns to steer, and not from weights that are not those of the scores; the size of a micro-batch changes
//! nothing; a reward model learns what pairs say.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_core::conditioner::Conditioner;
use motrain_core::registry::Entry;
use motrain_core::rng::sub_seed;
use motrain_core::{Prompt, Registry, Weights};
use motrain_engine::model::Model;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind};
use world::{WORDS, World, find, lines};

fn rows(world: &World, name: &str, row: impl Fn(usize) -> Value) -> Value {
    let text: String = (0..60).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(world.path(name), text).unwrap();
    json!({ "paths": [world.path(name)] })
}

/// Pairs of which the chosen answer says `a` more often and `b` less often than the other; one word of the prompt is shared by all of them.
fn pairs(world: &World, shared: &str) -> Value {
    let other = |i: usize| WORDS[2 + i % 5];
    rows(world, &format!("pairs-{shared}.jsonl"), |i| {
        let prompt = format!("{} {shared} {}", other(i), WORDS[i % 7]);
        json!({ "prompt": prompt, "chosen": format!("{} a a", other(i / 5)), "rejected": format!("{} b b", other(i / 3)) })
    })
}

/// Answers rated by how often they say `a` and `b`; nobody rates `b` in a third of them.
fn ratings(world: &World, name: &str) -> Value {
    rows(world, &format!("ratings-{name}.jsonl"), |i| {
        let (a, b) = (i % 3, i / 3 % 3);
        let said = format!("{}{}{}", WORDS[2 + i % 5], " a".repeat(a), " b".repeat(b));
        // What is learnt without ratings is seen where there are some.
        let b = if i % 3 == 1 && name == "c" { Value::Null } else { json!(b) };
        json!({ "prompt": format!("{} {name}", WORDS[2 + i % 4]), "response": said, "as": a, "bs": b })
    })
}

/// The largest differences of two policies' parameters: between each other, and from where they began.
fn differences(world: &World, a: &Path, b: &Path) -> (f64, f64) {
    let load = |folder: &Path| Model::load(folder, Device::Cpu).unwrap();
    let (a, b) = (load(&find(a, "model")), load(&find(b, "model")));
    let begin = load(&world.path("policy"));
    let largest = |x: &Model, y: &Model| {
        let each = x.params.iter().filter_map(|(name, p)| {
            let (_, q) = y.params.iter().find(|(n, _)| n == name)?;
            Some(f64::try_from((p - q).abs().max().to_kind(Kind::Double)).unwrap())
        });
        each.fold(0.0, f64::max)
    };
    (largest(&a, &b), largest(&a, &begin))
}

#[test]
fn the_size_of_a_micro_batch_does_not_change_the_update() {
    let world = World::new();
    let said = |i: usize| ["a", "b c", "d e f"][i % 3];
    let sft = rows(&world, "answers.jsonl", |i| json!({ "prompt": WORDS[i % 7], "completion": said(i) }));
    // A large epsilon makes AdamW's step follow the size of the gradient, so that rounding does not turn signs.
    let optimizer = json!({ "name": "adamw", "lr": 0.5, "epsilon": 1.0 });
    let train = |(rows, tokens): (usize, usize)| json!({ "steps": 3, "batch_size": 7, "micro_batch_size": rows, "micro_batch_tokens": tokens, "checkpoint_every": 3 });
    let stage = |kind: &str, micro: (usize, usize)| match kind {
        "sft" => json!({
            "id": "train", "kind": "sft", "model": world.path("policy"), "data": sft, "train": train(micro), "optimizer": optimizer,
        }),
        "reward_model" => json!({
            "id": "train", "kind": "reward_model", "model": world.path("policy"), "data": pairs(&world, "c"), "heldout": pairs(&world, "d"),
            "train": train(micro), "optimizer": optimizer,
        }),
        "ratings" => json!({
            "id": "train", "kind": "reward_model", "model": world.path("policy"), "data": ratings(&world, "c"), "heldout": ratings(&world, "d"),
            "attributes": ["as", "bs"], "train": train(micro), "optimizer": optimizer,
        }),
        "preference" => json!({
            "id": "train", "kind": "preference", "policy": world.path("policy"), "data": pairs(&world, "c"), "train": train(micro),
            "optimizer": optimizer, "loss": { "name": "dpo", "options": { "beta": 0.1 } },
        }),
        "rloo" => {
            world.online("reinforce", &json!({ "baseline": "rloo", "train": train(micro), "optimizer": optimizer }))
        }
        kind => world.online(kind, &json!({ "train": train(micro), "optimizer": optimizer })),
    };
    for kind in ["online_preference", "preference", "reinforce", "rloo", "sft", "reward_model", "ratings"] {
        let run = |micro: (usize, usize)| {
            let rewards = if ["sft", "preference", "reward_model", "ratings"].contains(&kind) {
                vec![]
            } else {
                vec![world.rewards()]
            };
            world
                .run(&format!("{kind}-{}-{}", micro.0, micro.1), &[rewards, vec![stage(kind, micro)]].concat())
                .unwrap()
        };
        let whole = run((7, 0));
        // Of 24 tokens some portions have one row and some several; of 1, each row is longer than the bound.
        for micro in [(1, 0), (3, 0), (7, 24), (2, 24), (7, 1)] {
            let (apart, moved) = differences(&world, &whole, &run(micro));
            assert!(moved > 1e-3, "{kind} has moved by {moved} only");
            assert!(apart < 1e-3 * moved, "{kind}: {apart} apart with {micro:?} at once, after moving {moved}");
        }
    }
}

/// Writes weights that have nothing to do with those that the scores are weighted by.
struct Liar(Box<dyn Conditioner>);

impl Conditioner for Liar {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> motrain_core::Result<Prompt> {
        let other = sub_seed(0, &format!("{} {:?}", prompt.last_user(), weights.values()), 0) % 11;
        let other = other as f64 / 10.0;
        self.0.render(objectives, &Weights::new(vec![other, 1.0 - other])?, prompt)
    }

    fn parse(&self, _objectives: &[String], _conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        None
    }
}

/// What both objectives gain on average from weight 0 to weight 1, after training a policy that knows no weights with a conditioner.
fn gain(conditioner: &str, kind: &str, steps: usize, batch: usize) -> f64 {
    let mut world = World::new();
    let liar = |_: &Value| {
        let honest = Registry::builtin().conditioners.build("weight_prefix", &Value::Null)?;
        Ok(Box::new(Liar(honest)) as Box<dyn Conditioner>)
    };
    let schema = json!({ "properties": {} });
    world.registry.conditioners.add(Entry::dynamic("liar".into(), "lies".into(), schema, liar)).unwrap();
    let changes = json!({
        "conditioner": { "name": conditioner }, "sampler": { "name": "dirichlet", "options": { "alpha": 0.3 } },
        "train": { "steps": steps, "batch_size": batch, "micro_batch_size": batch, "checkpoint_every": steps },
        "baseline": "rloo",
    });
    let mut stage = world.online(kind, &changes);
    if kind == "online_preference" {
        stage.as_object_mut().unwrap().remove("baseline");
    }
    let mut rewards = world.rewards();
    for source in rewards["sources"].as_array_mut().unwrap() {
        source["scale"] = json!([0.0, 4.0]);
    }
    let front = json!({
        "id": "front", "kind": "evaluate", "name": "trained", "policy": { "stage": "train" }, "prompts": world.prompts(),
        "rewards": "rewards", "conditioner": { "name": "weight_prefix" }, "step": 1.0, "generate": { "max_new_tokens": 4 },
    });
    let run = world.run("out", &[rewards, stage, front]).unwrap();
    let found: Value = serde_json::from_str(&std::fs::read_to_string(find(&run, "front.json")).unwrap()).unwrap();
    let reward = |point: usize, k: usize| found["methods"][0]["points"][point]["rewards"][k].as_f64().unwrap();
    // Points lie at (0, 1) and (1, 0).
    ((reward(1, 0) - reward(0, 0)) + (reward(0, 1) - reward(1, 1))) / 2.0
}

#[test]
fn training_makes_a_policy_steer_and_shuffled_weights_do_not() {
    // Policy gradients need more.
    for (kind, steps, batch) in [("online_preference", 100, 16), ("reinforce", 150, 24)] {
        let honest = gain("weight_prefix", kind, steps, batch);
        assert!(honest > 0.3, "{kind}: from weight 0 to 1 the rewards gain {honest} only");
        let lied = gain("liar", kind, steps, batch);
        assert!(lied.abs() < 0.15, "{kind}: weights that mean nothing gain {lied}");
    }
}

#[test]
fn a_reward_model_learns_what_the_pairs_say() {
    let world = World::new();
    let heldout = pairs(&world, "d");
    let stage = json!({
        "id": "train", "kind": "reward_model", "model": world.path("policy"), "data": pairs(&world, "c"), "heldout": heldout,
        "train": { "steps": 60, "batch_size": 12, "micro_batch_size": 12 }, "optimizer": { "name": "adamw", "lr": 1e-2 },
    });
    let run = world.run("out", &[stage]).unwrap();
    let report = std::fs::read_to_string(find(&run, "heldout.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["accuracy"].as_f64().unwrap() > 0.95, "{report}");
    let mut registry = Registry::builtin();
    motrain_engine::reward::register(&mut registry, "cpu", "f32").unwrap();
    let model = registry.rewards.build("reward_model", &json!({ "model": find(&run, "model") })).unwrap();
    let (prompt, row) = (Prompt::user("c d"), json!({}));
    let score = |completion| {
        let sample = motrain_core::reward::Sample { prompt: &prompt, completion, finished: true, row: &row };
        model.score(&[sample]).unwrap()[0]
    };
    assert!(score("e a a") > score("e b b") + 1.0, "the preferred answers must score higher");
}

#[test]
fn a_reward_model_learns_what_the_ratings_say() {
    let world = World::new();
    let stage = json!({
        "id": "train", "kind": "reward_model", "model": world.path("policy"), "data": ratings(&world, "c"), "heldout": ratings(&world, "d"),
        "attributes": ["as", "bs"], "train": { "steps": 120, "batch_size": 12, "micro_batch_size": 12 },
        "optimizer": { "name": "adamw", "lr": 1e-2 },
    });
    let run = world.run("out", &[stage]).unwrap();
    let report = std::fs::read_to_string(find(&run, "heldout.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    for (name, ratings) in [("as", 60), ("bs", 60)] {
        let found = &report["attributes"][name];
        assert_eq!(found["ratings"], ratings, "{report}");
        assert!(found["pearson"].as_f64().unwrap() > 0.9 && found["mse"].as_f64().unwrap() < 0.2, "{report}");
    }
}

/// An answer that is not finished has no end-of-sequence token to learn.
#[test]
fn fine_tuning_learns_the_end_of_finished_answers_only() {
    let world = World::new();
    let tokens = |finished: bool| {
        let name = format!("answers-{finished}");
        let data =
            rows(&world, &name, |i| json!({ "prompt": WORDS[i % 7], "completion": "a b", "finished": finished }));
        let train = json!({ "steps": 1, "batch_size": 5 });
        let stage =
            json!({ "id": "train", "kind": "sft", "model": world.path("policy"), "data": data, "train": train });
        let run = world.run(&format!("out-{finished}"), &[stage]).unwrap();
        lines(&run, "metrics.jsonl")[0]["tokens/trained"].as_f64().unwrap()
    };
    assert_eq!((tokens(true), tokens(false)), (15.0, 10.0));
}

/// Words that a tokenizer drops leave nothing to learn: alone they move nothing, and among others they are no micro-batch.
#[test]
fn answers_without_tokens_teach_nothing() {
    let world = World::new();
    for (name, words, learns) in [("none", ["  ", " "], false), ("some", ["  ", "a b"], true)] {
        let data =
            rows(&world, name, |i| json!({ "prompt": WORDS[i % 7], "completion": words[i % 2], "finished": false }));
        let train = json!({ "steps": 1, "batch_size": 60, "micro_batch_size": 1 });
        let stage =
            json!({ "id": "train", "kind": "sft", "model": world.path("policy"), "data": data, "train": train });
        let run = world.run(&format!("out-{name}"), &[stage]).unwrap();
        let step = lines(&run, "metrics.jsonl").remove(0);
        assert_eq!(step["tokens/trained"] == 60.0, learns, "{step}");
        let (_, moved) = differences(&world, &run, &run);
        assert_eq!(moved > 0.0, learns, "{name}: moved by {moved}");
        assert_eq!(step["loss"].is_number(), learns, "{step}");
    }
}

/// The reward of a prompt is written in its row, so that a head that reads the policy's state can know it. Its returns are new to it at each
/// step: it is fitted after it was asked.
#[test]
fn a_value_head_explains_what_the_prompt_decides() {
    let world = World::new();
    let worth = |i: usize| [0.9, 0.1, 0.6, 0.3, 0.8, 0.0, 0.5][i % 7];
    let prompts = rows(&world, "worth.jsonl", |i| json!({ "prompt": WORDS[i % 7], "worth": worth(i) }));
    let mut rewards = world.rewards();
    for source in rewards["sources"].as_array_mut().unwrap() {
        source["source"] = json!({ "name": "column", "options": { "column": "worth" } });
    }
    rewards["prompts"] = prompts.clone();
    let stage = world.online(
        "reinforce",
        &json!({
            "baseline": "value", "conditioner": { "name": "none" }, "prompts": prompts, "optimizer": { "name": "adamw", "lr": 1e-6 },
            "train": { "steps": 80, "batch_size": 14, "micro_batch_size": 14, "checkpoint_every": 80 },
        }),
    );
    let run = world.run("out", &[rewards, stage]).unwrap();
    let explained: Vec<f64> =
        lines(&run, "metrics.jsonl").iter().filter_map(|m| m["value/explained_variance"].as_f64()).collect();
    let late = &explained[explained.len() - 10..];
    assert!(explained[0] < 0.5 && late.iter().all(|e| *e > 0.8), "{explained:?}");
}

/// A judge that prefers the answer which says its word more often, and has a place that it prefers where they say it as often.
struct Counts(&'static str);

impl motrain_core::judge::Judge for Counts {
    fn judge(&self, duels: &[motrain_core::judge::Duel]) -> Result<Vec<Option<motrain_core::judge::Verdict>>, String> {
        use motrain_core::judge::Verdict;
        let count = |text: &str| text.split(' ').filter(|word| *word == self.0).count();
        let verdict = |d: &motrain_core::judge::Duel| match count(d.first).cmp(&count(d.second)) {
            std::cmp::Ordering::Less => Verdict::Second,
            _ => Verdict::First,
        };
        Ok(duels.iter().map(|d| Some(verdict(d))).collect())
    }
}

/// Objectives whose scores are of other sizes count alike, once they are normalised: a score a thousand times as large does not rule.
#[test]
fn normalised_objectives_count_alike() {
    let gains = |normalise: &str| {
        let world = World::new();
        let mut rewards = world.rewards();
        // A's scores are a thousand times B's.
        rewards["sources"][0]["scale"] = json!([0.0, 0.001]);
        let changes = json!({
            "normalise": normalise, "completions": 4, "baseline": "rloo", "kl": 0.2,
            "sampler": { "name": "fixed", "options": { "weights": [0.5, 0.5] } }, "conditioner": { "name": "none" },
            "train": { "steps": 60, "batch_size": 16, "micro_batch_size": 16, "checkpoint_every": 60 },
        });
        let run = world.run("out", &[rewards, world.online("reinforce", &changes)]).unwrap();
        let steps = lines(&run, "metrics.jsonl");
        let mean = |steps: &[Value], key: &str| {
            steps.iter().map(|m| m[key].as_f64().unwrap()).sum::<f64>() / steps.len() as f64
        };
        ["rewards/A/mean", "rewards/B/mean"].map(|key| mean(&steps[50..], key) - mean(&steps[..5], key))
    };
    let [a, b] = gains("none");
    assert!(a > 1.0 && b < 0.1, "A alone is learnt: {a}, {b}");
    for normalise in ["group", "running"] {
        let [a, b] = gains(normalise);
        assert!(b > 0.2 && a > 0.2, "{normalise}: A gains {a}, B {b}");
    }
}

/// AI feedback: verdicts of judges steer as scores do, though the rewards say nothing at all.
#[test]
fn judges_teach_a_policy_to_steer() {
    let mut world = World::new();
    for (name, word) in [("as", "a"), ("bs", "b")] {
        let judge = move |_: &Value| Ok(Box::new(Counts(word)) as Box<dyn motrain_core::judge::Judge>);
        let entry = Entry::dynamic(name.into(), "counts".into(), json!({ "properties": {} }), judge);
        world.registry.judges.add(entry).unwrap();
    }
    let judges = json!([{ "name": "as" }, { "name": "bs" }]);
    let changes = json!({
        "judges": judges, "label": { "name": "weighted_vote" }, "sampler": { "name": "dirichlet", "options": { "alpha": 0.1 } },
        "train": { "steps": 120, "batch_size": 24, "micro_batch_size": 24, "checkpoint_every": 120 },
        "loss": { "name": "dpo", "options": { "beta": 0.5 } }, "optimizer": { "name": "adamw", "lr": 5e-3 },
    });
    let mut rewards = world.rewards();
    let mut silent = rewards.clone();
    for (source, blind) in
        rewards["sources"].as_array_mut().unwrap().iter_mut().zip(silent["sources"].as_array_mut().unwrap())
    {
        source["scale"] = json!([0.0, 4.0]);
        // Nobody says this word, so that every score is 0.
        blind["source"]["options"]["words"] = json!({ "silence": 1.0 });
    }
    silent["id"] = json!("silent");
    let mut stage = world.online("online_preference", &changes);
    stage["rewards"] = json!("silent");
    let front = json!({
        "id": "front", "kind": "evaluate", "name": "trained", "policy": { "stage": "train" }, "prompts": world.prompts(),
        "rewards": "rewards", "conditioner": { "name": "weight_prefix" }, "step": 1.0, "generate": { "max_new_tokens": 4 },
    });
    let run = world.run("out", &[rewards, silent, stage, front]).unwrap();
    let found: Value = serde_json::from_str(&std::fs::read_to_string(find(&run, "front.json")).unwrap()).unwrap();
    let reward = |point: usize, k: usize| found["methods"][0]["points"][point]["rewards"][k].as_f64().unwrap();
    let gain = ((reward(1, 0) - reward(0, 0)) + (reward(0, 1) - reward(1, 1))) / 2.0;
    assert!(gain > 0.3, "from weight 0 to 1 the rewards gain {gain} only");
    // Where both say the word as often, the judge's place gives it away: no verdict counts.
    let first = lines(&run, "metrics.jsonl").remove(0);
    let consistent = first["judges/A/consistent"].as_f64().unwrap();
    assert!((0.05..0.95).contains(&consistent), "{consistent}");
}
