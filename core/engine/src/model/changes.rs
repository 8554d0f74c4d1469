//! What is added to the product of a matrix: low-rank changes and whole ones, with a gain of each block of them, and dropout.

use crate::{Error, Result};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use tch::{Device, Kind, Tensor};

/// A low-rank change of some rows: `scale·B(g ⊙ Ax)`; without A of full rank, `scale·B(g ⊙ x)`.
pub struct Change {
    /// The first of the rows.
    pub row: i64,
    /// `[r, in]`.
    pub a: Option<Tensor>,
    /// `[rows, r]`.
    pub b: Tensor,
    pub scale: f64,
    /// A factor of each rank, `[r]` or `[1]`, beside g.
    pub diagonal: Option<Tensor>,
    /// Which of the gains is its g; without one it is always there.
    pub block: Option<usize>,
}

/// The changes of a matrix.
pub struct Changes {
    low_rank: Option<LowRank>,
    whole: Vec<Whole>,
}

/// Low-rank changes side by side: two products for all of them.
struct LowRank {
    /// One after the other, `[Σr, in]`: of each change its own.
    a: Vec<Tensor>,
    stacked: Tensor,
    /// `[out, Σr]`: zeros where a change does not reach.
    b: Tensor,
    /// Of each change.
    factors: Vec<Factor>,
}

/// A change of full rank, `[out, in]` with its scale in it, and its gain.
struct Whole {
    weight: Tensor,
    block: Option<usize>,
}

/// What a change's inner numbers are multiplied by.
struct Factor {
    scale: f64,
    diagonal: Option<Tensor>,
    block: Option<usize>,
}

/// What a forward pass makes of low-rank changes.
pub struct Passing<'a> {
    /// A gain of each block of changes.
    pub gains: &'a [Gain],
    pub dropout: Option<&'a Dropout>,
}

/// Of a block of changes: of all rows of a batch, or of each, `[batch]` (f32).
pub enum Gain {
    All(f64),
    Rows(Tensor),
}

impl Gain {
    /// Of blocks, from the gains that each row has of them.
    pub fn of_rows(rows: &[&[f64]], device: Device) -> Result<Vec<Self>> {
        let blocks = rows.first().map_or(0, |first| first.len());
        if let Some(odd) = rows.iter().find(|gains| gains.len() != blocks) {
            return Err(Error::invalid(format!("some rows of a batch have {blocks} gains and some {}", odd.len())));
        }
        let one = |block: usize| -> Result<Self> {
            let own: Vec<f32> = rows.iter().map(|gains| gains[block] as f32).collect();
            match rows.iter().all(|gains| gains[block] == rows[0][block]) {
                true => Ok(Self::All(rows[0][block])),
                false => Ok(Self::Rows(Tensor::f_from_slice(&own)?.f_to_device(device)?)),
            }
        };
        (0..blocks).map(one).collect()
    }

    /// Of these rows, `[kept]` (i64).
    pub fn select(&self, rows: &Tensor) -> Result<Self> {
        match self {
            Self::All(gain) => Ok(Self::All(*gain)),
            Self::Rows(gains) => Ok(Self::Rows(gains.f_index_select(0, rows)?)),
        }
    }

    /// Of `count` rows from `start` on.
    pub fn part(&self, start: i64, count: i64) -> Result<Self> {
        match self {
            Self::All(gain) => Ok(Self::All(*gain)),
            Self::Rows(gains) => Ok(Self::Rows(gains.f_narrow(0, start, count)?)),
        }
    }

    /// A number for each row, `[batch]`.
    pub fn column(&self, batch: i64, device: Device) -> Result<Tensor> {
        match self {
            Self::All(gain) => Ok(Tensor::f_full([batch], *gain, (Kind::Float, device))?),
            Self::Rows(gains) => Ok(gains.shallow_clone()),
        }
    }

    /// The same.
    pub fn share(&self) -> Self {
        match self {
            Self::All(gain) => Self::All(*gain),
            Self::Rows(gains) => Self::Rows(gains.shallow_clone()),
        }
    }
}

/// Inputs that changes do not see, drawn anew for each matrix, and again the same where a layer is computed again.
pub struct Dropout {
    share: f64,
    seed: u64,
    passes: AtomicUsize,
    rng: Mutex<Rng>,
}

impl Changes {
    /// Of a matrix of so many rows; nothing where there are none.
    pub fn of(changes: Vec<Change>, rows: i64) -> Result<Option<Self>> {
        let (low, full): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.a.is_some());
        let changes = Self { low_rank: LowRank::of(low, rows)?, whole: Whole::of(full, rows)? };
        Ok((changes.low_rank.is_some() || !changes.whole.is_empty()).then_some(changes))
    }

    /// What they add for `x`, `[batch, …, in]`.
    pub fn apply(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let low = self.low_rank.as_ref().map(|low| low.apply(x, passing)).transpose()?;
        let whole = self.whole.iter().map(|whole| whole.apply(x, passing));
        let all = low.into_iter().map(Ok).chain(whole).collect::<Result<Vec<_>>>()?;
        let sum = all.into_iter().map(Ok).reduce(|sum, next| Ok(sum?.f_add(&next?)?));
        sum.unwrap_or_else(|| Err(Error::invalid("a matrix has no changes")))
    }
}

