//! Write rewards, weight samplers, conditioners, label rules, pairwise losses and judges for motrain: a struct, a trait, `export!`.
//!
//! ```
//! use motrain_plugin::{Component, Reward, Sample};
//!
//! motrain_plugin::options! {
//!     /// Options of `acme.exclaim`.
//!     pub struct Options {
//!         /// The most exclamation marks that count.
//!         most: f64 = 3.0,
//!     }
//! }
//!
//! struct Exclaim(Options);
//!
//! impl Component for Exclaim {
//!     const NAME: &'static str = "acme.exclaim";
//!     const SUMMARY: &'static str = "exclamation marks in the completion";
//!     type Options = Options;
//!     fn create(options: Options, _seed: u64) -> Result<Self, String> {
//!         if options.most < 1.0 { Err("option \"most\" must be at least 1".into()) } else { Ok(Self(options)) }
//!     }
//! }
//!
//! impl Reward for Exclaim {
//!     fn score(&self, samples: &[Sample]) -> Result<Vec<f64>, String> {
//!         Ok(samples.iter().map(|s| (s.completion.matches('!').count() as f64).min(self.0.most)).collect())
//!     }
//! }
//!
//! motrain_plugin::export! { rewards: [Exclaim] }
//! # fn main() {}
//! ```
//!
//! Built with `crate-type = ["cdylib"]`, the library loads into any motrain 1.x. Nothing here needs libtorch. A panic in a
//! component becomes an error that names it; `panic = "abort"` is refused because it would take motrain down.

#![warn(missing_docs)]

#[cfg(panic = "abort")]
compile_error!("a motrain plugin must unwind: remove panic = \"abort\" from the profile");

#[doc(hidden)]
pub mod call;
mod components;
#[doc(hidden)]
pub mod export;
pub mod toolbox;

pub use components::{
    Component, Conditioner, Duel, FrontPoint, Judge, LabelRule, Loss, Message, Other, Pair, PairLoss, PartialReward,
    Reward, Sample, Sampler, Turn, Verdict, user_turn,
};
pub use motrain_abi as abi;
#[doc(hidden)]
pub use schemars;
#[doc(hidden)]
pub use serde;

/// Declares a component's options with their defaults; comments become the descriptions in `motrain list`.
#[macro_export]
macro_rules! options {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty = $default:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, $crate::serde::Deserialize, $crate::schemars::JsonSchema)]
        #[serde(crate = "motrain_plugin::serde", default, deny_unknown_fields)]
        #[schemars(crate = "motrain_plugin::schemars")]
        $vis struct $name { $($(#[$field_meta])* pub $field: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }
    };
}

/// Exports components by kind: `export! { rewards: [A, B], losses: [C] }` with `samplers`, `conditioners`, `rewards`, `labels`,
/// `losses` and `judges`.
#[macro_export]
macro_rules! export {
    ($($kind:ident : [$($component:ty),* $(,)?]),* $(,)?) => {
        /// The plugin's description, read by motrain.
        #[unsafe(no_mangle)]
        pub extern "C" fn motrain_plugin_v1() -> *const $crate::abi::Plugin {
            static PLUGIN: std::sync::OnceLock<$crate::export::Exported> = std::sync::OnceLock::new();
            $crate::export::plugin(&PLUGIN, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), || {
                vec![$($($crate::export::$kind::<$component>()),*),*]
            })
        }
    };
}
