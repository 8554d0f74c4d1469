//! Stages: one a file, its options first, then its work, readable top-down.

mod ai_feedback;
mod asked;
pub mod best_of_n;
pub mod ceiling;
pub mod compare;
pub mod drift;
pub mod evaluate;
pub mod experience;
pub mod front;
pub mod init_model;
mod labelled;
pub mod online;
pub mod online_preference;
mod planned;
pub mod preference;
pub mod preference_data;
pub mod ratings;
pub mod reinforce;
pub mod reward_model;
pub mod rewards;
pub mod ric_data;
mod rows;
mod scored;
pub mod sft;
pub mod soup;
mod step_report;
mod work;

pub use planned::{Stage, objectives};
pub use work::{AnyWork, Makes, Ref, StageKind, Trains, Work};

/// Every kind of stage.
pub const STAGES: &[StageKind] = &[
    StageKind::of::<init_model::InitModel>(),
    StageKind::of::<sft::Sft>(),
    StageKind::of::<reward_model::RewardModel>(),
    StageKind::of::<rewards::Rewards>(),
    StageKind::of::<best_of_n::BestOfN>(),
    StageKind::of::<ric_data::RicData>(),
    StageKind::of::<ratings::Ratings>(),
    StageKind::of::<preference_data::PreferenceData>(),
    StageKind::of::<preference::Preference>(),
    StageKind::of::<online_preference::OnlinePreference>(),
    StageKind::of::<reinforce::Reinforce>(),
    StageKind::of::<soup::Soup>(),
    StageKind::of::<evaluate::Evaluate>(),
    StageKind::of::<ceiling::Ceiling>(),
    StageKind::of::<compare::Compare>(),
];

/// Revision of what all stages share: models, sampling, scoring, optimisers. Raised, as a stage's own, when results change: what an
/// earlier motrain finished is then no result of this one, and is made anew.
pub const SHARED: u32 = 7;

/// Plain text of a number for progress messages.
pub fn short(value: f64) -> String {
    format!("{value:.3}")
}
