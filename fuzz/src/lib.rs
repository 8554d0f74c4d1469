//! What all fuzz targets have in common: the memory that a reader may take, and mutations that keep JSON whole.

mod json;

pub use {libfuzzer_sys, motrain_readers};

use cap::Cap;
use std::alloc::System;

/// Every input is far smaller: whoever asks for more than this was told to by the file.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 512 << 20);

/// A fuzz target named as the reader that it calls.
#[macro_export]
macro_rules! target {
    ($reader:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::motrain_readers::$reader(data));
        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate(data, size, max_size, seed)
        });
    };
}

/// Half of the mutants are any bytes; of the others some JSON is changed that stays JSON.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    if seed % 2 == 0
        && let Some(mutant) = json::mutant(&data[..size], seed)
        && mutant.len() <= max_size
    {
        data[..mutant.len()].copy_from_slice(&mutant);
        return mutant.len();
    }
    libfuzzer_sys::fuzzer_mutate(data, size, max_size)
}
