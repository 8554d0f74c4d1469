//! What the stages of a plan take of memory, before any of them has run.

use super::Plan;
use crate::memory::{Estimate, Known, Machine};
use crate::{Error, Result, device};
use motrain_core::registry::Registry;
use tch::{Device, Kind};

impl Plan {
    /// The memory of the machine, or of its GPU, that each stage takes at its fullest.
    pub fn memory(&self, registry: &Registry) -> Result<Vec<Estimate>> {
        let machine = self.machine()?;
        let mut known = Known::new(self, registry, machine);
        let mut out = Vec::new();
        for stage in &self.stages {
            let at = |e: Error| Error::invalid(format!("stage \"{}\": {e}", stage.id));
            let footprint = stage.work.footprint(&known).map_err(at)?;
            known.learn(&stage.id, &footprint);
            out.push(Estimate::of(&stage.id, footprint, machine));
        }
        Ok(out)
    }

    /// Where it is computed, whether or not that device is here.
    pub fn machine(&self) -> Result<Machine> {
        let gpu = self.device != "cpu";
        let dtype = device::dtype(&self.dtype, if gpu { Device::Cuda(0) } else { Device::Cpu })?;
        Ok(Machine { gpu, bytes: if dtype == Kind::Float { 4.0 } else { 2.0 } })
    }
}
