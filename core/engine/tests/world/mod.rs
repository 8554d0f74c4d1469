//! A world small enough to be enumerated: a random policy over a few words, prompts of them, and runs of a plan in a folder of their own.
//! Every word is a token and every token a word, so that a logged text gives its tokens back.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "no test file uses all of it")]

use motrain_core::{Prompt, Registry};
use motrain_engine::folder::RunFolder;
use motrain_engine::model::{Config, Head, LlamaSizes, Model};
use motrain_engine::plan::Plan;
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack, to_vec};
use motrain_engine::{Result, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, no_grad};

/// What a policy says, and what ends it (token 0).
pub const WORDS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// What a weight prefix of the objectives A and B is made of.
const PREFIX: [&str; 7] = ["[Begin", "System", "Instruction]", "A:", "B:", "[End", "<other>"];

pub fn config(head: Head) -> Config {
    let numbers = 2 * 11;
    let sizes = LlamaSizes {
        vocab_size: (1 + WORDS.len() + PREFIX.len() + numbers) as i64,
        hidden_size: 16,
        intermediate_size: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        context: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        bos: None,
        eos: vec![0],
        pad: None,
        head,
    };
    sizes.config().unwrap()
}

/// Writes a tokenizer to a model folder and reads it back.
pub fn text(folder: &Path, config: &Config) -> Tokenizer {
    let numbers = (0..=10).flat_map(|i| [format!("{}.{}", i / 10, i % 10), format!("{}.{},", i / 10, i % 10)]);
    let words = ["<end>"].iter().chain(&WORDS).chain(&PREFIX).map(|w| (*w).to_owned()).chain(numbers);
    let vocab: serde_json::Map<String, Value> = words.enumerate().map(|(i, w)| (w, json!(i))).collect();
    let end = json!({ "id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<other>" },
    });
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
    write("tokenizer.json", &tokenizer);
    write("tokenizer_config.json", &json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>" }));
    write("config.json", &config.to_json());
    Tokenizer::load(folder, config).unwrap()
}

/// A policy whose preferences among words are strong enough to differ between seeds.
pub fn policy(seed: u64, head: Head) -> Model {
    // Threads of so small a model only wait for each other, and tests run side by side.
    tch::set_num_threads(1);
    let mut model = Model::init(config(head), seed, Device::Cpu).unwrap();
    for (name, p) in &mut model.params {
        if !name.contains("norm") {
            *p = p.f_mul_scalar(12.0).unwrap();
        }
    }
    model
}

/// Log-prob sums of completions of one prompt at a temperature, each in a row of its own.
pub fn log_probs(model: &Model, prompt: &[u32], completions: &[Vec<u32>], temperature: f64) -> Vec<f64> {
    let net = model.net(Kind::Float).unwrap();
    let groups: Vec<Group> =
        completions.iter().map(|alone| Group { prompt, completions: vec![alone.as_slice()] }).collect();
    let packed = pack(&groups, 0, Device::Cpu).unwrap();
    no_grad(|| to_vec(&packed.sums(&packed.token_log_probs(&net, temperature).unwrap()).unwrap())).unwrap()
}

/// A logged answer: its prompt with weights and its own words as tokens, and what it was trained on.
pub struct Answer {
    pub prompt: Vec<u32>,
    pub plain: Vec<u32>,
    pub said: Vec<u32>,
    pub weights: Vec<f64>,
    pub scores: Vec<f64>,
}

/// The answers that a run logged of a step, prompt by prompt.
pub fn answers(run: &Path, step: usize, tokenizer: &Tokenizer) -> Vec<Answer> {
    let answer = |line: &Value| {
        let conditioned = line["conditioned_prompt"].as_str().unwrap();
        let (said, finished) = (line["completion"].as_str().unwrap(), line["finished"].as_bool().unwrap());
        let (prompt, said) = tokenizer.encode_answer(&Prompt::user(conditioned), said, finished).unwrap();
        let plain = tokenizer.encode_prompt(&Prompt::user(conditioned.split("Instruction]").last().unwrap())).unwrap();
        let numbers = |key: &str| serde_json::from_value(line[key].clone()).unwrap();
        Answer { prompt, plain, said, weights: numbers("weights"), scores: numbers("scores") }
    };
    lines(run, "completions.jsonl").iter().filter(|l| l["step"] == step).map(answer).collect()
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub registry: Registry,
}

