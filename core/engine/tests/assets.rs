//! What the shipped models must be able to do before anything is trained on them: policies read the prefix that they were taught, under no
//! objective's name, and say what belongs to the prompt; reward models read prompt and answer, and score as gold does.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use motrain_core::data::{DataOptions, pairs};
use motrain_core::metrics::stats::pearson;
use motrain_core::plan::GenerationConfig;
use motrain_core::reward::{RewardSource, Sample};
use motrain_core::{Prompt, Registry, Weights};
use motrain_engine::decode::rollout;
use motrain_engine::model::Model;
use motrain_engine::tokenizer::Tokenizer;
use motrain_tasks::{FLAWS, LENGTH, TASKS, Task, sentences};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, no_grad};

fn task(name: &str) -> &'static Task {
    // Tests run side by side; more threads than cores only wait for each other.
    tch::set_num_threads(1);
    TASKS.iter().find(|t| t.name == name).unwrap()
}

fn asset(task: &Task, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(task.name).join(name)
}

fn prompts(task: &Task, count: usize) -> Vec<String> {
    task.prompt_rows(count, 7).iter().map(|row| row["prompt"].as_str().unwrap().to_owned()).collect()
}

/// One answer of a shipped policy to each prompt.
fn answers(task: &Task, policy: &str, prompts: &[Prompt]) -> Vec<String> {
    let folder = asset(task, policy);
    let model = Model::load(&folder, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&folder, &model.config).unwrap();
    let net = no_grad(|| model.net(Kind::Float)).unwrap();
    let tokens: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.encode_prompt(p).unwrap()).collect();
    let sampling = GenerationConfig { max_new_tokens: 96, ..GenerationConfig::default() };
    let drawn = rollout(&net, &tokenizer, &tokens, 1, |i, _| i as u64, &sampling).unwrap();
    drawn.into_iter().map(|c| c.text).collect()
}

/// How many sentences answers gain on average as the number beside the first of two names goes from 0 to 1 and that beside the second from 1 to 0.
fn gained_sentences(task: &Task, policy: &str, names: impl Fn(usize) -> [&'static str; 2]) -> f64 {
    let prefix = Registry::builtin().conditioners.build("weight_prefix", &json!({})).unwrap();
    let mean = |first: f64| {
        let weights = Weights::new(vec![first, 1.0 - first]).unwrap();
        let conditioned = |(i, plain): (usize, String)| {
            prefix.render(&names(i).map(str::to_owned), &weights, &Prompt::user(plain)).unwrap()
        };
        let asked: Vec<Prompt> = prompts(task, 96).into_iter().enumerate().map(conditioned).collect();
        let said = answers(task, policy, &asked);
        said.iter().map(|a| sentences(a).count()).sum::<usize>() as f64 / said.len() as f64
    };
    mean(1.0) - mean(0.0)
}

/// Of each kind of statement the share that belongs to the prompt, and how many there were.
fn belonging(name: &str, policy: &str) -> BTreeMap<&'static str, (f64, usize)> {
    let task = task(name);
    let plain = prompts(task, 160);
    let asked: Vec<Prompt> = plain.iter().map(Prompt::user).collect();
    let mut found: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for (prompt, answer) in plain.iter().zip(answers(task, policy, &asked)) {
        for (kind, own) in (task.said)(prompt, &answer) {
            found.entry(kind).or_default().push(own);
        }
    }
    let share = |own: Vec<bool>| (own.iter().filter(|o| **o).count() as f64 / own.len() as f64, own.len());
    found.into_iter().map(|(kind, own)| (kind, share(own))).collect()
}

fn reward_model(task: &Task, name: &str) -> Box<dyn RewardSource> {
    let mut registry = Registry::builtin();
    motrain_engine::reward::register(&mut registry, "cpu", "f32").unwrap();
    registry.rewards.build("reward_model", &json!({ "model": asset(task, name) })).unwrap()
}

