//! Decoding with one network and a key-value cache. Prompts are padded on the right; padding slots in the cache are masked.

use super::{Decoder, Query, Rows};
use crate::model::{Cache, Mask, Net, RowGains};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

impl Decoder for Net {
    fn context(&self) -> i64 {
        self.config.shape.context
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn dtype(&self) -> Kind {
        self.dtype()
    }

    fn parameter_count(&self) -> usize {
        self.parameter_count()
    }

    fn prefill(&self, prompts: &[Query], rows: &[usize], new: usize) -> Result<(Tensor, Box<dyn Rows + '_>)> {
        begin(self, RowGains::default(), prompts, rows, new)
    }
}

/// A network that its parameters steer, with a gain of each block of low-rank changes: those of each prompt, or of all.
pub struct Gained<'a> {
    pub net: &'a Net,
    pub gains: Vec<Vec<f64>>,
}

impl Decoder for Gained<'_> {
    fn context(&self) -> i64 {
        self.net.context()
    }

    fn device(&self) -> Device {
        self.net.device()
    }

    fn dtype(&self) -> Kind {
        self.net.dtype()
    }

    fn parameter_count(&self) -> usize {
        self.net.parameter_count()
    }

    fn prefill(&self, prompts: &[Query], rows: &[usize], new: usize) -> Result<(Tensor, Box<dyn Rows + '_>)> {
        let of = |prompt: &Query| {
            let own = if self.gains.len() == 1 { self.gains.first() } else { self.gains.get(prompt.index) };
            let none = || Error::invalid(format!("prompt {} has no weights, {} have", prompt.index, self.gains.len()));
            own.map(Vec::as_slice).ok_or_else(none)
        };
        let gains = prompts.iter().map(of).collect::<Result<Vec<_>>>()?;
        begin(self.net, RowGains::of_rows(&gains, self.net.device())?, prompts, rows, new)
    }
}

/// Reads the prompts, `gains` being theirs.
fn begin<'a>(
    net: &'a Net,
    gains: RowGains,
    prompts: &[Query],
    rows: &[usize],
    new: usize,
) -> Result<(Tensor, Box<dyn Rows + 'a>)> {
    let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| net.with_room(prompt.tokens)).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let device = net.device();
    let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
    let capacity = (longest + new) as i64;
    let (last_hidden, cache) = read(net, &prompts, longest, &gains)?;
    let source: Vec<i64> = rows.iter().map(|&prompt| prompt as i64).collect();
    let source = Tensor::f_from_slice(&source)?.f_to_device(device)?;
    let lengths: Vec<usize> = rows.iter().map(|&prompt| prompts[prompt].len()).collect();
    let next: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
    let decoding = NetRows {
        net,
        gains: gains.select(&source)?,
        cache: cache.select(&source, capacity)?,
        holes: hole_mask(&lengths, longest, capacity, device)?,
        next: Tensor::f_from_slice(&next)?.f_to_device(device)?,
        capacity,
    };
    Ok((net.head_at(&last_hidden, &gains)?.f_index_select(0, &source)?, Box::new(decoding)))
}

struct NetRows<'a> {
    net: &'a Net,
    /// Of each row.
    gains: RowGains,
    cache: Cache,
    /// What `hole_mask` gives.
    holes: Option<Tensor>,
    /// The position of each row's next token, `[rows]`.
    next: Tensor,
    capacity: i64,
}

impl Rows for NetRows<'_> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        let visible = self.holes.as_ref().map(|h| h.f_narrow(3, 0, self.cache.length + 1)).transpose()?;
        let mask = visible.as_ref().map_or(Mask::Causal, Mask::Additive);
        let (ids, positions) = (tokens.f_unsqueeze(1)?, self.next.f_unsqueeze(1)?);
        let hidden = self.net.hidden_at(&ids, &positions, &mask, Some(&mut self.cache), &self.gains)?;
        self.next = self.next.f_add_scalar(1)?;
        self.net.head_at(&hidden.f_squeeze_dim(1)?, &self.gains)
    }

    fn select(&mut self, rows: &Tensor) -> Result<()> {
        self.cache = self.cache.select(rows, self.capacity)?;
        self.gains = self.gains.select(rows)?;
        self.holes = self.holes.as_ref().map(|h| h.f_index_select(0, rows)).transpose()?;
        self.next = self.next.f_index_select(0, rows)?;
        Ok(())
    }
}

/// The hidden state of each prompt's last token, `[prompts, hidden]`, and the cache of all.
fn read(net: &Net, prompts: &[&[u32]], longest: usize, gains: &RowGains) -> Result<(Tensor, Cache)> {
    let device = net.device();
    let (mut ids, mut last) = (Vec::with_capacity(prompts.len() * longest), Vec::with_capacity(prompts.len()));
    for (row, prompt) in prompts.iter().enumerate() {
        // Nothing looks at padding; a token that is there already is sure to be finite.
        let padding = prompt.last().copied().unwrap_or_default();
        let padded = prompt.iter().copied().chain(std::iter::repeat(padding));
        ids.extend(padded.take(longest).map(i64::from));
        last.push((row * longest + prompt.len() - 1) as i64);
    }
    let shape = [prompts.len() as i64, longest as i64];
    let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?;
    let positions = Tensor::f_arange(longest as i64, (Kind::Int64, device))?.f_unsqueeze(0)?.f_expand(shape, false)?;
    let mut cache = net.new_cache(shape[0], shape[1])?;
    let hidden = net.hidden_at(&ids, &positions, &Mask::Causal, Some(&mut cache), gains)?;
    let last = Tensor::f_from_slice(&last)?.f_to_device(device)?;
    let hidden = hidden.f_reshape([-1, net.config.shape.hidden_size])?.f_index_select(0, &last)?;
    Ok((hidden, cache))
}

/// −∞ on the padding slots between a short prompt's end and the first new token, `[rows, 1, 1, capacity]`; `None` without padding.
fn hole_mask(lengths: &[usize], longest: usize, capacity: i64, device: Device) -> Result<Option<Tensor>> {
    if lengths.iter().all(|&length| length == longest) {
        return Ok(None);
    }
    let mut mask = vec![0f32; lengths.len() * capacity as usize];
    for (row, &length) in lengths.iter().enumerate() {
        let start = row * capacity as usize;
        mask[start + length..start + longest].fill(f32::NEG_INFINITY);
    }
    Ok(Some(Tensor::f_from_slice(&mask)?.f_view([lengths.len() as i64, 1, 1, capacity])?.f_to_device(device)?))
}
