//! Each kernel against the same in libtorch's own operations, forwards and backwards, for sizes that fill vectors and that do not.

#![allow(clippy::disallowed_methods, reason = "a test may panic")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use motrain_kernels::{Heads, LaidOut, attention, beside, chosen_log_probs, draw, gated_silu, rms_norm, split_heads};
use tch::{Device, Kind, Tensor};

type Result<T> = std::result::Result<T, tch::TchError>;

/// Numbers that look drawn: no global random state is touched.
fn numbers(shape: &[i64], seed: i64, kind: Kind) -> Tensor {
    let count: i64 = shape.iter().product();
    let x = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898 + seed as f64 * 78.233;
    let x = x.sin() * 43758.5453;
    let x = (&x - x.floor()) * 4.0 - 2.0;
    x.to_kind(kind).view(shape)
}

fn both() -> [(Kind, f64); 2] {
    [(Kind::Float, 2e-5), (Kind::BFloat16, 2e-2)]
}

fn close(what: &str, a: &Tensor, b: &Tensor, bound: f64) {
    assert_eq!(a.size(), b.size(), "{what}");
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let scale = b.abs().max().double_value(&[]).max(1.0);
    let off = (a - b).abs().max().double_value(&[]) / scale;
    assert!(off <= bound, "{what}: off by {off:e} of {scale}");
}

/// Outputs and gradients of two ways to compute the same from leaves; the plain one computes in f32 from the same numbers.
fn agree(
    what: &str,
    bound: f64,
    leaves: &[Tensor],
    kernel: impl Fn(&[Tensor]) -> Result<Tensor>,
    plain: impl Fn(&[Tensor]) -> Tensor,
) {
    let own: Vec<Tensor> = leaves.iter().map(|x| x.detach().copy().set_requires_grad(true)).collect();
    let wide: Vec<Tensor> =
        leaves.iter().map(|x| x.detach().to_kind(Kind::Float).copy().set_requires_grad(true)).collect();
    let quiet = tch::no_grad(|| kernel(&own).unwrap());
    let (a, b) = (kernel(&own).unwrap(), plain(&wide));
    close(&format!("{what} without gradients"), &quiet, &a, 0.0);
    close(what, &a, &b, bound);
    let weigh = numbers(&b.size(), 9, Kind::Float);
    (a.to_kind(Kind::Float) * &weigh).sum(Kind::Float).backward();
    (b * &weigh).sum(Kind::Float).backward();
    for (i, (own, wide)) in own.iter().zip(&wide).enumerate() {
        close(&format!("{what}, gradient {i}"), &own.grad(), &wide.grad(), bound);
    }
}

/// All of these at the level below the best of CPUs with AVX-512.
#[test]
fn kernels_of_avx2_do_the_same() {
    if std::env::var_os("ATEN_CPU_CAPABILITY").is_some() {
        return;
    }
    let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
    let run = tests.env("ATEN_CPU_CAPABILITY", "avx2").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}

#[test]
fn norms() {
    if !motrain_kernels::fast() {
        return;
    }
    for (kind, bound) in both() {
        for (rows, d) in [(1, 1), (3, 5), (7, 16), (40, 33), (130, 576)] {
            for plus_one in [false, true] {
                let leaves = [numbers(&[rows, d], 1, kind), numbers(&[d], 2, kind)];
                agree(
                    &format!("rms {rows} {d} {kind:?} {plus_one}"),
                    bound,
                    &leaves,
                    |x| rms_norm(&x[0], &x[1], 1e-5, plus_one),
                    |x| {
                        let n = &x[0] * (x[0].square().mean_dim(-1, true, Kind::Float) + 1e-5).rsqrt();
                        n * (&x[1] + f64::from(u8::from(plus_one)))
                    },
                );
            }
        }
    }
}

/// Else a policy whose weights have grown beyond all bounds would train on, and answer anything.
#[test]
fn a_norm_that_overflows_has_no_gradient() {
    if !motrain_kernels::fast() {
        return;
    }
    let x = (numbers(&[2, 5], 1, Kind::Float) * 1e30).set_requires_grad(true);
    let out = rms_norm(&x, &numbers(&[5], 2, Kind::Float), 1e-5, false).unwrap();
    assert_eq!(out.abs().max().double_value(&[]), 0.0);
    out.sum(Kind::Float).backward();
    assert!(bool::try_from(x.grad().isnan().all()).unwrap());
}

