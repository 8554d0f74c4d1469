//! What is added to the product of a matrix: low-rank changes and whole ones, with a gain of each block of them, and dropout.

use super::layers::Matrix;
use crate::{Error, Result};
use motrain_core::rng::{Rng, rng};
use rand::Rng as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use tch::{Device, Tensor};

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

/// Low-rank changes side by side: two products for all of them, or one beside that of the matrix.
struct LowRank {
    /// One after the other, `[Σr, in]`.
    a: Matrix,
    /// Of each change its own.
    own: Vec<Tensor>,
    /// `[out, Σr]`, with their scales: zeros where a change does not reach. None where it lies behind the matrix that is changed, in one with it.
    b: Option<Tensor>,
    /// A factor of each rank beside its gain, `[Σr]`.
    diagonal: Option<Tensor>,
    /// The column of each rank's gain, `[Σr]`; none where all are always there.
    columns: Option<Tensor>,
}

/// A change of full rank, `[out, in]` with its scale in it, and its gain.
struct Whole {
    weight: Matrix,
    block: Option<usize>,
}

/// What a forward pass makes of low-rank changes.
pub struct Passing<'a> {
    pub gains: &'a RowGains,
    pub dropout: Option<&'a Dropout>,
}

/// The gain of each block of changes: of all rows of a batch, `[1, 1 + blocks]`, or of each, `[batch, 1 + blocks]` (f32). The first column is that of
/// changes that are always there: 1. Nothing where there are no blocks.
#[derive(Default)]
pub struct RowGains(Option<Tensor>);

impl RowGains {
    /// From the gains that each row has of the blocks.
    pub fn of_rows(rows: &[&[f64]], device: Device) -> Result<Self> {
        let first = rows.first().copied().unwrap_or_default();
        let blocks = first.len();
        if let Some(odd) = rows.iter().find(|gains| gains.len() != blocks) {
            return Err(Error::invalid(format!("some rows of a batch have {blocks} gains and some {}", odd.len())));
        }
        if blocks == 0 {
            return Ok(Self::default());
        }
        let kept = if rows.iter().all(|gains| *gains == first) { &rows[..1] } else { rows };
        let all: Vec<f32> =
            kept.iter().flat_map(|gains| [1.0].into_iter().chain(gains.iter().map(|g| *g as f32))).collect();
        Ok(Self(Some(Tensor::f_from_slice(&all)?.f_view([-1, blocks as i64 + 1])?.f_to_device(device)?)))
    }

    pub fn blocks(&self) -> usize {
        self.0.as_ref().map_or(0, |gains| gains.size()[1] as usize - 1)
    }

    /// Of these rows, `[kept]` (i64).
    pub fn select(&self, rows: &Tensor) -> Result<Self> {
        self.of(|gains| gains.f_index_select(0, rows))
    }

    /// Of `count` rows from `start` on.
    pub fn part(&self, start: i64, count: i64) -> Result<Self> {
        self.of(|gains| gains.f_narrow(0, start, count))
    }

    fn of(&self, some: impl Fn(&Tensor) -> std::result::Result<Tensor, tch::TchError>) -> Result<Self> {
        let own = |gains: &Tensor| if gains.size()[0] == 1 { Ok(gains.shallow_clone()) } else { some(gains) };
        Ok(Self(self.0.as_ref().map(own).transpose()?))
    }

    /// The same.
    pub fn share(&self) -> Self {
        Self(self.0.as_ref().map(Tensor::shallow_clone))
    }

    /// Where there are blocks.
    fn all(&self) -> Result<&Tensor> {
        self.0.as_ref().ok_or_else(|| Error::invalid("a pass through changes that weights steer has no weights"))
    }

    /// Those of the blocks for each row, `[batch, blocks]`.
    pub fn shares(&self, batch: i64) -> Result<Tensor> {
        Ok(self.all()?.f_narrow(1, 1, self.blocks() as i64)?.f_expand([batch, -1], false)?)
    }