impl Whole {
    /// One for each block: the changes of a matrix's parts become one of all its rows.
    fn of(changes: Vec<Change>, rows: i64) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for Change { row, b, scale, block, .. } in changes {
            let scaled = if scale == 1.0 { b } else { b.f_mul_scalar(scale)? };
            let weight = scaled.f_constant_pad_nd([0, 0, row, rows - row - scaled.size()[0]])?;
            match all.iter_mut().find(|whole| whole.block == block) {
                Some(whole) => whole.weight = whole.weight.f_add(&weight)?,
                None => all.push(Self { weight, block }),
            }
        }
        Ok(all)
    }

    fn apply(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let seen = passing.dropout.map_or_else(|| Ok(x.shallow_clone()), |dropout| dropout.apply(x))?;
        let out = seen.f_linear(&self.weight, None::<&Tensor>)?;
        match self.block.and_then(|block| passing.gains.get(block)) {
            None => Ok(out),
            Some(Gain::All(gain)) => Ok(out.f_mul_scalar(*gain)?),
            Some(Gain::Rows(gains)) => {
                let mut shape = vec![1; out.dim()];
                shape[0] = gains.size()[0];
                Ok(out.f_mul(&gains.f_to_kind(out.f_kind()?)?.f_reshape(shape)?)?)
            }
        }
    }
}

impl LowRank {
    fn of(changes: Vec<Change>, rows: i64) -> Result<Option<Self>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let whole = |c: &Change| c.b.f_constant_pad_nd([0, 0, c.row, rows - c.row - c.b.size()[0]]);
        let b = Tensor::f_cat(&changes.iter().map(whole).collect::<std::result::Result<Vec<_>, _>>()?, 1)?;
        let (mut a, mut factors) = (Vec::new(), Vec::new());
        for Change { a: own, scale, diagonal, block, .. } in changes {
            a.extend(own);
            factors.push(Factor { scale, diagonal, block });
        }
        Ok(Some(Self { stacked: Tensor::f_cat(&a, 0)?, a, b, factors }))
    }

    /// `B(s ⊙ g ⊙ Ax)`.
    fn apply(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let inner = match passing.dropout {
            None => x.f_linear(&self.stacked, None::<&Tensor>)?,
            // Each change drops inputs of its own, as in PEFT.
            Some(dropout) => {
                let own = self.a.iter().map(|a| Ok(dropout.apply(x)?.f_linear(a, None::<&Tensor>)?));
                Tensor::f_cat(&own.collect::<Result<Vec<_>>>()?, -1)?
            }
        };
        Ok(self.gained(&inner, passing.gains)?.f_linear(&self.b, None::<&Tensor>)?)
    }

    fn gained(&self, inner: &Tensor, gains: &[Gain]) -> Result<Tensor> {
        if let Some(one) = self.one(gains) {
            return Ok(inner.f_mul_scalar(one)?);
        }
        let kind = inner.f_kind()?;
        let own = self.a.iter().zip(&self.factors).map(|(a, Factor { scale, diagonal, block })| {
            let gain = match block.and_then(|block| gains.get(block)) {
                None => Tensor::f_from_slice(&[*scale])?,
                Some(Gain::All(gain)) => Tensor::f_from_slice(&[scale * gain])?,
                Some(Gain::Rows(gains)) => gains.f_mul_scalar(*scale)?,
            };
            let gain = gain.f_to_device(inner.device())?.f_to_kind(kind)?.f_unsqueeze(-1)?;
            let (rows, rank) = (gain.size()[0], a.size()[0]);
            let gain = match diagonal {
                Some(diagonal) => gain.f_mul(diagonal)?,
                None => gain,
            };
            let mut shape = vec![1; inner.dim()];
            (shape[0], shape[inner.dim() - 1]) = (rows, rank);
            Ok(gain.f_expand([rows, rank], false)?.f_reshape(shape)?)
        });
        let own = own.collect::<Result<Vec<_>>>()?;
        let batch = own.iter().map(|gain| gain.size()[0]).max().unwrap_or(1);
        let even = own.iter().map(|gain| {
            let mut shape = gain.size();
            shape[0] = batch;
            gain.f_expand(shape, false)
        });
        Ok(inner.f_mul(&Tensor::f_cat(&even.collect::<std::result::Result<Vec<_>, _>>()?, -1)?)?)
    }

    /// The factor of all changes, where they share it.
    fn one(&self, gains: &[Gain]) -> Option<f64> {
        let mut all = self.factors.iter().map(|Factor { scale, diagonal, block }| {
            match (diagonal, block.and_then(|block| gains.get(block))) {
                (None, None) => Some(*scale),
                (None, Some(Gain::All(gain))) => Some(scale * gain),
                _ => None,
            }
        });
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }
}

impl Dropout {
    pub fn new(share: f64, seed: u64) -> Self {
        Self { share, seed, passes: AtomicUsize::new(0), rng: Mutex::new(rng(seed, "dropout", 0)) }
    }

    /// A number for a forward pass of its own.
    pub fn next_pass(&self) -> usize {
        self.passes.fetch_add(1, Ordering::Relaxed)
    }

    /// What a layer draws in one of the forward passes of a network.
    pub fn begin(&self, pass: usize, layer: usize) -> Result<()> {
        *self.lock()? = rng(self.seed, "dropout", ((pass as u64) << 32) + layer as u64);
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Rng>> {
        self.rng.lock().map_err(|_| Error::invalid("a forward pass with dropout failed before"))
    }

    /// Zeros, and what is left scaled up so that the mean stays.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut rng = self.lock()?;
        let keep = (1.0 - self.share) as f32;
        let mask: Vec<f32> =
            (0..x.numel()).map(|_| if rng.random::<f32>() < keep { 1.0 / keep } else { 0.0 }).collect();
        let mask = Tensor::f_from_slice(&mask)?.f_view(x.size().as_slice())?;
        Ok(x.f_mul(&mask.f_to_device(x.device())?.f_to_kind(x.f_kind()?)?)?)
    }
}
