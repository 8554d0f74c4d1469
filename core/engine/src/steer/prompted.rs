//! One policy that reads the weights in its prompt (MO-ODPO, P-MORL, Rewards-in-Context).

use super::{Loader, Steer, Steerable};
use crate::Result;
use crate::tokenizer::Tokenizer;
use motrain_core::plan::ModelRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// One policy for all weights; or else `soup`, `blend`, `gains` or `policies`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Prompted(pub ModelRef);

impl Steer for Prompted {
    const NAME: &'static str = "prompted";
    const OPTION: &'static str = "policy";

    fn models(&mut self) -> Vec<(String, &mut ModelRef)> {
        vec![(".".into(), &mut self.0)]
    }

    fn load(&self, from: &Loader) -> Result<(Box<dyn Steerable>, Tokenizer)> {
        let (policy, tokenizer) = from.load_still(&self.0)?;
        Ok((Box::new(no_grad(|| policy.net(from.dtype))?), tokenizer))
    }
}