    /// `x`, `[batch, …, columns]`, times those of its columns; gains are not rounded to its type.
    fn times(&self, columns: &Tensor, x: &Tensor) -> Result<Tensor> {
        let some = self.all()?.f_index_select(1, columns)?;
        let mut shape = vec![1; x.dim()];
        (shape[0], shape[x.dim() - 1]) = some.size2()?;
        Ok(x.f_mul(&some.f_reshape(shape)?)?.f_to_kind(x.f_kind()?)?)
    }
}

/// Inputs that changes do not see, drawn anew for each matrix, and again the same where a layer is computed again.
pub struct Dropout {
    share: f64,
    seed: u64,
    passes: AtomicUsize,
    rng: Mutex<Rng>,
}

/// Where a block's gains stand.
fn column(block: Option<usize>) -> i64 {
    block.map_or(0, |block| block as i64 + 1)
}

impl Changes {
    /// Of a matrix of so many rows; nothing where there are none.
    pub fn of(changes: Vec<Change>, rows: i64) -> Result<Option<Self>> {
        let (low, full): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.a.is_some());
        let changes = Self { low_rank: LowRank::of(low, rows)?, whole: Whole::of(full, rows)? };
        Ok((changes.low_rank.is_some() || !changes.whole.is_empty()).then_some(changes))
    }

    /// `x` with what their second factors take behind it, where these lie behind the matrix itself.
    pub fn beside(&self, x: &Tensor, passing: &Passing) -> Result<Option<Tensor>> {
        self.low_rank.as_ref().filter(|low| low.b.is_none()).map(|low| low.beside(x, passing)).transpose()
    }

    /// Puts second factors behind the matrix, `[W | B]`, if it can be laid out so: one product then does both.
    pub fn join<T>(&mut self, matrix: &Tensor, lay_out: impl Fn(&Tensor) -> Result<Option<T>>) -> Result<Option<T>> {
        let Some(LowRank { b, .. }) = &mut self.low_rank else { return Ok(None) };
        let wanted = |b: &&Tensor| !b.requires_grad() && motrain_kernels::LaidOut::takes(b);
        let Some(own) = b.as_ref().filter(wanted) else { return Ok(None) };
        let joined = lay_out(&Tensor::f_cat(&[matrix, own], 1)?)?;
        if joined.is_some() {
            *b = None;
        }
        Ok(joined)
    }

    /// Adds to `out` what they make of `x`, `[batch, …, in]`.
    pub fn add_to(&self, mut out: Tensor, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        if let Some(low) = &self.low_rank
            && let Some(b) = &low.b
        {
            out = out.f_add(&low.gained(x, passing)?.f_linear(b, None::<&Tensor>)?)?;
        }
        self.whole.iter().try_fold(out, |out, whole| Ok(out.f_add(&whole.apply(x, passing)?)?))
    }

    /// Lays matrices out for products without gradients.
    pub fn lay_out(&mut self) -> Result<()> {
        let low = self.low_rank.iter_mut().map(|low| &mut low.a);
        low.chain(self.whole.iter_mut().map(|whole| &mut whole.weight)).try_for_each(Matrix::lay_out)
    }
}

impl Whole {
    /// One for each block: the changes of a matrix's parts become one of all its rows.
    fn of(changes: Vec<Change>, rows: i64) -> Result<Vec<Self>> {
        let mut all: Vec<(Tensor, Option<usize>)> = Vec::new();
        for Change { row, b, scale, block, .. } in changes {
            let scaled = if scale == 1.0 { b } else { b.f_mul_scalar(scale)? };
            let weight = scaled.f_constant_pad_nd([0, 0, row, rows - row - scaled.size()[0]])?;
            match all.iter_mut().find(|(_, own)| *own == block) {
                Some((sum, _)) => *sum = sum.f_add(&weight)?,
                None => all.push((weight, block)),
            }
        }
        Ok(all.into_iter().map(|(weight, block)| Self { weight: Matrix::Plain(weight), block }).collect())
    }

