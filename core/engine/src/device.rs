//! Where and in what type tensors are computed.

use crate::{Error, Result};
use tch::{Cuda, Device, Kind};

/// Reads "cpu", "cuda" or "cuda:N". CUDA without a usable GPU is an error, never a silent CPU.
pub fn device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|i| i.parse().ok()),
    };
    let Some(index) = index else {
        return Err(Error::invalid(format!("device \"{name}\" is unknown; it can be \"cpu\", \"cuda\" or \"cuda:1\"")));
    };
    let found = Cuda::device_count();
    if !Cuda::is_available() || index as i64 >= found {
        return Err(Error::invalid(format!(
            "device \"{name}\" was asked for, but libtorch sees {found} CUDA devices; install its CUDA parts with \
             `cargo xtask setup --cuda` and rebuild, or set device = \"cpu\""
        )));
    }
    Ok(Device::Cuda(index))
}

/// Reads "f32", "bf16" or "auto": bf16 on CUDA and on CPUs that multiply it fast, else f32.
pub fn dtype(name: &str, device: Device) -> Result<Kind> {
    match name {
        "f32" => Ok(Kind::Float),
        "bf16" => Ok(Kind::BFloat16),
        "auto" if device.is_cuda() || cpu_is_fast_at_bf16() => Ok(Kind::BFloat16),
        "auto" => Ok(Kind::Float),
        other => Err(Error::invalid(format!("dtype \"{other}\" is unknown; it can be \"auto\", \"f32\" or \"bf16\""))),
    }
}

fn cpu_is_fast_at_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_and_missing_gpus_are_errors() {
        assert!(device("gpu").unwrap_err().to_string().contains("is unknown"));
        if !Cuda::is_available() {
            assert!(device("cuda").unwrap_err().to_string().contains("cargo xtask setup --cuda"));
        }
    }
}
