//! Where the time goes, for `--profile`: a trace that Chrome (chrome://tracing) and ui.perfetto.dev show.

use anyhow::{Context, Result};
use motrain_engine::PROFILE;
use std::fs::File;
use std::path::Path;
use tracing::Subscriber;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Writes the parts of the work to `file` until the guard is dropped.
pub fn layer<S>(file: &Path) -> Result<(impl Layer<S>, FlushGuard)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let to = File::create(file).with_context(|| format!("cannot write the profile {}", file.display()))?;
    let (layer, guard) = ChromeLayerBuilder::new().writer(to).include_args(true).include_locations(false).build();
    Ok((layer.with_filter(filter_fn(|about| about.target() == PROFILE)), guard))
}