    fn apply(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let seen = passing.dropout.map_or_else(|| Ok(x.shallow_clone()), |dropout| dropout.apply(x))?;
        let out = self.weight.product(&seen, None)?;
        if self.block.is_none() {
            return Ok(out);
        }
        let own = Tensor::f_from_slice(&[column(self.block)])?.f_to_device(out.device())?;
        passing.gains.times(&own, &out)
    }
}

impl LowRank {
    fn of(changes: Vec<Change>, rows: i64) -> Result<Option<Self>> {
        let Some(device) = changes.first().map(|change| change.b.device()) else { return Ok(None) };
        let (mut a, mut b, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        let has_diagonal = changes.iter().any(|change| change.diagonal.is_some());
        let mut diagonals = Vec::new();
        for Change { row, a: own, b: change, scale, diagonal, block } in changes {
            let (height, rank) = change.size2()?;
            let scaled = if scale == 1.0 { change } else { change.f_mul_scalar(scale)? };
            b.push(scaled.f_constant_pad_nd([0, 0, row, rows - row - height])?);
            columns.extend(std::iter::repeat_n(column(block), rank as usize));
            if has_diagonal {
                let ones = || scaled.f_new_ones([1], (scaled.f_kind()?, device));
                diagonals.push(diagonal.map_or_else(ones, Ok)?.f_expand([rank], false)?);
            }
            a.extend(own);
        }
        let gained = columns.iter().any(|column| *column > 0);
        Ok(Some(Self {
            a: Matrix::Plain(Tensor::f_cat(&a, 0)?),
            own: a,
            b: Some(Tensor::f_cat(&b, 1)?),
            diagonal: has_diagonal.then(|| Tensor::f_cat(&diagonals, 0)).transpose()?,
            columns: gained.then(|| Tensor::f_from_slice(&columns)?.f_to_device(device)).transpose()?,
        }))
    }

    /// `g ⊙ Ax`.
    fn gained(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let inner = self.ungained(x, passing)?;
        match &self.columns {
            Some(columns) => passing.gains.times(columns, &inner),
            None => Ok(inner),
        }
    }

    /// The same behind `x`.
    fn beside(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let inner = self.ungained(x, passing)?;
        let gains = self.columns.as_ref().map(|columns| passing.gains.all().map(|gains| (gains, columns)));
        Ok(motrain_kernels::beside(x, &inner, gains.transpose()?)?)
    }

    fn ungained(&self, x: &Tensor, passing: &Passing) -> Result<Tensor> {
        let inner = match passing.dropout {
            None => self.a.product(x, None)?,
            // Each change drops inputs of its own, as in PEFT.
            Some(dropout) => {
                let own = self.own.iter().map(|a| Ok(dropout.apply(x)?.f_linear(a, None::<&Tensor>)?));
                Tensor::f_cat(&own.collect::<Result<Vec<_>>>()?, -1)?
            }
        };
        match &self.diagonal {
            Some(diagonal) => Ok(inner.f_mul(diagonal)?),
            None => Ok(inner),
        }
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use tch::Kind;

    /// 7 · 0.9 in bf16, and not 7 times what 0.9 is there: drawing and training then weigh alike.
    #[test]
    fn gains_are_not_rounded_to_the_type_of_computing() {
        let gains = RowGains::of_rows(&[&[0.9, 0.1]], Device::Cpu).unwrap();
        let (column, x) =
            (Tensor::from_slice(&[1i64]), Tensor::from_slice(&[7f32]).view([1, 1, 1]).to_kind(Kind::BFloat16));
        let product = gains.times(&column, &x).unwrap();
        assert_eq!((product.kind(), product.double_value(&[0, 0, 0])), (Kind::BFloat16, 6.3125));
    }
}
