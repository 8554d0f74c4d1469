//! An online step on a real model and its parts, beside what the matrix products alone take: `cargo bench --bench online_step -- MODEL`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use clap::Parser;
use motrain_core::Prompt;
use motrain_core::rng::sub_seed;
use motrain_engine::Result;
use motrain_engine::decode::{Completions, Decoder, Gained, rollout};
use motrain_engine::model::{Model, Net, Shape};
use motrain_engine::optim;
use motrain_engine::plan::{Gains, GenerationConfig, Lora, Optimizer};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack};
use motrain_engine::{device, environment};
use motrain_kernels::LaidOut;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Device, Kind, Tensor, no_grad};

const PROMPT: usize = 52;
const NEW: usize = 64;

#[derive(Parser)]
struct Args {
    /// A model folder.
    model: PathBuf,
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// Drawing, a whole step, or the step of an adapter (rank 16, all matrices) [default: the first two]
    #[arg(long)]
    only: Option<Part>,
    /// A JSON object a line in place of the table.
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Part {
    Drawing,
    Step,
    Lora,
}

/// What is measured of a model.
struct Bench {
    json: bool,
    dtype: Kind,
    model: Model,
    tokenizer: Tokenizer,
    prompt: Vec<u32>,
}

fn main() -> Result<()> {
    environment::settle();
    let Args { model: folder, dtype, only, json, .. } = Args::parse();
    let lora = only == Some(Part::Lora);
    let dtype = device::dtype(&dtype, Device::Cpu)?;
    // As stages read it: what stands still, in the type of computing.
    let model = Model::load_as(&folder, Device::Cpu, if lora { dtype } else { Kind::Float })?;
    let tokenizer = Tokenizer::load(&folder, &model.config)?;
    let of_vocab = |i: usize| 1000 + (i as u32 * 7919) % (model.config.shape.vocab_size as u32 / 2);
    let prompt = (0..PROMPT).map(of_vocab).collect();
    let mut bench = Bench { json, dtype, tokenizer, prompt, model };
    if lora {
        let options = Lora { r: 16, alpha: 32.0, ..Lora::default() };
        bench.model.attach(&options, &folder, None, 0, 0)?;
        return bench.step("LoRA step", "LoRA ", "peak memory, LoRA");
    }
    if !json {
        let threads = (tch::get_num_threads(), motrain_kernels::threads());
        let millions = bench.model.parameter_count() as f64 / 1e6;
        println!("{millions:.0} M parameters, {dtype:?}, {} threads, kernels on {}", threads.0, threads.1);
    }
    if only != Some(Part::Step) {
        bench.drawing()?;
    }
    if only == Some(Part::Drawing) {
        return Ok(());
    }
    bench.step("whole step", "it ", "peak memory")
}

impl Bench {
    /// A figure, and what the matrix products alone would give.
    fn say(&self, measure: &str, value: f64, unit: &str, products: Option<f64>) {
        if self.json {
            let row = serde_json::json!({ "measure": measure, "value": value, "unit": unit, "products": products });
            return println!("{row}");
        }
        let digits = if value < 20.0 { 2 } else { 1 };
        let alone = products.map_or(String::new(), |p| format!("   products alone {p:.digits$}: {:.2}", value / p));
        println!("{measure:<40} {value:8.digits$} {unit}{alone}");
    }

    fn drawing(&self) -> Result<()> {
        self.say("GEMM 1024x576x3072", gemm_rate(self.dtype)?, "GFLOP/s", None);
        let net = no_grad(|| self.model.net(self.dtype))?;
        for batch in [1, 16, 64] {
            let rate = (batch * PROMPT) as f64 / median(|| self.draw(&net, batch, 1))?;
            self.say(&format!("prefill, {batch} prompts"), rate, "tokens/s", None);
        }
        let steered = steered(&self.model, self.dtype)?;
        for batch in [1, 16, 64] {
            let floor = batch as f64 / decode_floor(&self.model.config.shape, batch as i64, self.dtype)?;
            self.say(&format!("decode, {batch} sequences"), self.decode(&net, batch)?, "tokens/s", Some(floor));
            let share = |i: usize| i as f64 / batch as f64;
            let gains = (0..batch).map(|i| vec![share(i), 1.0 - share(i)]).collect();
            let rate = self.decode(&Gained { net: &steered, gains }, batch)?;
            self.say(&format!("decode, {batch} sequences, own gains"), rate, "tokens/s", Some(floor));
        }
        let (tokens, seconds) = self.mixed(&net)?;
        self.say("answers of mixed length, 64 prompts", tokens / seconds, "tokens/s", None);
        self.say("answers of mixed length, mean", tokens / 64.0, "tokens", None);
        Ok(())
    }