#[test]
fn gated_mlps() {
    if !motrain_kernels::fast() {
        return;
    }
    for (kind, bound) in both() {
        for (rows, d) in [(1, 1), (3, 5), (7, 16), (70, 320)] {
            let leaves = [numbers(&[rows, 2 * d], 1, kind) * 3.0];
            agree(
                &format!("silu {rows} {d} {kind:?}"),
                bound,
                &leaves,
                |x| gated_silu(&x[0]),
                |x| {
                    let halves = x[0].chunk(2, -1);
                    halves[0].silu() * &halves[1]
                },
            );
        }
    }
}

fn angles(batch: i64, length: i64, dims: i64, kind: Kind) -> (Tensor, Tensor) {
    let half = numbers(&[batch, 1, length, dims / 2], 5, Kind::Float);
    let all = Tensor::cat(&[&half, &half], -1);
    (all.cos().to_kind(kind), all.sin().to_kind(kind))
}

#[test]
fn heads() {
    if !motrain_kernels::fast() {
        return;
    }
    let sizes = [
        (2, 3, 4, 2, 8, 8, 2),
        (1, 5, 1, 1, 6, 4, 1),
        (3, 7, 9, 3, 64, 64, 1),
        (2, 2, 2, 1, 34, 34, 2),
        (2, 3, 2, 2, 4, 0, 1),
    ];
    for (kind, bound) in both() {
        for (batch, length, heads, kv_heads, head_dim, dims, alike) in sizes {
            let all = heads + 2 * kv_heads;
            let (cos, sin) = angles(if alike == 1 { 1 } else { batch }, length, dims, kind);
            let turned = |x: &Tensor, cos: &Tensor, sin: &Tensor| {
                let (front, rest) = (x.narrow(-1, 0, dims), x.narrow(-1, dims, head_dim - dims));
                let halves = front.chunk(2, -1);
                Tensor::cat(
                    &[&front * cos + Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1) * sin, rest],
                    -1,
                )
            };
            agree(
                &format!("heads {batch} {length} {heads} {kv_heads} {head_dim} {dims} {kind:?}"),
                bound,
                &[numbers(&[batch, length, all * head_dim], 1, kind)],
                |x| {
                    let given = (dims > 0).then_some((&cos, &sin));
                    let parts = split_heads(&x[0], given, Heads { heads, kv_heads, head_dim })?;
                    Tensor::f_cat(&parts, 1)
                },
                |x| {
                    let x = x[0].view([batch, length, all, head_dim]).transpose(1, 2);
                    let qk = x.narrow(1, 0, heads + kv_heads);
                    let (cos, sin) = (cos.to_kind(Kind::Float), sin.to_kind(Kind::Float));
                    let qk = if dims > 0 { turned(&qk, &cos, &sin) } else { qk };
                    Tensor::cat(&[qk, x.narrow(1, heads + kv_heads, kv_heads)], 1)
                },
            );
        }
    }
}

fn plain_attention(x: &[Tensor], mask: Option<&Tensor>, scale: f64, cap: Option<f64>) -> Tensor {
    let (batch, heads, queries, dim) = x[0].size4().unwrap();
    let (_, kv, keys, _) = x[1].size4().unwrap();
    let wide = |t: &Tensor| {
        t.unsqueeze(2).expand([batch, kv, heads / kv, keys, dim], false).reshape([batch, heads, keys, dim])
    };
    let mut scores = x[0].matmul(&wide(&x[1]).transpose(2, 3)) * scale;
    if let Some(cap) = cap {
        scores = (scores / cap).tanh() * cap;
    }
    if let Some(mask) = mask {
        scores += mask;
    }
    let seen = Tensor::ones([queries, keys], (Kind::Bool, Device::Cpu)).tril(keys - queries);
    let scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
    scores.softmax(-1, Kind::Float).matmul(&wide(&x[2])).transpose(1, 2).reshape([batch, queries, heads * dim])
}

