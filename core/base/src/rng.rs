//! Randomness without state: every draw has its own generator, seeded by what it is for, so that a resumed run
//! repeats exactly what an uninterrupted one would have drawn.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The generator of every draw.
pub type Rng = ChaCha8Rng;

/// A seed for one purpose: `sub_seed(seed, "stage/component", step)`.
pub fn sub_seed(seed: u64, purpose: &str, index: u64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update((purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update(index.to_le_bytes());
    let digest = hasher.finalize();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// The generator for one purpose.
pub fn rng(seed: u64, purpose: &str, index: u64) -> Rng {
    Rng::seed_from_u64(sub_seed(seed, purpose, index))
}

/// A permutation of `0..n`: the order of one epoch.
pub fn permutation(n: usize, seed: u64, purpose: &str, epoch: u64) -> Vec<usize> {
    use rand::seq::SliceRandom;
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut rng(seed, purpose, epoch));
    order
}

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_do_not_collide() {
        assert_ne!(sub_seed(1, "a", 0), sub_seed(1, "a", 1));
        assert_ne!(sub_seed(1, "a", 0), sub_seed(1, "b", 0));
        assert_ne!(sub_seed(1, "a", 0), sub_seed(2, "a", 0));
        assert_eq!(permutation(5, 3, "x", 1), permutation(5, 3, "x", 1));
    }
}
