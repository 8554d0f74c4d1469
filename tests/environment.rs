//! What a run sets for libtorch's libraries before they are loaded.

use motrain_tests::{small_run, start, wait_for};
use std::path::Path;

/// The environment that the process was started with.
#[cfg(target_os = "linux")]
fn environment_of(folder: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = small_run(folder, "run");
    for name in [
        "GOMP_SPINCOUNT",
        "OMP_WAIT_POLICY",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
        "LRU_CACHE_CAPACITY",
        "RAYON_NUM_THREADS",
        "GLIBC_TUNABLES",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
    ] {
        command.env_remove(name);
    }
    let mut child = start(command.envs(variables.iter().copied()));
    // Once it has a run folder, it computes.
    wait_for(|| folder.join("run/plan.json").is_file());
    let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&environment).split('\0').map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn threads_spin_briefly_unless_the_user_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let plain = environment_of(folder.path(), &[]);
    assert!(plain.contains(&"GOMP_SPINCOUNT=2000".into()), "{plain:?}");
    assert!(plain.contains(&"ONEDNN_PRIMITIVE_CACHE_CAPACITY=64".into()), "{plain:?}");
    for kept in ["GLIBC_TUNABLES=glibc.malloc.hugetlb=1", "MALLOC_MMAP_THRESHOLD_=4294967296"] {
        assert!(plain.contains(&kept.into()), "{plain:?}");
    }
    // The helper sets OMP_NUM_THREADS=1.
    assert!(plain.contains(&"RAYON_NUM_THREADS=1".into()), "{plain:?}");
    let folder = tempfile::tempdir().unwrap();
    let own = environment_of(
        folder.path(),
        &[
            ("GLIBC_TUNABLES", "glibc.malloc.check=0"),
            ("OMP_WAIT_POLICY", "ACTIVE"),
            ("LRU_CACHE_CAPACITY", "7"),
            ("RAYON_NUM_THREADS", "3"),
        ],
    );
    assert!(own.iter().all(|v| !v.starts_with("GOMP_SPINCOUNT")), "{own:?}");
    assert!(own.contains(&"GLIBC_TUNABLES=glibc.malloc.check=0".into()), "{own:?}");
    assert!(own.iter().all(|v| !v.starts_with("MALLOC_")), "{own:?}");
    assert!(own.contains(&"LRU_CACHE_CAPACITY=7".into()) && own.contains(&"RAYON_NUM_THREADS=3".into()), "{own:?}");
}
