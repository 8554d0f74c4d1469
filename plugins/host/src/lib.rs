//! Third parties' components, loaded from shared libraries through `motrain-abi` into the same registry as the built-ins.
//!
//! A native plugin is trusted code: it runs inside motrain and can do whatever motrain can. What is checked before loading is whether the
//! user trusts it; all else guards against mistakes (another version, a missing symbol, writing beyond an array, a crash without a name).

mod adapters;
mod call;
pub mod check;
mod death;
mod describe;
mod host;
mod image;
mod inspect;
mod library;
mod needs;
mod reason;
mod room;
mod running;
mod turns;

pub use death::{Main, exit, raw_exit};
pub use library::{Asker, Described, Library, Permit, Request, open};
pub use running::{keep_note, set_time_limit};

use adapters::{PluginConditioner, PluginJudge, PluginLabel, PluginLoss, PluginReward, PluginSampler};
use call::Instance;
use motrain_core::error::{Error, Result};
use motrain_core::registry::{Kind, Registry};
use serde_json::Value;
use std::path::Path;

/// Loads a library and registers its components. A library that the registry already has is left as it is.
pub fn load(registry: &mut Registry, request: &Request, seed: u64) -> Result<&'static Library> {
    let library = open(request)?;
    if registry.plugins.iter().any(|p| p.path == library.file.path) {
        return Ok(library);
    }
    for component in &library.components {
        register(registry, component, seed)?;
    }
    registry.plugins.push(library.file.clone());
    Ok(library)
}

/// The SHA-256 of a library, by which a pin or a permit names it.
pub fn sha256(path: &Path) -> Result<String> {
    image::sha256(path, path)
}

fn register(registry: &mut Registry, c: &'static Described, seed: u64) -> Result<()> {
    // Each kind wraps an instance in its own adapter.
    macro_rules! add {
        ($section:ident, $adapter:ty) => {
            registry.$section.add(motrain_core::registry::Entry::dynamic(
                c.name.clone(),
                c.summary.clone(),
                c.schema.clone(),
                move |options: &Value| {
                    motrain_core::schema::check(&c.owner(), &c.schema, options)?;
                    Ok(Box::new(<$adapter>::new(Instance::create(c, options, seed)?)?) as _)
                },
            ))
        };
    }
    match c.kind {
        Kind::Sampler => add!(samplers, PluginSampler),
        Kind::Conditioner => add!(conditioners, PluginConditioner),
        Kind::Reward => add!(rewards, PluginReward),
        Kind::Label => add!(labels, PluginLabel),
        Kind::Loss => add!(losses, PluginLoss),
        Kind::Judge => add!(judges, PluginJudge),
        Kind::Advantage | Kind::Normaliser => {
            Err(Error::Invalid(format!("{}: components of this kind cannot be plugins", c.owner())))
        }
    }
}
