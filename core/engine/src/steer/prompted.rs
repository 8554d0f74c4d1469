//! One policy that reads the weights in its prompt (MO-ODPO, P-MORL, Rewards-in-Context).

use super::{Loader, Route, Steer, Steerable};
use crate::decode::Decoder;
use crate::model::Net;
use crate::plan::ModelRef;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::Weights;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// One policy for all weights; or else `soup` or `policies`.
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

impl Steerable for Net {
    fn route(&self, _weights: &Weights) -> Result<Route> {
        Ok(Route::Same)
    }

    fn decoder(&self, routes: &[Route]) -> Result<Box<dyn Decoder + '_>> {
        match routes {
            [Route::Same, ..] => Ok(Box::new(self)),
            other => Err(Error::invalid(format!("one policy has no routes {other:?}"))),
        }
    }

    fn context(&self) -> i64 {
        self.config.shape.context
    }
}
