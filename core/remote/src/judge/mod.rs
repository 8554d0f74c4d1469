//! Judges that are language models on a server.

pub mod chat;
mod verdict;
