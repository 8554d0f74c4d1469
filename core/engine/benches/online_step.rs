//! The parts of an online step on a real model, and the share of the machine's GEMM rate: `cargo bench -p motrain-engine -- MODEL`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use clap::Parser;
use motrain_core::Prompt;
use motrain_core::rng::sub_seed;
use motrain_engine::Result;
use motrain_engine::decode::{Decoder, Gained, rollout};
use motrain_engine::model::{Mask, Model, Net, Shape};
use motrain_engine::plan::{Gains, GenerationConfig, Lora, Optimizer};
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::logprob::{Group, pack};
use motrain_engine::train::optim;
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
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    environment::settle();
    let Args { model: folder, dtype, .. } = Args::parse();
    let dtype = device::dtype(&dtype, Device::Cpu)?;
    let mut model = Model::load(&folder, Device::Cpu)?;
    let tokenizer = Tokenizer::load(&folder, &model.config)?;
    let weights = model.parameter_count() as f64;
    let threads = (tch::get_num_threads(), motrain_kernels::threads());
    println!("{:.0} M parameters, {dtype:?}, {} threads, kernels on {}", weights / 1e6, threads.0, threads.1);
    let gemm = gemm_rate(dtype)?;
    println!("{:<34} {gemm:8.1} GFLOP/s", "GEMM 1024x576x3072");

    let net = no_grad(|| model.net(dtype))?;
    let prompt: Vec<u32> =
        (0..PROMPT).map(|i| 1000 + (i as u32 * 7919) % (model.config.shape.vocab_size as u32 / 2)).collect();
    for batch in [1usize, 16, 64] {
        let seconds = prefill_seconds(&net, &prompt, batch)?;
        println!("{:<34} {:8.1} tokens/s", format!("prefill, batch {batch}"), (batch * PROMPT) as f64 / seconds);
    }
    let steered = steered(&model, dtype)?;
    for batch in [1usize, 16, 64] {
        let (tokens, seconds) = decode_seconds(&net, &tokenizer, &prompt, batch)?;
        let rate = tokens / seconds;
        let share = rate * 2.0 * weights / 1e9 / gemm;
        let floor = batch as f64 / decode_floor(&model.config.shape, batch as i64, dtype)?;
        println!(
            "{:<34} {rate:8.1} tokens/s   {:5.1} % of GEMM, products alone {floor:8.1}",
            format!("decode, batch {batch}"),
            share * 100.0
        );
        let own = Gained {
            net: &steered,
            gains: (0..batch).map(|i| [i, batch - i].map(|n| n as f64 / batch as f64).into()).collect(),
        };
        let (tokens, seconds) = decode_seconds(&own, &tokenizer, &prompt, batch)?;
        let by = tokens / seconds;
        println!(
            "{:<34} {by:8.1} tokens/s   {:5.1} % of the plain model",
            "  weights of their own, as gains",
            by / rate * 100.0
        );
    }
    let (tokens, seconds) = mixed_seconds(&net, &tokenizer)?;
    println!(
        "{:<34} {:8.1} tokens/s   64 prompts, {:.0} tokens an answer",
        "answers of mixed length",
        tokens / seconds,
        tokens / 64.0
    );
    drop((net, steered));

    let reference = no_grad(|| model.frozen_copy()?.net(dtype))?;
    model.require_grad()?;
    let options = Optimizer { lr: 1e-7, ..Optimizer::default() };
    let mut adam = optim::build(&options, &model.params)?;
    let mut best: Option<[f64; 4]> = None;
    for _ in 0..3 {
        let times = online_step(&mut model, &reference, &tokenizer, &prompt, dtype, adam.as_mut())?;
        if best.is_none_or(|b| times.iter().sum::<f64>() < b.iter().sum()) {
            best = Some(times);
        }
    }
    let [draw, refer, train, update] = best.unwrap_or_default();
    let tokens = 8.0 * (PROMPT + 2 * NEW) as f64;
    println!("online step, 8 prompts x 2 completions x {NEW} tokens (best of 3):");
    let shape = &model.config.shape;
    let prefill = products(shape, 8 * PROMPT as i64, 8, dtype)?[0];
    let drawing = prefill + NEW as f64 * decode_floor(shape, 16, dtype)?;
    let [forward, backward] = products(shape, 8 * (PROMPT + 2 * NEW) as i64, (16 * NEW) as i64, dtype)?;
    println!(
        "{:<34} {draw:8.2} s   {:.1} new tokens/s, products alone {drawing:8.2} s",
        "  rollout",
        16.0 * NEW as f64 / draw
    );
    println!("{:<34} {refer:8.2} s   products alone {forward:8.2} s", "  reference forward");
    let floor = forward + backward;
    println!(
        "{:<34} {train:8.2} s   {:5.1} % of GEMM, products alone {floor:8.2} s",
        "  forward and backward",
        tokens * 6.0 * weights / train / 1e9 / gemm * 100.0
    );
    println!("{:<34} {update:8.2} s", "  AdamW");
    let whole = draw + refer + train + update;
    let floor = drawing + forward + floor + update;
    println!(
        "{:<34} {whole:8.2} s   products alone, and AdamW, {floor:8.2} s: {:.2} times",
        "  whole step",
        whole / floor
    );
    println!("{:<34} {:8.2} GB", "peak memory", peak_memory());
    Ok(())
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

