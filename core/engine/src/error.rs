//! Errors of the engine; those of the core pass through.

use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Core(motrain_core::Error),
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("{0}")]
    Invalid(String),
    /// A signal asked to stop; what was begun is given up.
    #[error("stopped by a signal")]
    Stopped,
    #[error("stopped by a signal in stage \"{stage}\"{kept}; to go on: motrain --resume {run}")]
    Interrupted { stage: String, kept: String, run: PathBuf },
}

/// libtorch appends a C++ backtrace to its messages.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl From<motrain_core::Error> for Error {
    fn from(error: motrain_core::Error) -> Self {
        match error {
            motrain_core::Error::Stopped => Error::Stopped,
            error => Error::Core(error),
        }
    }
}

impl Error {
    /// The same, of the row at `place`.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Error::Stopped => Error::Stopped,
            error => Error::Invalid(format!("{place}: {error}")),
        }
    }

    pub fn file(path: &Path, what: impl Into<String>) -> Self {
        Error::File { path: path.to_owned(), what: what.into() }
    }

    pub fn io(path: &Path, source: std::io::Error) -> Self {
        motrain_core::Error::io(path, source).into()
    }

    pub fn invalid(what: impl Into<String>) -> Self {
        Error::Invalid(what.into())
    }
}

/// An error once a signal has asked to stop. Loops that take long ask at each turn.
pub fn obey() -> Result<()> {
    Ok(motrain_core::stop::obey()?)
}
