//! Models on their way into memory.

use super::{F32, Machine, Part, Parts, Shaped};

/// The moments of `Model::load` and `Model::open` in numbers of so many bytes, which end as `part`. Files are mapped: a CPU's memory holds their pages,
/// and they are on no GPU.
pub fn opening(model: &Shaped, bytes: f64, part: Part, machine: Machine) -> Vec<Parts> {
    let own = Parts::default().with(part, bytes * model.numbers);
    // One tensor is converted at a time.
    let converted = if model.stored == bytes { 0.0 } else { model.stored * model.largest };
    let files = if machine.gpu { 0.0 } else { model.file + converted };
    // One matrix is changed at a time.
    let merging = model
        .adapter
        .filter(|_| !model.steered)
        .map(|adapter| own.clone().with(Part::Files, F32 * (adapter + model.largest)));
    std::iter::once(own.with(Part::Files, files)).chain(merging).collect()
}
