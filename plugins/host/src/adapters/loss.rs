//! Pairwise losses.

use super::{Function, function, optional};
use crate::call::Instance;
use crate::room::Room;
use motrain_abi as abi;
use motrain_core::error::Result;
use motrain_core::loss::{Other, PairBatch, PairLoss, PairwiseLoss};

pub struct PluginLoss {
    instance: Instance,
    evaluate: Function<abi::EvaluateLoss>,
    beta: f64,
    needs_other: bool,
}

impl PluginLoss {
    pub fn new(instance: Instance) -> Result<Self> {
        let evaluate = function!(instance, abi::LossFns, evaluate);
        let mut beta = 1.0;
        if let Some(read) = optional!(instance, abi::LossFns, beta) {
            instance.call_named("beta", |raw, _| {
                // SAFETY: the instance lives.
                beta = unsafe { read(raw) };
                abi::STATUS_OK
            })?;
        }
        if !beta.is_finite() {
            return Err(instance.failed(format!("its beta is {beta}; it must be a finite number")));
        }
        let needs_other = instance.component.flags & abi::FLAG_NEEDS_OTHER != 0;
        Ok(Self { instance, evaluate, beta, needs_other })
    }
}

impl PairwiseLoss for PluginLoss {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let n = pairs.len();
        let other = pairs.other.as_ref().filter(|_| self.needs_other);
        let told = |pick: fn(&Other) -> &Vec<f64>| other.map_or(std::ptr::null(), |other| pick(other).as_ptr());
        let mut by_other = other.map(|_| [Room::new(n), Room::new(n)]);
        let [d_other_first, d_other_second] =
            by_other.as_mut().map_or([std::ptr::null_mut(); 2], |rooms| rooms.each_mut().map(Room::as_mut_ptr));
        let given = abi::Pairs {
            struct_size: size_of::<abi::Pairs>(),
            count: n,
            objectives: pairs.weights.len() / n.max(1),
            policy_first: pairs.policy_first.as_ptr(),
            policy_second: pairs.policy_second.as_ptr(),
            reference_first: pairs.reference_first.as_ptr(),
            reference_second: pairs.reference_second.as_ptr(),
            tokens_first: pairs.tokens_first.as_ptr(),
            tokens_second: pairs.tokens_second.as_ptr(),
            label: pairs.label.as_ptr(),
            weights: pairs.weights.as_ptr(),
            margins: pairs.margins.as_ptr(),
            other_policy_first: told(|other| &other.policy_first),
            other_policy_second: told(|other| &other.policy_second),
            other_reference_first: told(|other| &other.reference_first),
            other_reference_second: told(|other| &other.reference_second),
            d_other_first,
            d_other_second,
        };
        let (mut loss, mut first, mut second) = (Room::new(n), Room::new(n), Room::new(n));
        let out = (loss.as_mut_ptr(), first.as_mut_ptr(), second.as_mut_ptr());
        // SAFETY: the arrays have the sizes that `Pairs` states, and there is room for `n` results each.
        self.instance.call_named("evaluate", |instance, error| unsafe {
            (self.evaluate)(instance, &given, out.0, out.1, out.2, error)
        })?;
        let results = |what: &str, room: Room<f64>| {
            let values = room.take().map_err(|wrong| self.instance.failed(format!("{what}: {wrong}")))?;
            // Training computes with f32.
            match values.iter().position(|v| !(*v as f32).is_finite()) {
                Some(at) => Err(self.instance.failed(format!(
                    "gave the {what} {:?} for pair {} of {n}; it must be a finite number",
                    values[at],
                    at + 1
                ))),
                None => Ok(values),
            }
        };
        let mut out = PairLoss {
            loss: results("loss", loss)?,
            d_first: results("derivative d_first", first)?,
            d_second: results("derivative d_second", second)?,
            ..PairLoss::default()
        };
        if let Some([first, second]) = by_other {
            out.d_other_first = results("derivative d_other_first", first)?;
            out.d_other_second = results("derivative d_other_second", second)?;
        }
        Ok(out)
    }

    fn needs_other(&self) -> bool {
        self.needs_other
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
