//! Metrics of fronts and of steering; definitions as in the literature that each function names.

pub mod front;
pub mod report;
pub mod stats;