impl World {
    /// A policy in `policy/`, and prompts of one to three words.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("policy");
        let text = text(&at, &config(Head::TiedLm));
        policy(1, Head::TiedLm).save(&at, &text).unwrap();
        let prompt = |i: usize| (0..1 + i % 3).map(|k| WORDS[(i / 3 + 2 * k) % 7]).collect::<Vec<_>>().join(" ");
        let lines: String = (0..21).map(|i| format!("{}\n", json!({ "prompt": prompt(i) }))).collect();
        std::fs::write(folder.path().join("prompts.jsonl"), lines).unwrap();
        Self { folder, registry: Registry::builtin() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn prompts(&self) -> Value {
        json!({ "paths": [self.path("prompts.jsonl")] })
    }

    /// Two objectives: how often A's word is said, and B's.
    pub fn rewards(&self) -> Value {
        let source = |name: &str, word: &str| {
            let words = json!({ word: 1.0 });
            json!({ "name": name, "scale": [0.0, 1.0], "source": { "name": "lexicon", "options": { "words": words } } })
        };
        json!({
            "id": "rewards", "kind": "rewards", "sources": [source("A", "a"), source("B", "b")],
            "policy": self.path("policy"), "prompts": self.prompts(), "samples": 4, "generate": { "max_new_tokens": 4 },
        })
    }

    /// An online stage called "train", with options changed.
    pub fn online(&self, kind: &str, changes: &Value) -> Value {
        let mut stage = json!({
            "id": "train", "kind": kind, "policy": self.path("policy"), "prompts": self.prompts(), "rewards": "rewards",
            "sampler": { "name": "dirichlet", "options": { "alpha": 1.0 } }, "conditioner": { "name": "weight_prefix" },
            "completions": 2, "generate": { "max_new_tokens": 4 },
            "train": { "steps": 3, "batch_size": 4, "micro_batch_size": 3, "checkpoint_every": 1 },
            "optimizer": { "name": "adamw", "lr": 1e-2 },
        });
        if kind == "online_preference" {
            stage["label"] = json!({ "name": "weighted_sum" });
            stage["loss"] = json!({ "name": "dpo", "options": { "beta": 0.1 } });
        }
        for (name, value) in changes.as_object().into_iter().flatten() {
            stage[name] = value.clone();
        }
        stage
    }

    /// Runs stages in a folder.
    pub fn run(&self, out: &str, stages: &[Value]) -> Result<PathBuf> {
        self.run_seeded(0, out, stages)
    }

    pub fn run_seeded(&self, seed: u64, out: &str, stages: &[Value]) -> Result<PathBuf> {
        let plan = json!({ "name": "w", "seed": seed, "device": "cpu", "dtype": "f32", "stages": stages });
        let plan: Plan = serde_json::from_value(plan).unwrap();
        let folder = self.path(out);
        run::run(&plan, &self.registry, &RunFolder::open(&folder)?)?;
        Ok(folder)
    }

    /// Trains one online stage on the two objectives.
    pub fn train(&self, out: &str, kind: &str, changes: &Value) -> Result<PathBuf> {
        self.run(out, &[self.rewards(), self.online(kind, changes)])
    }
}

/// The file or folder of that name, wherever it lies in a run folder.
pub fn find(root: &Path, name: &str) -> PathBuf {
    search(root, name).unwrap_or_else(|| panic!("{} has no {name}", root.display()))
}

fn search(root: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(root).unwrap().flatten().map(|e| e.path()).collect();
    let here = entries.iter().find(|p| p.file_name().is_some_and(|n| n == name));
    here.cloned().or_else(|| entries.iter().filter(|p| p.is_dir()).find_map(|p| search(p, name)))
}

/// The lines of a log of the stage "train".
pub fn lines(run: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(find(run, name)).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}
