//! The plugins that this user has run, by hash: `--resume`, `generate` and `evaluate` load those again without being told, and no others
//! that only a run folder names.

use crate::locate;
use motrain_engine::plan::PluginFile;
use std::path::PathBuf;

/// One file per SHA-256, in the user's cache.
fn folder() -> Option<PathBuf> {
    Some(locate::cache()?.join("plugins"))
}

pub fn hashes() -> Vec<String> {
    let entries = folder().and_then(|f| std::fs::read_dir(f).ok());
    entries.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Remembers what a command of the user has loaded. Where that cannot be written, a resumed run has to be told.
pub fn remember(plugins: &[PluginFile]) {
    let Some(folder) = folder().filter(|_| !plugins.is_empty()) else { return };
    for plugin in plugins {
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(&plugin.sha256), format!("{}\n", plugin.path)));
        if let Err(e) = written {
            tracing::debug!("{}: {e}; --resume will ask for --plugin {}", folder.display(), plugin.path);
        }
    }
}