fn prefill_seconds(net: &Net, prompt: &[u32], batch: usize) -> Result<f64> {
    no_grad(|| {
        let one: Vec<i64> = prompt.iter().map(|&t| i64::from(t)).collect();
        let ids = Tensor::f_from_slice(&one)?.f_unsqueeze(0)?.f_repeat([batch as i64, 1])?;
        let positions = Tensor::f_arange(PROMPT as i64, (Kind::Int64, Device::Cpu))?.f_unsqueeze(0)?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let clock = Instant::now();
            let _ = net.hidden(&ids, &positions, &Mask::Causal, None)?;
            best = best.min(clock.elapsed().as_secs_f64());
        }
        Ok(best)
    })
}

/// Tokens drawn after the first, and the seconds that they took.
fn decode_seconds(net: &dyn Decoder, tokenizer: &Tokenizer, prompt: &[u32], batch: usize) -> Result<(f64, f64)> {
    let mut tokenizer = tokenizer.clone();
    tokenizer.eos = vec![u32::MAX];
    let prompts = vec![prompt.to_vec(); batch];
    let seed = |i: usize, _| sub_seed(0, "bench", i as u64);
    let time = |new: usize| -> Result<f64> {
        let clock = Instant::now();
        rollout(
            net,
            &tokenizer,
            &prompts,
            1,
            seed,
            &GenerationConfig { max_new_tokens: new, ..GenerationConfig::default() },
        )?;
        Ok(clock.elapsed().as_secs_f64())
    };
    time(2)?;
    let (short, long) = (time(1)?, time(1 + NEW)?);
    Ok(((batch * NEW) as f64, long - short))
}

/// Tokens of answers that end where the model ends them, at most 256 each, and the seconds that they took.
fn mixed_seconds(net: &Net, tokenizer: &Tokenizer) -> Result<(f64, f64)> {
    let asked =
        ["Say in one sentence what", "Explain step by step how", "List three facts on how", "Write a poem on how"];
    let about = ["bread", "glass", "paper", "steel", "wool", "salt", "soap", "ice"];
    let done = ["is made", "is used"];
    let all = asked.iter().flat_map(|a| about.iter().flat_map(move |b| done.map(|c| format!("{a} {b} {c}."))));
    let prompts = all.map(|text| tokenizer.encode_prompt(&Prompt::user(text))).collect::<Result<Vec<_>>>()?;
    let sampling = GenerationConfig { max_new_tokens: 256, ..GenerationConfig::default() };
    let clock = Instant::now();
    let drawn = rollout(net, tokenizer, &prompts, 1, |i, _| sub_seed(2, "bench", i as u64), &sampling)?;
    Ok((drawn.tokens() as f64, clock.elapsed().as_secs_f64()))
}

/// Seconds of rollout, reference, forward+backward and update.
fn online_step(
    model: &mut Model,
    reference: &Net,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    dtype: Kind,
    adam: &mut dyn optim::Optim,
) -> Result<[f64; 4]> {
    let mut endless = tokenizer.clone();
    endless.eos = vec![u32::MAX];
    let prompts = vec![prompt.to_vec(); 8];
    let seed = |i: usize, completion: usize| sub_seed(1 + completion as u64, "bench", i as u64);
    let sampling = GenerationConfig { max_new_tokens: NEW, ..GenerationConfig::default() };
    let clock = Instant::now();
    let net = no_grad(|| model.net(dtype))?;
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
    let sums = packed.sums(&packed.token_log_probs(&model.training_net(dtype, 0, false)?, 1.0)?)?;
    sums.f_sum(Kind::Float)?.f_mul_scalar(1e-3)?.f_backward()?;
    let train = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    adam.step(&model.params, 1e-7)?;
    optim::zero_gradients(&model.params)?;
    Ok([draw, refer, train, clock.elapsed().as_secs_f64()])
}

/// The process's peak resident memory in GB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
