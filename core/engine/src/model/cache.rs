//! Keys and values of earlier tokens.

use super::net::Net;
use crate::Result;
use tch::{Device, Kind, Tensor};

/// Keys and values, `[batch, kv_heads, capacity, head_dim]` a layer.
pub struct Cache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// The position of each slot, `[batch, capacity]`, for layers that see a window.
    positions: Tensor,
    /// Slots filled so far.
    pub length: i64,
}

impl Cache {
    pub(super) fn new(net: &Net, batch: i64, capacity: i64) -> Result<Self> {
        let (shape, device) = (&net.config.shape, net.device());
        let make = || Tensor::f_zeros([batch, shape.kv_heads, capacity, shape.head_dim], (net.dtype(), device));
        let keys = shape.layers.iter().map(|_| make()).collect::<std::result::Result<_, _>>()?;
        let values = shape.layers.iter().map(|_| make()).collect::<std::result::Result<_, _>>()?;
        Ok(Self { keys, values, positions: positions(batch, capacity, device)?, length: 0 })
    }

    /// Keeps only these rows of the batch (repeats allowed), with room for `capacity` positions.
    pub fn select(&self, rows: &Tensor, capacity: i64) -> Result<Self> {
        let take = |from: &Tensor| -> Result<Tensor> {
            let size = from.size();
            let out = Tensor::f_zeros([rows.size1()?, size[1], capacity, size[3]], (from.f_kind()?, from.device()))?;
            out.f_narrow(2, 0, self.length)?.f_copy_(&from.f_narrow(2, 0, self.length)?.f_index_select(0, rows)?)?;
            Ok(out)
        };
        let keys = self.keys.iter().map(take).collect::<Result<_>>()?;
        let values = self.values.iter().map(take).collect::<Result<_>>()?;
        let kept = positions(rows.size1()?, capacity, rows.device())?;
        let filled = self.positions.f_narrow(1, 0, self.length)?.f_index_select(0, rows)?;
        kept.f_narrow(1, 0, self.length)?.f_copy_(&filled)?;
        Ok(Self { keys, values, positions: kept, length: self.length })
    }

    /// Takes up the positions of new tokens, `[batch, new]`. Returns those of all slots with them.
    pub(super) fn place(&mut self, new: &Tensor) -> Result<Tensor> {
        let count = new.size2()?.1;
        self.positions.f_narrow(1, self.length, count)?.f_copy_(new)?;
        Ok(self.positions.f_narrow(1, 0, self.length + count)?)
    }

    /// Takes up a layer's new keys and values. Returns all of them.
    pub(super) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let count = keys.size4()?.2;
        let into = |all: &Tensor, new: &Tensor| -> Result<Tensor> {
            all.f_narrow(2, self.length, count)?.f_copy_(new)?;
            Ok(all.f_narrow(2, 0, self.length + count)?)
        };
        Ok((into(&self.keys[layer], keys)?, into(&self.values[layer], values)?))
    }
}

fn positions(batch: i64, capacity: i64, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_zeros([batch, capacity], (Kind::Int64, device))?)
}