#[test]
fn attention_of_all_shapes() {
    if !motrain_kernels::fast() {
        return;
    }
    let sizes = [
        (1, 1, 1, 1, 1, 4),
        (2, 4, 2, 1, 19, 32),
        (3, 9, 3, 1, 100, 64),
        (2, 4, 2, 5, 5, 6),
        (1, 9, 3, 53, 53, 64),
        (2, 2, 1, 7, 21, 80),
        (1, 3, 3, 100, 130, 16),
    ];
    for (kind, bound) in both() {
        for (batch, heads, kv, queries, keys, dim) in sizes {
            for (masked, cap) in [(false, None), (true, None), (true, Some(3.0))] {
                let leaves = [
                    numbers(&[batch, heads, queries, dim], 1, kind),
                    numbers(&[batch, kv, keys, dim], 2, kind),
                    numbers(&[batch, kv, keys, dim], 3, kind),
                ];
                // Every third key is hidden, but for a query's own; of each sequence others, or of all the same.
                let alike = if cap.is_some() { 1 } else { batch };
                let place = Tensor::arange(keys, (Kind::Int64, Device::Cpu)).view([1, 1, 1, keys])
                    + Tensor::arange(alike, (Kind::Int64, Device::Cpu)).view([alike, 1, 1, 1]);
                let third = place.remainder(3).eq(1);
                let own = Tensor::eye_m(keys, keys, (Kind::Bool, Device::Cpu)).narrow(0, keys - queries, queries);
                let hidden = third.logical_and(&own.logical_not());
                let mask = Tensor::zeros([alike, 1, queries, keys], (Kind::Float, Device::Cpu));
                let mask = mask.masked_fill(&hidden, f64::NEG_INFINITY);
                let mask = masked.then_some(&mask);
                agree(
                    &format!("attention {batch} {heads} {kv} {queries} {keys} {dim} {kind:?} {masked} {cap:?}"),
                    bound,
                    &leaves,
                    |x| attention(&x[0], &x[1], &x[2], mask, 0.3, cap),
                    |x| plain_attention(x, mask, 0.3, cap),
                );
            }
        }
    }
}

/// Keys and values may be the first positions of a cache.
#[test]
fn attention_over_a_part_of_a_cache() {
    if !motrain_kernels::fast() {
        return;
    }
    let (q, cache) = (numbers(&[2, 4, 1, 32], 1, Kind::Float), numbers(&[2, 2, 40, 32], 2, Kind::Float));
    let seen = cache.narrow(2, 0, 23);
    let out = attention(&q, &seen, &seen, None, 0.2, None).unwrap();
    let again = attention(&q, &seen.contiguous(), &seen.contiguous(), None, 0.2, None).unwrap();
    close("part of a cache", &out, &again, 0.0);
}

#[test]
fn log_probs_of_targets() {
    if !motrain_kernels::fast() {
        return;
    }
    for (kind, bound) in both() {
        for (rows, vocab, temperature) in [(1, 1, 1.0), (3, 17, 0.7), (20, 1262, 1.0), (5, 49152, 1.3)] {
            let targets = (Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 7919).remainder(vocab);
            agree(
                &format!("log-probs {rows} {vocab} {kind:?}"),
                bound,
                &[numbers(&[rows, vocab], 1, kind) * 5.0],
                |x| chosen_log_probs(&x[0], &targets, temperature),
                |x| {
                    (&x[0] / temperature)
                        .log_softmax(-1, Kind::Float)
                        .gather(1, &targets.unsqueeze(1), false)
                        .squeeze_dim(1)
                },
            );
        }
    }
    let outside = chosen_log_probs(&numbers(&[1, 4], 1, Kind::Float), &Tensor::from_slice(&[4i64]), 1.0);
    assert!(outside.unwrap_err().to_string().contains("token 4 of 4"));
}

#[test]
fn tokens_are_drawn_by_their_probability() {
    if !motrain_kernels::fast() {
        return;
    }
    let vocab = 1000;
    let logits = numbers(&[1, vocab], 3, Kind::Float) * 2.0;
    let cumulative = (&logits / 0.8).softmax(-1, Kind::Double).cumsum(-1, Kind::Double);
    let uniform = (Tensor::arange(4096, (Kind::Float, Device::Cpu)) + 0.5) / 4096.0;
    let [drawn, log_probs] = draw(&logits.expand([4096, vocab], false), &uniform, 0.8).unwrap();
    let all = (&logits / 0.8).log_softmax(-1, Kind::Double);
    close("log-probs of what is drawn", &log_probs, &all.squeeze_dim(0).index_select(0, &drawn), 1e-6);
    let there =
        uniform.to_kind(Kind::Double).unsqueeze(0).searchsorted(&cumulative, false, true, "right", None::<&Tensor>);
    let apart = (drawn - there.squeeze()).ne(0).sum(Kind::Int64).int64_value(&[]);
    assert!(apart <= 4, "{apart} of 4096 draws differ");
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for (row, expected) in [
        ([1.0, nan, 0.0], -1),
        ([1.0, inf, 0.0], -1),
        ([-inf; 3], -1),
        ([-inf, 0.0, -inf], 1),
        ([-200.0, -inf, 0.0], 2),
    ] {
        for u in [0.0f32, 0.5, 1.0 - f32::EPSILON / 2.0] {
            let [token, _] = draw(&Tensor::from_slice(&row).view([1, 3]), &Tensor::from_slice(&[u]), 1.0).unwrap();
            assert_eq!(token.int64_value(&[0]), expected, "{row:?} {u}");
        }
    }
}