    /// Tokens a second after the first.
    fn decode(&self, net: &dyn Decoder, batch: usize) -> Result<f64> {
        let time = |new: usize| -> Result<f64> {
            let clock = Instant::now();
            self.draw(net, batch, new)?;
            Ok(clock.elapsed().as_secs_f64())
        };
        time(2)?;
        let (short, long) = (time(1)?, time(1 + NEW)?);
        Ok((batch * NEW) as f64 / (long - short))
    }

    /// So many tokens for each of so many prompts.
    fn draw(&self, net: &dyn Decoder, batch: usize, new: usize) -> Result<Completions> {
        let prompts = vec![self.prompt.clone(); batch];
        let sampling = GenerationConfig { max_new_tokens: new, ..GenerationConfig::default() };
        rollout(net, &endless(&self.tokenizer), &prompts, 1, |i, _| sub_seed(0, "bench", i as u64), &sampling)
    }

    /// Tokens of answers that end where the model ends them, at most 256 each, and the seconds that they took.
    fn mixed(&self, net: &Net) -> Result<(f64, f64)> {
        let asked =
            ["Say in one sentence what", "Explain step by step how", "List three facts on how", "Write a poem on how"];
        let about = ["bread", "glass", "paper", "steel", "wool", "salt", "soap", "ice"];
        let done = ["is made", "is used"];
        let all = asked.iter().flat_map(|a| about.iter().flat_map(move |b| done.map(|c| format!("{a} {b} {c}."))));
        let prompts = all.map(|text| self.tokenizer.encode_prompt(&Prompt::user(text))).collect::<Result<Vec<_>>>()?;
        let sampling = GenerationConfig { max_new_tokens: 256, ..GenerationConfig::default() };
        let clock = Instant::now();
        let drawn = rollout(net, &self.tokenizer, &prompts, 1, |i, _| sub_seed(2, "bench", i as u64), &sampling)?;
        Ok((drawn.tokens() as f64, clock.elapsed().as_secs_f64()))
    }

    /// A whole online step and its parts: 8 prompts, 2 completions each.
    fn step(mut self, whole: &str, part: &str, memory: &str) -> Result<()> {
        let reference = no_grad(|| self.model.reference(self.dtype))?;
        self.model.require_grad()?;
        let mut adam = optim::build(&Optimizer { lr: 1e-7, ..Optimizer::default() }, self.model.trained())?;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(online_step(&self, &reference, adam.as_mut())?);
        }
        // The first one takes memory that the others find.
        all.remove(0);
        all.sort_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum()));
        let [draw, refer, train, update] = all[1];
        let peak = peak_memory();
        let shape = &self.model.config.shape;
        let prefill = products(shape, 8 * PROMPT as i64, 8, self.dtype)?[0];
        let drawing = prefill + NEW as f64 * decode_floor(shape, 16, self.dtype)?;
        let [forward, backward] = products(shape, 8 * (PROMPT + 2 * NEW) as i64, (16 * NEW) as i64, self.dtype)?;
        // What stands still has no gradient of its own.
        let backward = if self.model.lora.is_some() { backward / 2.0 } else { backward };
        self.say(&format!("of {part}rollout"), draw, "s", Some(drawing));
        self.say(&format!("of {part}reference"), refer, "s", Some(forward));
        self.say(&format!("of {part}forward and backward"), train, "s", Some(forward + backward));
        self.say(&format!("of {part}update"), update, "s", None);
        let floor = drawing + 2.0 * forward + backward + update;
        self.say(whole, draw + refer + train + update, "s", Some(floor));
        self.say(memory, peak, "GB", None);
        Ok(())
    }
}

/// No answer ends by itself.
fn endless(tokenizer: &Tokenizer) -> Tokenizer {
    let mut endless = tokenizer.clone();
    endless.eos = vec![u32::MAX];
    endless
}

/// The model with two adapters that weights mix (`lora.gains = "copies"`).
fn steered(model: &Model, dtype: Kind) -> Result<Net> {
    let mut steered = model.frozen_copy()?;
    let options = Lora { gains: Gains::Copies, ..Lora::default() };
    steered.attach(&options, Path::new("base"), None, 2, 0)?;
    for (_, p) in steered.lora.iter_mut().flat_map(|lora| &mut lora.params) {
        *p = p.f_full_like(0.01)?;
    }
    no_grad(|| steered.net(dtype))
}

fn gemm_rate(dtype: Kind) -> Result<f64> {
    no_grad(|| {
        let a = Tensor::f_full([1024, 576], 0.5, (Kind::Float, Device::Cpu))?.f_to_kind(dtype)?;
        let b = Tensor::f_full([3072, 576], 0.5, (Kind::Float, Device::Cpu))?.f_to_kind(dtype)?;
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            let clock = Instant::now();
            let _ = a.f_linear(&b, None::<&Tensor>)?;
            best = best.min(clock.elapsed().as_secs_f64());
        }
        Ok(2.0 * 1024.0 * 576.0 * 3072.0 / best / 1e9)
    })
}

