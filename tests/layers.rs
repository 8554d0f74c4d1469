//! The arrows of ARCHITECTURE.md: who may depend on whom.

use motrain_tests::root;
use toml::Table;

fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
    let table: Table = text.parse().unwrap();
    let names =
        |section: &str| table.get(section).and_then(|d| d.as_table()).map(|d| d.keys().cloned().collect::<Vec<_>>());
    ["dependencies", "build-dependencies"].iter().filter_map(|s| names(s)).flatten().collect()
}

#[test]
fn only_the_engine_names_tch() {
    for manifest in ["core/base", "core/cli", "xtask", "tests"] {
        assert!(!dependencies(manifest).contains(&"tch".to_owned()), "{manifest} depends on tch");
    }
    assert!(dependencies("core/engine").contains(&"tch".to_owned()));
}

#[test]
fn arrows_point_down() {
    let own =
        |manifest: &str| dependencies(manifest).into_iter().filter(|d| d.starts_with("motrain")).collect::<Vec<_>>();
    assert_eq!(own("plugins/abi"), [""; 0]);
    assert_eq!(own("plugins/sdk"), ["motrain-abi"]);
    assert_eq!(own("core/base"), ["motrain-abi"]);
    assert_eq!(own("core/engine"), ["motrain-core"]);
    assert_eq!(own("core/cli"), ["motrain-core", "motrain-engine"]);
    assert_eq!(own("xtask"), [""; 0]);
    for plugin in ["conditioner-words", "loss-robust", "reward-readability", "reward-toxicity", "sampler-hypervolume"] {
        assert_eq!(own(&format!("plugins/{plugin}")), ["motrain-plugin"]);
    }
}
