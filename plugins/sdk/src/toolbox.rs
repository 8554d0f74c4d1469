//! What components of many kinds need: numerically stable functions, words of a text, rounding of weights, and numbers from a seed.

/// `σ(x) = 1 / (1 + e^−x)`, in [0, 1] for every finite x.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log σ(x)` in nats, at most 0, without overflow or cancellation for every finite x.
pub fn log_sigmoid(x: f64) -> f64 {
    -((-x).max(0.0) + (-x.abs()).exp().ln_1p())
}

/// The words of a text: runs of letters, digits and apostrophes, in order.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty())
}

/// The nearest multiples of `1/parts` that add up to 1, by largest remainder; of equal remainders the first is raised. `weights` are at least 0
/// and add up to 1.
pub fn rounded(weights: &[f64], parts: u64) -> Vec<f64> {
    let parts = parts as f64;
    let mut whole: Vec<f64> = weights.iter().map(|w| (w * parts + 1e-9).floor()).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| (weights[b] * parts - whole[b]).total_cmp(&(weights[a] * parts - whole[a])));
    let missing = (parts - whole.iter().sum::<f64>()).round() as usize;
    for &i in order.iter().take(missing) {
        whole[i] += 1.0;
    }
    whole.iter().map(|w| w / parts).collect()
}

/// Numbers from a seed, the same on every machine: SplitMix64 (Steele, Lea and Flood 2014). A component that draws makes one from the seed of
/// the call, so that a resumed run draws what an uninterrupted one would have drawn.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logistic_function_neither_overflows_nor_cancels() {
        assert_eq!((sigmoid(0.0), sigmoid(800.0), sigmoid(-800.0)), (0.5, 1.0, 0.0));
        assert_eq!((log_sigmoid(800.0), log_sigmoid(-800.0)), (0.0, -800.0));
        assert!((log_sigmoid(0.7) + 0.403_186_048_885_457_9).abs() < 1e-15);
        assert!((log_sigmoid(40.0) + 4.248_354_255_291_589e-18).abs() < 1e-30, "e^−40 is not lost beside 1");
    }

    #[test]
    fn words_keep_their_apostrophes() {
        assert_eq!(words("I don't, 3 times – «né».").collect::<Vec<_>>(), ["I", "don't", "3", "times", "né"]);
        assert_eq!(words("… !").count(), 0);
    }

    #[test]
    fn rounded_weights_add_up() {
        assert_eq!(rounded(&[0.14, 0.86], 10), [0.1, 0.9]);
        assert_eq!(rounded(&[1.0 / 3.0; 3], 10), [0.4, 0.3, 0.3]);
        assert_eq!(rounded(&[0.3, 0.7], 10), [0.3, 0.7], "0.3 · 10 is a little less than 3 or more");
        assert_eq!(rounded(&[0.5, 0.25, 0.25], 2), [0.5, 0.5, 0.0]);
    }

    /// The first numbers of the reference implementation in C (S. Vigna) for the seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let found = [random.bits(), random.bits(), random.bits()];
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(Random::new(1_234_567).uniform(), (found[0] >> 11) as f64 / 9_007_199_254_740_992.0);
    }
}
