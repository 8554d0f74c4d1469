//! Whether an adapter is trained, and which.

use crate::options::Checked;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A low-rank adapter (Hu et al. 2021) that alone is trained: `y = Wx + s·B(Ax)`, s = alpha/r, or alpha/√r (rsLoRA). Names as PEFT's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// The rank of each matrix's change.
    #[schemars(range(min = 1, max = 65_536))]
    pub r: i64,
    /// What the change is multiplied by, times r (or √r).
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// The share of a matrix's inputs that its change does not see in a training step.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Which matrices: `"all-linear"`, ends of their names in the checkpoint (`["q_proj", "v_proj"]`), or a pattern of whole names; `"lm_head"` (the
    /// family's name of it) is the output head. `[]` is none, where soft tokens train alone.
    pub targets: Targets,
    /// Changes that are whole matrices, of the rank that a matrix has: `r`, `alpha` and `rslora` do not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Divide alpha by √r (Kalajdzievski 2023).
    pub rslora: bool,
    /// Save the whole model, with the change in it, instead of a PEFT folder.
    pub merge: bool,
    /// What a query's objective weights do to the change, in stages that sample weights: nothing ("none"); "copies" (CLP): a change per objective,
    /// each times its weight; "diagonal" (Panacea): a shared change whose singular values are learnt, and a rank per objective whose value is its
    /// weight times a learnt scale.
    #[serde(skip_serializing_if = "Gains::is_none")]
    pub gains: Gains,
    /// Learned embeddings before every prompt (prompt tuning; Lester et al. 2021): so many tokens for each objective, of which a query sees the mean
    /// by its weights. They take so many positions of the context.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(max = 4096))]
    pub soft_tokens: usize,
}

fn is_zero(tokens: &usize) -> bool {
    *tokens == 0
}

/// How objective weights enter an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a comment on a variant would split the schema, and the messages made from it")]
pub enum Gains {
    #[default]
    None,
    Copies,
    Diagonal,
}

impl Gains {
    /// Whether they do not.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Lora {
    /// Whether a query's objective weights steer what is trained.
    pub fn is_steered(&self) -> bool {
        !self.gains.is_none() || self.soft_tokens > 0
    }

    /// What is wrong with it in a stage that samples no weights, or with its own options.
    pub fn check(&self, samples_weights: bool) -> Checked {
        let wrong = |what: &str| Err(("lora", what.to_owned()));
        let none = matches!(&self.targets, Targets::Ends(ends) if ends.is_empty());
        if none && self.soft_tokens == 0 {
            return wrong(
                "has no targets, so nothing is trained; name matrices, such as \"all-linear\", or give soft_tokens",
            );
        }
        if none && (self.full || self.dropout > 0.0) {
            return wrong(
                "has no targets, and full or dropout, which are of changes of matrices; name matrices, or leave them out",
            );
        }
        if none && !self.gains.is_none() {
            return wrong(
                "has gains and no targets, so that there is nothing to gain; name matrices, or leave `gains` out",
            );
        }
        if self.full && self.gains == Gains::Diagonal {
            return wrong(
                "has gains = \"diagonal\", which are singular values, and full = true, where there are none; leave one of them out",
            );
        }
        if !self.is_steered() {
            return Ok(());
        }
        let own = if self.gains.is_none() { "soft_tokens" } else { "gains" };
        if !samples_weights {
            return wrong(&format!(
                "has {own}, which follow a query's objective weights, and this stage samples none; leave `{own}` out"
            ));
        }
        if self.merge {
            return wrong(&format!(
                "has {own} and merge = true, but no one model holds what answers at all weights; leave one of them out"
            ));
        }
        Ok(())
    }
}

/// Matrices by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// `"all-linear"`, or a pattern of whole names.
    All(#[schemars(length(min = 1, max = 4096))] String),
    /// Ends of names.
    Ends(#[schemars(length(max = 1000), inner(length(min = 1, max = 4096)))] Vec<String>),
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Targets::All("all-linear".into()),
            rslora: false,
            full: false,
            merge: false,
            gains: Gains::None,
            soft_tokens: 0,
        }
    }
}

/// `false` for full training, `true` for an adapter with defaults, or an adapter's options.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LoraChoice {
    /// Whether an adapter is trained.
    Whether(bool),
    /// An adapter.
    With(Lora),
}

/// Reads whether, and how, an adapter is trained.
pub fn lora<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lora>, D::Error> {
    Ok(match LoraChoice::deserialize(from)? {
        LoraChoice::Whether(on) => on.then(Lora::default),
        LoraChoice::With(lora) => Some(lora),
    })
}
