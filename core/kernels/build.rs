//! Compiles the kernels, the part in rows once for each CPU level.

use std::env;
use std::path::{Path, PathBuf};

/// Names of the tables that `rows.cpp` makes, and what the compiler may use for each.
const LEVELS: [(&str, &[&str]); 2] = [
    ("rows_avx2", &["-mavx2", "-mfma"]),
    ("rows_avx512", &["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]),
];

fn main() {
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys tells where it found libtorch.
    let lib = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").unwrap_or_default());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        for (level, flags) in LEVELS {
            let mut build = cpp();
            build.file("native/rows.cpp").define("LEVEL", level).flag("-O3").flag_if_supported("-Wno-psabi");
            for flag in flags {
                build.flag(flag);
            }
            build.compile(level);
        }
    }
    torch(lib.parent().unwrap_or(&lib));
}

fn cpp() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").warnings(true).extra_warnings(true);
    build
}

fn torch(folder: &Path) {
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let include = folder.join("include");
    let mut build = cpp();
    build.file("native/kernels.cpp").opt_level(2).define("_GLIBCXX_USE_CXX11_ABI", abi.as_str());
    // As system headers, whose warnings are not ours.
    for folder in [include.join("torch/csrc/api/include"), include] {
        build.flag("-isystem").flag(&folder);
    }
    // Its OpenMP library, whose file may have a name of its own.
    let lib = folder.join("lib");
    let files = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|file| file.file_name());
    let is_gomp =
        |name: &String| name.starts_with("libgomp") && name.contains(".so") && !name.starts_with("libgomp-plugin");
    println!("cargo:rustc-check-cfg=cfg(gomp)");
    if let Some(gomp) = files.filter_map(|name| name.into_string().ok()).filter(is_gomp).min() {
        println!("cargo:rustc-cfg=gomp");
        build.define("HAS_GOMP", None);
        println!("cargo:rustc-link-search=native={}", lib.display());
        println!("cargo:rustc-link-lib=dylib:+verbatim={gomp}");
    }
    build.compile("motrain_kernels");
}
