//! Numbers that are not finite stop where they first appear.

use crate::Result;
use tch::{Kind, Tensor, no_grad};

/// What of a tensor is not finite: how many values, and the first of them. `None` where all are finite.
pub fn not_finite(tensor: &Tensor) -> Result<Option<String>> {
    no_grad(|| {
        if all_finite(&[tensor])? {
            return Ok(None);
        }
        let flat = tensor.f_detach()?.f_reshape([-1])?;
        let bad = flat.f_isfinite()?.f_logical_not()?.f_to_kind(Kind::Int64)?;
        let count = bad.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        let first = bad.f_argmax(0, false)?.f_int64_value(&[])?;
        let value = flat.f_double_value(&[first])?;
        let total = flat.numel();
        Ok(Some(format!(
            "{count} of {total} values are not finite; the first is {value} at {:?}",
            index(tensor, first)
        )))
    })
}

/// Whether all floats of all tensors are finite: one pass over each, and one answer from the device.
pub fn all_finite(tensors: &[&Tensor]) -> Result<bool> {
    no_grad(|| {
        let mut ends = Vec::new();
        for tensor in tensors.iter().filter(|t| t.numel() > 0) {
            if !tensor.f_is_floating_point()? {
                continue;
            }
            // NaN is both the least and the greatest.
            let (low, high) = tensor.f_detach()?.f_aminmax(None::<i64>, false)?;
            ends.extend([low.f_to_kind(Kind::Double)?, high.f_to_kind(Kind::Double)?]);
        }
        if ends.is_empty() {
            return Ok(true);
        }
        Ok(Tensor::f_stack(&ends, 0)?.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1)
    })
}

/// The place of a flat index.
fn index(tensor: &Tensor, flat: i64) -> Vec<i64> {
    let mut rest = flat;
    let mut place: Vec<i64> = tensor
        .size()
        .iter()
        .rev()
        .map(|size| {
            let at = rest % size;
            rest /= size;
            at
        })
        .collect();
    place.reverse();
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_first_place_is_named() {
        let t = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        assert_eq!(not_finite(&t).unwrap(), None);
        let _ = t.narrow(0, 1, 1).narrow(1, 2, 2).fill_(f64::NAN);
        let _ = t.narrow(0, 2, 1).fill_(f64::NEG_INFINITY);
        let said = not_finite(&t).unwrap().unwrap();
        assert_eq!(said, "6 of 12 values are not finite; the first is NaN at [1, 2]");
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let one = Tensor::from_slice(&[0.0, odd, 1.0]);
            assert!(!all_finite(&[&t.zeros_like(), &one]).unwrap(), "{odd}");
        }
        assert!(all_finite(&[&Tensor::from_slice(&[i64::MAX]), &Tensor::from_slice::<f32>(&[])]).unwrap());
    }
}