/// Rows, columns and number of a network's matrices, the head last.
fn matrices(shape: &Shape) -> Vec<[i64; 3]> {
    let (d, inner, layers) = (shape.hidden_size, shape.intermediate_size, shape.layers.len() as i64);
    let [q, kv] = [shape.heads, shape.kv_heads].map(|n| n * shape.head_dim);
    let up = if shape.gated { 2 * inner } else { inner };
    vec![[q + 2 * kv, d, layers], [d, q, layers], [up, d, layers], [d, inner, layers], [shape.vocab_size, d, 1]]
}

fn filled(rows: i64, columns: i64, dtype: Kind) -> Result<Tensor> {
    Ok(Tensor::f_full([rows, columns], 0.01, (Kind::Float, Device::Cpu))?.f_to_kind(dtype)?)
}

/// The median of several calls, in seconds.
fn median<T>(mut call: impl FnMut() -> Result<T>) -> Result<f64> {
    call()?;
    let mut all = Vec::new();
    for _ in 0..7 {
        let clock = Instant::now();
        call()?;
        all.push(clock.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// Seconds of the matrix products of a token of each row, and nothing else.
fn decode_floor(shape: &Shape, rows: i64, dtype: Kind) -> Result<f64> {
    no_grad(|| {
        let mut all = 0.0;
        for [out, inner, count] in matrices(shape) {
            // As many as there are, or the caches hold what a network's do not.
            let weights = (0..count).map(|_| filled(out, inner, dtype)).collect::<Result<Vec<_>>>()?;
            let laid_out = weights.iter().map(|w| LaidOut::of(w, rows)).collect::<std::result::Result<Vec<_>, _>>()?;
            let x = filled(rows, inner, dtype)?;
            all += median(|| {
                for (weight, laid_out) in weights.iter().zip(&laid_out) {
                    match laid_out {
                        Some(laid_out) => drop(laid_out.product(&x, None)?),
                        None => drop(x.f_linear(weight, None::<&Tensor>)?),
                    }
                }
                Ok(())
            })?;
        }
        Ok(all)
    })
}

/// Seconds of the matrix products of a pass over so many tokens, and of the head over targets: forwards, and backwards.
fn products(shape: &Shape, tokens: i64, targets: i64, dtype: Kind) -> Result<[f64; 2]> {
    no_grad(|| {
        let mut all = [0.0; 2];
        for [out, inner, count] in matrices(shape) {
            let rows = if out == shape.vocab_size { targets } else { tokens };
            let (w, x, g) = (filled(out, inner, dtype)?, filled(rows, inner, dtype)?, filled(rows, out, dtype)?);
            let of_input = median(|| Ok(g.f_matmul(&w)?))?;
            let of_weight = median(|| Ok(g.f_transpose(0, 1)?.f_matmul(&x)?))?;
            all[0] += count as f64 * median(|| Ok(x.f_linear(&w, None::<&Tensor>)?))?;
            all[1] += count as f64 * (of_input + of_weight);
        }
        Ok(all)
    })
}

/// Seconds of rollout, reference, forward and backward, and update.
fn online_step(bench: &Bench, reference: &Net, adam: &mut dyn optim::Optim) -> Result<[f64; 4]> {
    let Bench { model, tokenizer, prompt, dtype, .. } = bench;
    let endless = endless(tokenizer);
    let prompts = vec![prompt.clone(); 8];
    let seed = |i: usize, completion: usize| sub_seed(1 + completion as u64, "bench", i as u64);
    let sampling = GenerationConfig { max_new_tokens: NEW, ..GenerationConfig::default() };
    let clock = Instant::now();
    let net = no_grad(|| model.net(*dtype))?;
    let drawn = rollout(&net, &endless, &prompts, 2, seed, &sampling)?;
    drop(net);
    let draw = clock.elapsed().as_secs_f64();
    let tokens = |i: usize| drawn.of(i).iter().map(|c| c.tokens.as_slice()).collect();
    let groups: Vec<Group> = (0..8).map(|i| Group { prompt, completions: tokens(i) }).collect();
    let clock = Instant::now();
    let packed = pack(&groups, tokenizer.pad, Device::Cpu)?;
    let _ = no_grad(|| packed.token_log_probs(reference, 1.0))?;
    let refer = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let sums = packed.sums(&packed.token_log_probs(&model.training_net(*dtype, 0, false)?, 1.0)?)?;
    sums.f_sum(Kind::Float)?.f_mul_scalar(1e-3)?.f_backward()?;
    let train = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    // As a stage's update does it.
    optim::clip_gradients(model.trained(), 1.0)?;
    adam.step(model.trained(), 1e-7)?;
    optim::not_finite(model.trained(), Tensor::shallow_clone)?;
    optim::zero_gradients(model.trained())?;
    Ok([draw, refer, train, clock.elapsed().as_secs_f64()])
}

/// The process's peak resident memory in GB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e9
}