#[test]
fn products_with_weights_laid_out() {
    let (weight, bias) = (numbers(&[96, 64], 1, Kind::BFloat16), numbers(&[96], 2, Kind::BFloat16));
    for rows in [1, 5, 16, 100] {
        let x = numbers(&[rows, 64], 3, Kind::BFloat16);
        let Some(laid_out) = LaidOut::of(&weight, rows).unwrap() else { return };
        for bias in [None, Some(&bias)] {
            let plain = x
                .to_kind(Kind::Float)
                .linear(&weight.to_kind(Kind::Float), bias.map(|b| b.to_kind(Kind::Float)).as_ref());
            close(&format!("product of {rows}"), &laid_out.product(&x, bias).unwrap(), &plain, 1e-2);
        }
    }
}

#[test]
fn numbers_side_by_side() {
    let columns = Tensor::from_slice(&[2i64, 0, 2, 1, 1]);
    for (kind, bound) in both() {
        for (batch, length, owns) in [(1, 1, 1), (3, 1, 3), (4, 7, 1), (4, 7, 4), (33, 2, 33)] {
            let (x, inner) = (numbers(&[batch, length, 19], 1, kind), numbers(&[batch, length, 5], 2, kind));
            let gains = numbers(&[owns, 3], 3, Kind::Float);
            let plain = |inner: &Tensor| Tensor::cat(&[&x, inner], -1);
            close("side by side", &beside(&x, &inner, None).unwrap(), &plain(&inner), 0.0);
            let gained = &inner * gains.index_select(1, &columns).view([owns, 1, 5]);
            let what = format!("gains of {owns} for {batch}");
            close(&what, &beside(&x, &inner, Some((&gains, &columns))).unwrap(), &plain(&gained.to_kind(kind)), bound);
        }
    }
    let (x, inner) = (numbers(&[2, 4], 1, Kind::Float), numbers(&[2, 1], 2, Kind::Float));
    for (gains, column) in [([3, 2], 0), ([1, 2], 2), ([1, 2], -1)] {
        let (gains, column) = (numbers(&gains, 1, Kind::Float), Tensor::from_slice(&[column as i64]));
        assert!(beside(&x, &inner, Some((&gains, &column))).is_err(), "{column:?}");
    }
}

#[test]
fn work_is_shared_by_all_threads() {
    // Without libtorch's OpenMP library there is one.
    for threads in if cfg!(gomp) { vec![1, 2, 3] } else { vec![] } {
        tch::set_num_threads(threads);
        assert_eq!(motrain_kernels::threads(), i64::from(threads));
    }
}

/// Shapes that do not fit are errors, not crashes.
#[test]
fn what_does_not_fit_is_refused() {
    if !motrain_kernels::fast() {
        return;
    }
    let x = numbers(&[2, 6], 1, Kind::Float);
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 4 };
    let q = numbers(&[1, 4, 2, 8], 1, Kind::Float);
    let k = numbers(&[1, 3, 5, 8], 1, Kind::Float);
    let errors = [
        rms_norm(&x, &numbers(&[5], 1, Kind::Float), 1e-5, false).err(),
        rms_norm(&x.to_kind(Kind::Double), &x, 1e-5, false).err(),
        gated_silu(&numbers(&[2, 5], 1, Kind::Float)).err(),
        split_heads(&numbers(&[1, 2, 15], 1, Kind::Float), None, heads).err(),
        attention(&q, &k, &k, None, 1.0, None).err(),
        attention(&q, &q.narrow(2, 0, 1), &q, None, 1.0, None).err(),
        attention(&q, &q, &q, Some(&x), 1.0, None).err(),
        chosen_log_probs(&x, &Tensor::from_slice(&[0i64]), 1.0).err(),
        draw(&x, &Tensor::from_slice(&[0f32]), 1.0).err(),
    ];
    for (i, error) in errors.into_iter().enumerate() {
        assert!(error.is_some(), "case {i} was taken");
    }
}
