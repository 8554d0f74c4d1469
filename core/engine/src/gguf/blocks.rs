//! The types that a GGUF file stores tensors in.

use half::{bf16, f16};

/// Values and bytes per block.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        8 => (32, 34),
        28 => (1, 8),
        _ => return None,
    })
}

/// Names of types that are often met and not read.
const OTHERS: [(u32, &str); 18] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (39, "MXFP4"),
];

/// Bytes of a tensor; `sizes` begins with the length of a row.
pub fn bytes(kind: u32, sizes: &[u64]) -> Result<usize, String> {
    let Some((values, bytes)) = block(kind) else {
        let name = OTHERS.iter().find(|(k, _)| *k == kind).map_or(format!("number {kind}"), |(_, name)| (*name).into());
        return Err(format!(
            "has type {name}; F32, F16, BF16, F64, Q8_0, Q4_0 and Q4_1 are known; turn the file into one of them with llama.cpp: \
             llama-quantize --allow-requantize IN.gguf OUT.gguf F16"
        ));
    };
    if sizes.contains(&0) {
        return Err(format!("has no values: its shape is {sizes:?}"));
    }
    let row = sizes.first().copied().unwrap_or(1);
    if !row.is_multiple_of(values) {
        return Err(format!("has rows of {row} values, no multiple of {values}"));
    }
    let blocks = sizes.iter().skip(1).try_fold(row / values, |n, &size| n.checked_mul(size));
    let total = blocks.and_then(|n| n.checked_mul(bytes)).and_then(|n| isize::try_from(n).ok());
    // A tensor of f32 must be addressable, too.
    let wide = blocks.and_then(|n| n.checked_mul(values * 4)).and_then(|n| isize::try_from(n).ok());
    match (total, wide) {
        (Some(total), Some(_)) => Ok(total as usize),
        _ => Err(format!("needs more than any file can hold: its shape is {sizes:?}")),
    }
}

/// The values of whole blocks.
pub fn dequantise(kind: u32, raw: &[u8]) -> Vec<f32> {
    let (values, bytes) = block(kind).unwrap_or((0, 1));
    let mut out = Vec::with_capacity(raw.len() / bytes as usize * values as usize);
    let half_at = |block: &[u8], i: usize| f16::from_le_bytes([block[i], block[i + 1]]).to_f32();
    // Low nibbles hold a block's first half, high nibbles its second.
    let nibbles = |block: &[u8], out: &mut Vec<f32>, value: &dyn Fn(u8) -> f32| {
        out.extend(block.iter().map(|b| value(b & 15)));
        out.extend(block.iter().map(|b| value(b >> 4)));
    };
    match kind {
        0 => out.extend(raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        1 => out.extend(raw.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
        28 => out.extend(raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
        30 => out.extend(raw.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
        2 => {
            for block in raw.chunks_exact(18) {
                let scale = half_at(block, 0);
                nibbles(&block[2..], &mut out, &|q| (f32::from(q) - 8.0) * scale);
            }
        }
        3 => {
            for block in raw.chunks_exact(20) {
                let (scale, low) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[4..], &mut out, &|q| f32::from(q) * scale + low);
            }
        }
        _ => {
            for block in raw.chunks_exact(34) {
                let scale = half_at(block, 0);
                out.extend(block[2..].iter().map(|&q| f32::from(q as i8) * scale));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let mut q8 = vec![0u8; 34];
        q8[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        q8[2] = 0xff;
        q8[33] = 4;
        let values = dequantise(8, &q8);
        assert_eq!((values[0], values[31]), (-0.5, 2.0));
        let mut q4 = vec![0u8; 20];
        q4[..2].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        q4[2..4].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
        q4[4] = 0x31;
        let values = dequantise(3, &q4);
        assert_eq!((values[0], values[16], values[1]), (3.0, 7.0, 1.0));
        assert_eq!(dequantise(28, &(-2.5f64).to_le_bytes()), [-2.5]);
    }
}