/// Many answers to one prompt are scored in several passes, and as if each were alone.
#[test]
fn answers_score_the_same_in_any_company() {
    let task = task("hh");
    let prompt = prompts(task, 1).remove(0);
    let all = (task.answers)(&prompt);
    assert!(all.len() > 40);
    let (model, asked, row) = (reward_model(task, "helpful"), Prompt::user(&prompt), json!({}));
    let sample = |completion| Sample { prompt: &asked, completion, finished: true, row: &row };
    let together = model.score(&all.iter().map(|a| sample(a)).collect::<Vec<_>>()).unwrap();
    for (answer, score) in all.iter().zip(together) {
        let alone = model.score(&[sample(answer)]).unwrap()[0];
        assert!((alone - score).abs() < 1e-3, "{answer}: {alone} and {score}");
    }
}

/// In how many of (prompt, better, worse) a shipped reward model scores the better answer higher.
fn preferred(task: &Task, name: &str, pairs: &[(String, String, String)]) -> f64 {
    let (model, row) = (reward_model(task, name), json!({}));
    let prompts: Vec<Prompt> = pairs.iter().map(|(p, ..)| Prompt::user(p)).collect();
    let samples = pairs.iter().zip(&prompts).flat_map(|((_, better, worse), prompt)| {
        [better, worse].map(|completion| Sample { prompt, completion, finished: true, row: &row })
    });
    let scores = model.score(&samples.collect::<Vec<_>>()).unwrap();
    scores.chunks(2).filter(|s| s[0] > s[1]).count() as f64 / pairs.len() as f64
}

fn reads_its_prefix(name: &str, policy: &str) {
    let task = task(name);
    let [more, less] = LENGTH;
    let of = |i: usize| [more[i % more.len()], less[i / 3 % less.len()]];
    let gained = gained_sentences(task, policy, of);
    let turned = gained_sentences(task, policy, |i| [of(i)[1], of(i)[0]]);
    assert!(gained > 2.5 && turned < -2.5, "{name}/{policy}: answers gain {gained} sentences, and {turned}");
}

/// Neither the objectives' names nor their order say anything to a policy before it is trained.
fn has_no_head_start(name: &str, policy: &str) {
    let task = task(name);
    let [first, second] = task.objectives;
    let (one, other) =
        (gained_sentences(task, policy, |_| [first, second]), gained_sentences(task, policy, |_| [second, first]));
    assert!(one.abs() < 0.75 && other.abs() < 0.75, "{name}/{policy}: answers gain {one} sentences, and {other}");
}

fn says_what_belongs(name: &str, policy: &str) {
    let kinds = belonging(name, policy);
    assert!(kinds.len() >= 3 && kinds.values().all(|(_, count)| *count >= 20), "{name}/{policy}: {kinds:?}");
    assert!(kinds.values().all(|(share, _)| *share >= 0.95), "{name}/{policy}: {kinds:?}");
}

/// Of every kind of contrast in the task's own set, of prompts that nothing was trained on.
fn reads_prompt_and_answer(name: &str, objective: &str) {
    let task = task(name);
    let options = json!({ "paths": [asset(task, "contrasts.jsonl")] });
    let rows = pairs(&serde_json::from_value::<DataOptions>(options).unwrap()).unwrap();
    let mut kinds: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in rows {
        let kind = row.columns["kind"].as_str().unwrap().to_owned();
        kinds.entry(kind).or_default().push((row.prompt.last_user().to_owned(), row.chosen, row.rejected));
    }
    assert!(kinds.len() >= FLAWS.len() + 4 && kinds.values().all(|pairs| pairs.len() == 100));
    let found: BTreeMap<_, f64> = kinds.iter().map(|(kind, pairs)| (kind, preferred(task, objective, pairs))).collect();
    assert!(found.values().all(|share| *share >= 0.95), "{name}/{objective}: {found:?}");
}

