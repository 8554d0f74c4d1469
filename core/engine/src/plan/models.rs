//! The models that a plan reads, looked at before any work: all that their folders say without their weights being loaded. What is wrong with
//! one would otherwise end a run at the stage that reads it, hours later.

use super::{ModelRef, Plan, Stage};
use crate::model::tokenizer_folder;
use crate::model::{Adapter, Config, GAINS_BEGIN, Trained, check_stored};
use crate::stage::Trains;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::path::Path;

impl Plan {
    /// What is wrong with the models of those stages that are `meant`, a line each. Folders that are not there are left to `missing_inputs`, those
    /// of plugins to the plugins.
    pub fn unfit_models(&self, meant: impl Fn(&Stage) -> bool) -> Vec<String> {
        let (mut lines, mut seen) = (Vec::new(), Vec::new());
        for (at, stage) in self.stages.iter().enumerate().filter(|(_, stage)| meant(stage)) {
            let base = stage.work.common_base();
            let mut faults = Vec::new();
            for path in stage.folders(&[]) {
                // What is said of a model once need not be said for every stage that reads it.
                let key = (path.clone(), base.cloned());
                if is_model(Path::new(&path)) && !seen.contains(&key) {
                    let stays = stage.work.adapters_stay() && is_adapter(Path::new(&path));
                    let fits =
                        if stays { fits_beside(Path::new(&path)) } else { self.fits(at, Path::new(&path), base) };
                    faults.extend(fits.err());
                    seen.push(key);
                }
            }
            faults.extend(self.adapts(at, stage).err());
            faults.extend(same_tokens(stage).err());
            lines.extend(faults.into_iter().map(|e| format!("stage \"{}\": {e}", stage.id)));
        }
        lines
    }

    /// Whether a folder can be read; an adapter as a part of the common base, if there is one.
    fn fits(&self, at: usize, folder: &Path, base: Option<&ModelRef>) -> Result<()> {
        if is_adapter(folder)
            && let Some(base) = base
        {
            // The shapes of a base that a stage makes are those of what the stage began with.
            let adapter = Adapter::outline(folder)?;
            adapter.is_of_weights()?;
            return self.config(at, base).map_or(Ok(()), |base| adapter.check(&base));
        }
        let config = Config::of(folder)?;
        check_stored(&if is_adapter(folder) { Adapter::base_in(folder)? } else { folder.to_owned() })?;
        Tokenizer::load(&tokenizer_folder(folder)?, &config).map(|_| ())
    }

    /// Whether the adapter that a stage trains changes anything of its model.
    fn adapts(&self, at: usize, stage: &Stage) -> Result<()> {
        let Some(Trains { model, lora: Some(lora), .. }) = stage.work.trains() else { return Ok(()) };
        let start = model.path().map(Path::new).filter(|folder| is_adapter(folder));
        if lora.is_steered() && (start.is_some() || self.is_made_as_adapter(at, model)) {
            return Err(Error::invalid(GAINS_BEGIN));
        }
        if let Some(Ok(start)) = start.map(Adapter::outline) {
            start.can_go_on()?;
        }
        self.config(at, model).map_or(Ok(()), |config| Trained::adapter(lora, &config).map(|_| ()))
    }

    /// Whether a stage before `at` saves the model as an adapter.
    fn is_made_as_adapter(&self, at: usize, model: &ModelRef) -> bool {
        let ModelRef::Stage { stage, .. } = model else { return false };
        let made = self.stages[..at].iter().find(|earlier| earlier.id == *stage);
        made.and_then(|made| made.work.trains()?.lora.map(|lora| !lora.merge)).unwrap_or(false)
    }

    /// The configuration of a model, or of that which the stages before `at` made it of, if it can be read.
    fn config(&self, at: usize, model: &ModelRef) -> Option<Config> {
        match model {
            ModelRef::Path(path) => Config::of(Path::new(path)).ok(),
            ModelRef::Stage { stage, .. } => {
                let at = self.stages[..at].iter().position(|earlier| earlier.id == *stage)?;
                let work = &self.stages[at].work;
                let from = work.trains().map(|trains| trains.model).or_else(|| work.common_base())?;
                self.config(at, from)
            }
        }
    }
}

/// Whether the models of a stage that must have the same tokens do, as far as they are there.
fn same_tokens(stage: &Stage) -> Result<()> {
    let folders = stage.work.same_tokens().into_iter().filter_map(ModelRef::path);
    let tokenizer =
        |folder: &str| Tokenizer::load(&tokenizer_folder(Path::new(folder))?, &Config::of(Path::new(folder))?);
    let there: Vec<_> = folders.filter_map(|folder| Some((folder.to_owned(), tokenizer(folder).ok()?))).collect();
    if there.is_empty() { Ok(()) } else { Tokenizer::common(there).map(|_| ()) }
}

/// Whether an adapter fits its base, and that can be read.
fn fits_beside(folder: &Path) -> Result<()> {
    let (adapter, base) = (Adapter::outline(folder)?, Adapter::base_in(folder)?);
    let config = Config::load(&base)?;
    adapter.check_beside(&config)?;
    check_stored(&base)?;
    Tokenizer::load(&tokenizer_folder(folder)?, &config).map(|_| ())
}

fn is_model(folder: &Path) -> bool {
    Adapter::is_one(folder) || folder.join("config.json").is_file()
}

fn is_adapter(folder: &Path) -> bool {
    Adapter::is_one(folder) && !folder.join("config.json").is_file()
}
