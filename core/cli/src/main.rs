//! The binary `motrain`.

use std::process::ExitCode;

fn main() -> ExitCode {
    motrain::main()
}

/// Found by plugins before the C library's (build.rs exports it): a plugin that ends the process must not pass for success.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn _exit(code: std::ffi::c_int) -> ! {
    motrain_host::raw_exit(code)
}

/// As `_exit`.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn _Exit(code: std::ffi::c_int) -> ! {
    motrain_host::raw_exit(code)
}

/// As `_exit`.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn quick_exit(code: std::ffi::c_int) -> ! {
    motrain_host::raw_exit(code)
}
