//! How easily a completion reads, as a motrain plugin: Flesch's reading ease (about 0 to 100, higher is easier) or the negated
//! Flesch–Kincaid grade, from words per sentence and syllables per word.

use motrain_plugin::toolbox::words;
use motrain_plugin::{Component, Reward, Sample};

motrain_plugin::options! {
    /// Options of `motrain.readability`.
    pub struct Options {
        /// "ease" (Flesch reading ease) or "grade" (the negated Flesch-Kincaid grade).
        measure: String = "ease".into(),
        /// Completions with fewer words get the score of an empty one: too little to judge.
        least_words: f64 = 3.0,
    }
}

struct Readability {
    grade: bool,
    least_words: f64,
}

impl Component for Readability {
    const NAME: &'static str = "motrain.readability";
    const SUMMARY: &'static str = "Flesch reading ease, or the negated Flesch-Kincaid grade";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        let grade = match options.measure.as_str() {
            "ease" => false,
            "grade" => true,
            other => return Err(format!("option \"measure\" must be ease or grade, not \"{other}\"")),
        };
        Ok(Self { grade, least_words: options.least_words })
    }
}

impl Reward for Readability {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
        Ok(samples.iter().map(|s| self.one(s.completion)).collect())
    }
}

/// What an empty completion gets: as hard as text can be.
const EMPTY_EASE: f64 = 0.0;
const EMPTY_GRADE: f64 = -18.0;

impl Readability {
    fn one(&self, text: &str) -> f64 {
        let words: Vec<&str> = words(text).collect();
        if (words.len() as f64) < self.least_words.max(1.0) {
            return if self.grade { EMPTY_GRADE } else { EMPTY_EASE };
        }
        let sentences =
            text.split(['.', '!', '?', '\n']).filter(|s| s.chars().any(char::is_alphanumeric)).count().max(1);
        let per_sentence = words.len() as f64 / sentences as f64;
        let per_word = words.iter().map(|w| syllables(w)).sum::<usize>() as f64 / words.len() as f64;
        if self.grade {
            (-(0.39 * per_sentence + 11.8 * per_word - 15.59)).max(EMPTY_GRADE)
        } else {
            (206.835 - 1.015 * per_sentence - 84.6 * per_word).max(EMPTY_EASE)
        }
    }
}

/// Groups of vowels, a silent final e not counted, at least one.
fn syllables(word: &str) -> usize {
    let letters: Vec<char> = word.to_lowercase().chars().collect();
    let vowel = |c: char| "aeiouyäöüéèê".contains(c);
    let groups = (0..letters.len()).filter(|&i| vowel(letters[i]) && (i == 0 || !vowel(letters[i - 1]))).count();
    let n = letters.len();
    let silent = n > 2 && letters[n - 1] == 'e' && !vowel(letters[n - 2]) && letters[n - 2] != 'l';
    (groups - usize::from(silent && groups > 1)).max(1)
}

motrain_plugin::export! { rewards: [Readability] }

#[cfg(test)]
mod tests {
    use super::*;

    fn ease(text: &str) -> f64 {
        Readability { grade: false, least_words: 3.0 }.one(text)
    }

    #[test]
    fn counts_syllables() {
        let counts = ["cat", "water", "make", "table", "beautiful", "strengths", "idea"].map(syllables);
        assert_eq!(counts, [1, 2, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn flesch_golden_values() {
        // 6 words, 1 sentence, 6 syllables: 206.835 − 1.015·6 − 84.6.
        assert!((ease("The cat sat on the mat.") - 116.145).abs() < 1e-9);
        let hard = "Multidimensional considerations necessitate sophisticated administrative coordination.";
        assert!(ease(hard) < 20.0);
        assert_eq!(ease(""), 0.0);
    }
}