/// Answers to a prompt, each at another weight.
const WEIGHTS: usize = 11;

/// On what the initial policy answers, at weights all over the simplex: each reward model goes with its gold score, and the two conflict as
/// much as the gold scores do.
fn scores_as_gold_does(name: &str) {
    let task = task(name);
    let prefix = Registry::builtin().conditioners.build("weight_prefix", &json!({})).unwrap();
    let names = task.objectives.map(str::to_owned);
    let plain: Vec<Prompt> = prompts(task, 40).iter().flat_map(|p| vec![Prompt::user(p); WEIGHTS]).collect();
    let conditioned = plain.iter().enumerate().map(|(i, prompt)| {
        let first = (i % WEIGHTS) as f64 / 10.0;
        prefix.render(&names, &Weights::new(vec![first, 1.0 - first]).unwrap(), prompt).unwrap()
    });
    let said = answers(task, "policy", &conditioned.collect::<Vec<_>>());
    let row = json!({});
    let samples =
        plain.iter().zip(&said).map(|(prompt, completion)| Sample { prompt, completion, finished: true, row: &row });
    let samples: Vec<Sample> = samples.collect();
    let [(one, one_gold), (other, other_gold)] = task.gold.map(|(objective, gold)| {
        let gold: Vec<f64> = samples.iter().map(|s| gold(s.prompt.last_user(), s.completion)).collect();
        (reward_model(task, objective).score(&samples).unwrap(), gold)
    });
    let (with_gold, conflict, gold) = (
        [pearson(&one, &one_gold), pearson(&other, &other_gold)],
        pearson(&one, &other),
        pearson(&one_gold, &other_gold),
    );
    assert!(with_gold.iter().all(|r| *r >= 0.9), "{name}: {with_gold:?} with gold");
    assert!((conflict - gold).abs() <= 0.15, "{name}: {conflict} where gold scores have {gold}");
}

#[test]
fn hh_policies_read_the_prefix_that_they_were_taught() {
    reads_its_prefix("hh", "policy");
    reads_its_prefix("hh", "policy_small");
}

#[test]
fn tldr_policies_read_the_prefix_that_they_were_taught() {
    reads_its_prefix("tldr", "policy");
    reads_its_prefix("tldr", "policy_small");
}

#[test]
fn hh_policies_have_no_head_start() {
    has_no_head_start("hh", "policy");
    has_no_head_start("hh", "policy_small");
}

#[test]
fn tldr_policies_have_no_head_start() {
    has_no_head_start("tldr", "policy");
    has_no_head_start("tldr", "policy_small");
}

#[test]
fn the_hh_policy_says_what_belongs_to_the_prompt() {
    says_what_belongs("hh", "policy");
}

#[test]
fn the_small_hh_policy_says_what_belongs_to_the_prompt() {
    says_what_belongs("hh", "policy_small");
}

#[test]
fn the_tldr_policy_says_what_belongs_to_the_prompt() {
    says_what_belongs("tldr", "policy");
}

#[test]
fn the_small_tldr_policy_says_what_belongs_to_the_prompt() {
    says_what_belongs("tldr", "policy_small");
}

#[test]
fn the_helpful_model_reads_prompt_and_answer() {
    reads_prompt_and_answer("hh", "helpful");
}

#[test]
fn the_harmless_model_reads_prompt_and_answer() {
    reads_prompt_and_answer("hh", "harmless");
}

#[test]
fn the_quality_model_reads_prompt_and_answer() {
    reads_prompt_and_answer("tldr", "quality");
}

#[test]
fn the_entailment_model_reads_prompt_and_answer() {
    reads_prompt_and_answer("tldr", "entailment");
}

#[test]
fn hh_reward_models_score_as_gold_does() {
    scores_as_gold_does("hh");
}

#[test]
fn tldr_reward_models_score_as_gold_does() {
    scores_as_gold_does("tldr");
}
