//! Licences and sources of every dependency, by the lists in deny.toml: `cargo deny` checks more, where it is installed.

use motrain_tests::root;
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};
use std::process::Command;
use toml::Table;

/// A list of texts in deny.toml.
fn list(section: &str, key: &str) -> Vec<String> {
    let table: Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    table[section][key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// All packages of a workspace, as cargo resolved them.
fn packages(manifest: &str) -> Vec<Value> {
    let manifest = root().join(manifest);
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn allowed(license: &str, allow: &[Licensee]) -> bool {
    let parsed = Expression::parse_mode(license, ParseMode::LAX);
    parsed.is_ok_and(|e| e.evaluate(|req| allow.iter().any(|a| a.satisfies(req))))
}

#[test]
fn dependencies_have_allowed_licences_and_sources() {
    let allow: Vec<Licensee> = list("licenses", "allow").iter().map(|l| Licensee::parse(l).unwrap()).collect();
    let registries: Vec<String> = list("sources", "allow-registry").iter().map(|r| format!("registry+{r}")).collect();
    let packages = packages("Cargo.toml");
    assert!(packages.len() > 300, "{} packages: cargo metadata says too little", packages.len());
    let mut wrong = Vec::new();
    for package in &packages {
        // The crates of this workspace have no source.
        let Some(source) = package["source"].as_str() else { continue };
        let license = package["license"].as_str().unwrap_or("no licence");
        if !allowed(license, &allow) || !registries.iter().any(|r| r == source) {
            wrong.push(format!("{} {}: {license}, from {source}", package["name"], package["version"]));
        }
    }
    assert!(wrong.is_empty(), "not allowed by deny.toml:\n{}", wrong.join("\n"));
}

#[test]
fn a_licence_is_allowed_by_all_of_its_parts() {
    let allow = [Licensee::parse("MIT").unwrap(), Licensee::parse("Unicode-3.0").unwrap()];
    for (license, expected) in [
        ("MIT/GPL-3.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0-only", false),
        ("no licence", false),
    ] {
        assert_eq!(allowed(license, &allow), expected, "{license}");
    }
}
