//! What an update of a real run does is what its options say. From the answers that a run logged, the loss is written down anew, libtorch takes
//! its gradient, and the optimiser's first step is done by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod world;

use motrain_engine::model::{Model, Net};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};
use world::{Answer, World, answers, find, lines, log_probs};

const LR: f64 = 0.1;
/// So large that AdamW's first step follows the size of the gradient, not only its sign.
const EPSILON: f64 = 0.5;
const BETA: f64 = 0.3;

fn load(folder: &Path) -> Model {
    Model::load(folder, Device::Cpu).unwrap()
}

/// The probability that the first answer is better; none where the two teach nothing.
type Rule = fn(&[f64], &[f64], &[f64]) -> Option<f64>;

fn weighted_sum(w: &[f64], a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (w[0] * a[0] + w[1] * a[1], w[0] * b[0] + w[1] * b[1]);
    ((a - b).abs() > 1e-9).then_some(if a > b { 1.0 } else { 0.0 })
}

fn weighted_vote(w: &[f64], a: &[f64], b: &[f64]) -> Option<f64> {
    let cast: f64 = (0..2).filter(|&k| a[k] != b[k]).map(|k| w[k]).sum();
    let won: f64 = (0..2).filter(|&k| a[k] > b[k]).map(|k| w[k]).sum();
    (cast > 0.0).then_some(won / cast)
}

fn bradley_terry(w: &[f64], a: &[f64], b: &[f64]) -> Option<f64> {
    let gap = w[0] * (a[0] - b[0]) + w[1] * (a[1] - b[1]);
    Some(1.0 / (1.0 + (-gap / 2.0).exp()))
}

/// Log-prob sums of the two answers to a prompt, on the graph.
fn sums(net: &Net, pair: &[Answer]) -> [Tensor; 2] {
    let group = Group { prompt: &pair[0].prompt, completions: pair.iter().map(|a| a.said.as_slice()).collect() };
    let packed = pack(&[group], 0, Device::Cpu).unwrap();
    let both = packed.sums(&packed.token_log_probs(net, 1.0).unwrap()).unwrap();
    [both.get(0), both.get(1)]
}

/// The mean over pairs of DPO's loss `−p·log σ(m) − (1−p)·log σ(−m)`, and how many there are.
fn preference(net: &Net, reference: &Model, answers: &[Answer], rule: Rule, smoothing: f64) -> (Tensor, usize) {
    let mut losses = Vec::new();
    for pair in answers.chunks(2).filter(|pair| pair[0].said != pair[1].said) {
        let Some(p) = rule(&pair[0].weights, &pair[0].scores, &pair[1].scores) else { continue };
        let p = p * (1.0 - smoothing) + (1.0 - p) * smoothing;
        let [first, second] = sums(net, pair);
        let before = log_probs(reference, &pair[0].prompt, &[pair[0].said.clone(), pair[1].said.clone()], 1.0);
        let margin = (first - second - (before[0] - before[1])) * BETA;
        losses.push(-(margin.log_sigmoid() * p + (-margin).log_sigmoid() * (1.0 - p)));
    }
    (Tensor::stack(&losses, 0).mean(Kind::Float), losses.len())
}

/// The advantage of one of all answers, of which two each have a prompt, by their weighted scores.
type Advantage = fn(&[f64], usize) -> f64;

/// Above the mean of all other answers.
fn others(scores: &[f64], i: usize) -> f64 {
    scores[i] - (scores.iter().sum::<f64>() - scores[i]) / (scores.len() - 1) as f64
}

/// Above the prompt's other answer.
fn other(scores: &[f64], i: usize) -> f64 {
    scores[i] - scores[i ^ 1]
}

/// Above the mean of both, in units of their standard deviation.
fn group(scores: &[f64], i: usize) -> f64 {
    let half = other(scores, i) / 2.0;
    half / (half.abs() * 2f64.sqrt() + 1e-4)
}

/// The mean over answers of `−A·log π`.
fn policy_gradient(net: &Net, answers: &[Answer], advantage: Advantage) -> Tensor {
    let score = |a: &Answer| a.weights.iter().zip(&a.scores).map(|(w, s)| w * s).sum::<f64>();
    let scores: Vec<f64> = answers.iter().map(score).collect();
    let mut losses = Vec::new();
    for (at, pair) in answers.chunks(2).enumerate() {
        for (i, log_prob) in sums(net, pair).into_iter().enumerate() {
            losses.push(-log_prob * advantage(&scores, 2 * at + i));
        }
    }
    Tensor::stack(&losses, 0).mean(Kind::Float)
}

/// AdamW's first step: both moments are the gradient's own.
fn adamw(g: &Tensor) -> Tensor {
    g / (g.abs() + EPSILON)
}

