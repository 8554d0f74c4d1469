//! What libtorch's libraries and others read from the environment, once, when they are loaded: before `main`, so that a change needs a new start.

use std::env::{var, var_os};
use std::process;

/// Name, value, and the variable by which a user may decide the same otherwise.
const DEFAULTS: [(&str, &str, Option<&str>); 6] = [
    // A step's tensors are as large as those of the step before. glibc gives large blocks back to the kernel, which clears each page when it is
    // asked for again: a quarter of a training step's time. So it keeps them, in pages of 2 MB.
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", None),
    ("MALLOC_MMAP_THRESHOLD_", "4294967296", Some("GLIBC_TUNABLES")),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592", Some("GLIBC_TUNABLES")),
    // How often a waiting thread looks before it sleeps. libgomp's 300,000 make a step several times slower beside one busy process: a thread
    // spins out its time slice for one that waits for a core. docs/results.md has what each count costs.
    ("GOMP_SPINCOUNT", "2000", Some("OMP_WAIT_POLICY")),
    // Batches shrink while answers finish, so shapes are many, and on CPUs with AMX oneDNN's default of 1024 kernels fills 1.5 GB; making
    // evicted ones again costs models as small as the embedded ones some 7 % of their time.
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64", None),
    ("LRU_CACHE_CAPACITY", "64", None),
];

/// Starts the command again, in this process, with the defaults that the user has not set.
pub fn settle() {
    let unset = |name: &str| var_os(name).is_none();
    let mut missing: Vec<(&str, String)> = DEFAULTS
        .iter()
        .filter(|(name, _, other)| unset(name) && other.is_none_or(unset))
        .map(|(name, value, _)| (*name, (*value).to_owned()))
        .collect();
    // Tokenizers and plugins that count threads by rayon's variable keep to the number that libtorch is given.
    let threads = var("OMP_NUM_THREADS").ok().filter(|n| unset("RAYON_NUM_THREADS") && n.parse::<usize>().is_ok());
    missing.extend(threads.map(|n| ("RAYON_NUM_THREADS", n)));
    if missing.is_empty() {
        return;
    }
    let error = again(&missing);
    tracing::warn!(
        "motrain could not start itself again to set {missing:?} ({error}); beside other work it may be slow"
    );
}

/// Comes back only with an error.
#[cfg(unix)]
fn again(variables: &[(&str, String)]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let mut given = std::env::args_os();
    let name = given.next().unwrap_or_else(|| "motrain".into());
    // The path that the kernel keeps also finds a binary that was replaced meanwhile.
    let kernels = std::path::Path::new("/proc/self/exe");
    let program = if kernels.exists() { Ok(kernels.to_owned()) } else { std::env::current_exe() };
    match program {
        Ok(program) => process::Command::new(program).arg0(name).args(given).envs(variables.iter().cloned()).exec(),
        Err(error) => error,
    }
}

#[cfg(not(unix))]
fn again(_variables: &[(&str, String)]) -> std::io::Error {
    std::io::ErrorKind::Unsupported.into()
}
