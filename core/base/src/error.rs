//! Errors that say what, where, and how to mend it.

use std::path::{Path, PathBuf};

/// Of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, each with what is needed to say where.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the variants and their fields are")]
pub enum Error {
    #[error("{kind} \"{name}\" does not exist{suggestion}; `motrain list {kind}` shows what does")]
    UnknownComponent { kind: String, name: String, suggestion: String },
    #[error("{owner} has no option \"{option}\"{suggestion}")]
    UnknownOption { owner: String, option: String, suggestion: String },
    #[error("{owner}: option \"{option}\" {what}")]
    BadOption { owner: String, option: String, what: String },
    #[error("{owner}: {what}")]
    BadOptions { owner: String, what: String },
    #[error("{owner}: {what}")]
    Component { owner: String, what: String },
    #[error("weights {weights}: {what}")]
    BadWeights { weights: String, what: String },
    #[error("{path}:{line}: {what}")]
    Data { path: PathBuf, line: usize, what: String },
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("{path}: {what}")]
    NotAllowed { path: PathBuf, what: String },
    #[error("reward \"{reward}\" {what}\n  prompt:     {prompt}\n  completion: {completion}")]
    Reward { reward: String, what: String, prompt: String, completion: String },
    #[error("reward \"{reward}\" {what}")]
    RewardSource { reward: String, what: String },
    #[error("{0}")]
    Invalid(String),
    /// It was asked to stop; what was begun is given up.
    #[error("stopped by a signal")]
    Stopped,
    /// Everything that is wrong with one thing, a line each.
    #[error("{}", .0.iter().map(Error::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl Error {
    /// What the operating system says of a file.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), source }
    }

    /// `Ok` for no faults, the fault itself for one.
    pub fn all(mut faults: Vec<Error>) -> Result<()> {
        match faults.len() {
            0 => Ok(()),
            1 => Err(faults.remove(0)),
            _ => Err(Error::Several(faults)),
        }
    }

    /// What is wrong with a file, beginning as the rest of a sentence about it.
    pub fn file(path: &Path, what: impl Into<String>) -> Self {
        Error::File { path: path.to_owned(), what: what.into() }
    }
}

/// `; did you mean "beta"?` for the nearest candidate, or nothing where none is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(name, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.len() / 3)
        .min()
        .map(|(_, c)| format!("; did you mean \"{c}\"?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(did_you_mean("betta", ["alpha", "beta"]), "; did you mean \"beta\"?");
        assert_eq!(did_you_mean("zzz", ["alpha", "beta"]), "");
    }
}