/// Adafactor's first step: a matrix's second moment is that of its rows times that of its columns; the update's root mean square is at most 1.
fn adafactor(g: &Tensor) -> Tensor {
    let square = g.square() + 1e-30;
    let moment = match g.dim() {
        2 => {
            let (rows, columns) = (square.mean_dim(1, true, Kind::Double), square.mean_dim(0, true, Kind::Double));
            &rows * columns / rows.mean(Kind::Double)
        }
        _ => square,
    };
    let update = g / moment.sqrt();
    let rms = update.square().mean(Kind::Double).sqrt();
    update / rms.clamp_min(1.0)
}

/// Two objectives on which answers seldom tie and often disagree: how long they are, and what their words cost.
fn rewards(world: &World) -> Value {
    let words = json!({ "a": -1.0, "b": -1.2, "c": -0.9, "d": -1.3, "e": -0.8, "f": -1.1, "g": -0.7 });
    let mut rewards = world.rewards();
    rewards["sources"][0]["source"] = json!({ "name": "length" });
    rewards["sources"][1]["source"] = json!({ "name": "lexicon", "options": { "words": words } });
    rewards
}

/// A stage of `steps` steps on 4 prompts, all of which are logged in the first and the eleventh step.
fn stage(world: &World, kind: &str, steps: usize, changes: &Value) -> Value {
    let mut stage = world.online(kind, changes);
    stage["train"] = json!({ "steps": steps, "batch_size": 4, "micro_batch_size": 3, "checkpoint_every": 1 });
    stage["generate"] = json!({ "max_new_tokens": 8 });
    if kind == "online_preference" {
        stage["loss"]["options"]["beta"] = json!(BETA);
    }
    stage
}

/// The loss of a policy, with the reference, over a step's answers.
type Loss = Box<dyn Fn(&Net, &Model, &[Answer]) -> Tensor>;

struct Case {
    name: &'static str,
    kind: &'static str,
    changes: Value,
    loss: Loss,
    step: fn(&Tensor) -> Tensor,
}

fn cases() -> Vec<Case> {
    let pairs = |name, changes, rule: Rule, smoothing, step| Case {
        name,
        kind: "online_preference",
        changes,
        loss: Box::new(move |net, reference, answers| preference(net, reference, answers, rule, smoothing).0),
        step,
    };
    let label = |name: &str, options: Value| json!({ "label": { "name": name, "options": options } });
    let smooth = json!({ "loss": { "name": "dpo", "options": { "label_smoothing": 0.2 } } });
    let factored = json!({ "optimizer": { "name": "adafactor", "lr": LR, "max_grad_norm": 0.0, "weight_decay": 0.0 } });
    let gradient = |name, baseline: Value, advantage: Advantage| Case {
        name,
        kind: "reinforce",
        changes: json!({ "baseline": baseline, "kl": 0.5 }),
        loss: Box::new(move |net, _, answers| policy_gradient(net, answers, advantage)),
        step: adamw,
    };
    vec![
        pairs("weighted_sum", json!({}), weighted_sum, 0.0, adamw),
        pairs("weighted_vote", label("weighted_vote", json!({})), weighted_vote, 0.0, adamw),
        pairs("bradley_terry", label("bradley_terry", json!({ "temperature": 2.0 })), bradley_terry, 0.0, adamw),
        pairs("label smoothing", smooth, weighted_sum, 0.2, adamw),
        pairs("adafactor", factored, weighted_sum, 0.0, adafactor),
        gradient("rloo", json!("rloo"), other),
        gradient("value", json!({ "name": "value" }), others),
        gradient("grpo", json!({ "name": "grpo" }), group),
        gradient("grpo, unscaled", json!({ "name": "grpo", "options": { "scale": false } }), |s, i| other(s, i) / 2.0),
    ]
}

/// By how much each parameter moved.
fn moved(from: &Model, to: &Model) -> Vec<Tensor> {
    from.params.iter().zip(&to.params).map(|((_, p), (_, q))| (q - p).to_kind(Kind::Double)).collect()
}

fn largest(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| f64::try_from(t.abs().max()).unwrap()).fold(0.0, f64::max)
}

fn apart(a: &[Tensor], b: &[Tensor]) -> f64 {
    largest(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

#[test]
fn the_first_update_is_that_of_the_formulas() {
    let world = World::new();
    let begin = load(&world.path("policy"));
    let tokenizer = Tokenizer::load(&world.path("policy"), &begin.config).unwrap();
    let optimizer = json!({ "name": "adamw", "lr": LR, "epsilon": EPSILON, "max_grad_norm": 0.0, "weight_decay": 0.0 });
    let mut updates: Vec<(&str, Vec<Tensor>)> = Vec::new();
    for case in cases() {
        let mut changes = case.changes.clone();
        if changes["optimizer"].is_null() {
            changes["optimizer"] = optimizer.clone();
        }
        let stages = [rewards(&world), stage(&world, case.kind, 1, &changes)];
        let run = world.run(case.name, &stages).unwrap();
        let found = moved(&begin, &load(&find(&run, "model")));

        let mut model = load(&world.path("policy"));
        model.require_grad().unwrap();
        let loss = (case.loss)(&model.net(Kind::Float).unwrap(), &begin, &answers(&run, 1, &tokenizer));
        loss.backward();
        let expected: Vec<Tensor> =
            model.params.iter().map(|(_, p)| (case.step)(&p.grad().to_kind(Kind::Double)) * -LR).collect();
        let (size, error) = (largest(&expected), apart(&found, &expected));
        assert!(error < 2e-3 * size, "{}: {error} from what the formulas give, of at most {size}", case.name);
        for (other, update) in &updates {
            assert!(
                apart(&found, update) > 0.02 * size,
                "{} and {other} do the same, so this shows nothing",
                case.name
            );
        }
        updates.push((case.name, found));
    }
}

/// The step after a checkpoint on the way to it: what it logged of its eleventh step, its metrics, and the policy that drew the answers.
fn later(world: &World, name: &str, kind: &str, mut changes: Value) -> (Vec<Answer>, Value, Model) {
    // Slowly, so that answers still differ.
    changes["optimizer"] = json!({ "name": "adamw", "lr": 2e-3 });
    let run = world.run(name, &[rewards(world), stage(world, kind, 11, &changes)]).unwrap();
    let now = load(&find(&run, "checkpoint-10"));
    let tokenizer = Tokenizer::load(&world.path("policy"), &now.config).unwrap();
    (answers(&run, 11, &tokenizer), lines(&run, "metrics.jsonl").remove(10), now)
}

/// At a step whose policy has left the reference, the reported loss is that of the rule and the smoothing.
#[test]
fn a_later_loss_is_that_of_its_options() {
    let world = World::new();
    let begin = load(&world.path("policy"));
    let vote = json!({ "label": { "name": "weighted_vote" } });
    let smooth = json!({ "loss": { "name": "dpo", "options": { "label_smoothing": 0.2 } } });
    let cases: [(_, _, Rule, _); 2] = [("vote", vote, weighted_vote, 0.0), ("smooth", smooth, weighted_sum, 0.2)];
    for (name, changes, rule, smoothing) in cases {
        let (answers, step, now) = later(&world, name, "online_preference", changes);
        let expected = |rule, smoothing| {
            let (loss, count) =
                no_grad(|| preference(&now.net(Kind::Float).unwrap(), &begin, &answers, rule, smoothing));
            (f64::try_from(loss).unwrap(), count)
        };
        let (loss, count) = expected(rule, smoothing);
        assert_eq!(step["pairs/trained"], count as f64, "{name}");
        let found = step["loss"].as_f64().unwrap();
        assert!((found - loss).abs() < 1e-4, "{name}: {found}, by hand {loss}");
        let (plain, _) = expected(weighted_sum, 0.0);
        assert!((loss - plain).abs() > 1e-3, "{name}: hard labels give {plain} too, so this shows nothing");
    }
}

/// A return is the weighted score minus the KL to the reference, and an advantage compares it with the prompt's other answer.
#[test]
fn a_later_return_has_lost_its_kl() {
    let world = World::new();
    let begin = load(&world.path("policy"));
    let kl = 0.5;
    let (answers, step, now) = later(&world, "rloo", "reinforce", json!({ "baseline": "rloo", "kl": kl }));
    let of = |model: &Model, a: &Answer| log_probs(model, &a.prompt, std::slice::from_ref(&a.said), 1.0)[0];
    let log_prob: Vec<f64> = answers.iter().map(|a| of(&now, a)).collect();
    let ratio: Vec<f64> = answers.iter().zip(&log_prob).map(|(a, p)| p - of(&begin, a)).collect();
    let score = |a: &Answer| a.weights.iter().zip(&a.scores).map(|(w, s)| w * s).sum::<f64>();
    let returns: Vec<f64> = answers.iter().zip(&ratio).map(|(a, r)| score(a) - kl * r).collect();
    let loss = |i: usize| -(returns[i] - returns[i ^ 1]) * log_prob[i];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for (key, expected) in
        [("objective/rlhf_reward", mean(&returns)), ("loss", mean(&(0..answers.len()).map(loss).collect::<Vec<_>>()))]
    {
        let found = step[key].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{key}: {found}, by hand {expected}");
    }
    assert!(kl * mean(&ratio).abs() > 1e-2, "the policy has not moved, so this shows nothing");
}
