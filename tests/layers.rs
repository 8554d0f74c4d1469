//! The arrows of ARCHITECTURE.md, who may depend on whom, and what the engine may call of tch.

use motrain_tests::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::Table;

fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
    let table: Table = text.parse().unwrap();
    let names =
        |section: &str| table.get(section).and_then(|d| d.as_table()).map(|d| d.keys().cloned().collect::<Vec<_>>());
    ["dependencies", "build-dependencies"].iter().filter_map(|s| names(s)).flatten().collect()
}

#[test]
fn only_the_engine_and_its_kernels_name_tch() {
    for manifest in ["core/base", "core/remote", "core/tasks", "core/cli", "plugins/host", "xtask", "tests"] {
        assert!(!dependencies(manifest).contains(&"tch".to_owned()), "{manifest} depends on tch");
    }
    for manifest in ["core/engine", "core/kernels"] {
        assert!(dependencies(manifest).contains(&"tch".to_owned()));
    }
}

#[test]
fn arrows_point_down() {
    let own =
        |manifest: &str| dependencies(manifest).into_iter().filter(|d| d.starts_with("motrain")).collect::<Vec<_>>();
    assert_eq!(own("plugins/abi"), [""; 0]);
    assert_eq!(own("plugins/sdk"), ["motrain-abi"]);
    assert_eq!(own("plugins/host"), ["motrain-abi", "motrain-core"]);
    assert_eq!(own("core/base"), [""; 0]);
    assert_eq!(own("core/kernels"), [""; 0]);
    for above in ["core/remote", "core/tasks"] {
        assert_eq!(own(above), ["motrain-core"], "{above}");
    }
    assert_eq!(own("core/engine"), ["motrain-core", "motrain-kernels"]);
    let all = ["motrain-core", "motrain-engine", "motrain-host", "motrain-remote", "motrain-tasks"];
    assert_eq!(own("core/cli"), all);
    assert_eq!(own("xtask"), [""; 0]);
    for plugin in ["conditioner-words", "loss-robust", "reward-readability", "reward-toxicity", "sampler-hypervolume"] {
        assert_eq!(own(&format!("plugins/{plugin}")), ["motrain-plugin"]);
    }
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// The rooms of the engine, each of which may know those before it: there are no circles, and what stages are made of knows no stage.
const ROOMS: [&str; 29] = [
    "error",
    "names",
    "fields",
    "files",
    "finite",
    "environment",
    "device",
    "model",
    "gguf",
    "generation",
    "folder",
    "tokenizer",
    "import",
    "decode",
    "inputs",
    "optim",
    "others",
    "memory",
    "steer",
    "session",
    "publish",
    "train",
    "reward",
    "stage",
    "plan",
    "settle",
    "time_left",
    "run",
    "runs",
];

/// The rooms that a source text names: `crate::model::…`, and those of `use crate::{model, …}`.
fn rooms_in(code: &str) -> BTreeSet<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                found.extend(group.split(',').map(|one| one.trim().split("::").next().unwrap_or_default()));
            }
            None => {
                found.insert(&rest[..word(rest)]);
            }
        }
    }
    found
}

#[test]
fn rooms_of_the_engine_know_only_those_below_them() {
    let mut wrong = Vec::new();
    for (path, code) in sources("core/engine/src") {
        let inside = path.strip_prefix(root().join("core/engine/src")).unwrap().to_owned();
        let own = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if ["lib", "mutants"].contains(&own.as_str()) {
            continue;
        }
        let at = ROOMS.iter().position(|room| *room == own).unwrap_or_else(|| panic!("{own} has no place in ROOMS"));
        let above = ROOMS[at + 1..].iter().filter(|room| rooms_in(&code).contains(**room));
        wrong.extend(above.map(|room| format!("{} knows {room}", inside.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rooms_in("use crate::{Error, steer::By, stage};\ncrate::model::x(crate::obey)"), {
        BTreeSet::from(["Error", "steer", "stage", "model", "obey"])
    });
}

/// A file of a run folder has its name in one place.
#[test]
fn one_file_names_all_that_lies_in_a_run_folder() {
    let names = std::fs::read_to_string(root().join("core/engine/src/names.rs")).unwrap();
    let names: Vec<&str> = names.split('"').skip(1).step_by(2).filter(|name| name.contains(['.', '-'])).collect();
    assert!(names.len() > 15, "{names:?}");
    for (path, code) in ["core/engine/src", "core/cli/src"].into_iter().flat_map(sources) {
        let again = names.iter().find(|name| code.contains(&format!("\"{name}\"")));
        assert!(again.is_none() || path.ends_with("names.rs"), "{} names {again:?}", path.display());
    }
}

/// Every `.name(` and `Tensor::name(` of a source text without its tests and comments, with its line.
fn calls(source: &str) -> Vec<(String, usize)> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        for part in line.split('(') {
            let part = part.split("::<").next().unwrap_or_default();
            let start = part.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
            if part[..start].ends_with('.') || part[..start].ends_with("Tensor::") {
                found.push((part[start..].to_owned(), at + 1));
            }
        }
    }
    found
}

/// Names of tch's methods that panic where a twin called `f_…` returns an error, from tch's own source.
fn panicking() -> BTreeSet<String> {
    let cargo = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--offline"]).output().unwrap();
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let tch = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == "tch").unwrap();
    let source = Path::new(tch["manifest_path"].as_str().unwrap()).with_file_name("src/wrappers");
    let text: String = files(&source).iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let names: BTreeSet<&str> =
        text.split("pub fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).collect();
    names.iter().filter(|name| names.contains(format!("f_{name}").as_str())).map(|name| (*name).to_owned()).collect()
}

/// Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    let within = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(within).filter(|p| p.extension().is_some_and(|e| e == "rs")).collect()
}

/// What draws from libtorch's generator, of which a process has one: whoever draws changes what others get.
const GLOBAL: [&str; 10] =
    ["rand", "randn", "randint", "randperm", "normal", "uniform", "bernoulli", "multinomial", "dropout", "exponential"];

#[test]
fn the_engine_calls_nothing_of_tch_that_panics_or_draws_globally() {
    let panicking = panicking();
    assert!(panicking.len() > 2000 && panicking.contains("matmul"), "tch's source is not where it was");
    let clippy = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    let mut wrong = Vec::new();
    for file in files(&root().join("core/engine/src")).iter().filter(|f| !f.ends_with("tests.rs")) {
        for (name, line) in calls(&std::fs::read_to_string(file).unwrap()) {
            // Names that other types have too clippy tells apart.
            let panics = panicking.contains(&name) && !clippy.contains(&format!("\"tch::Tensor::{name}\""));
            let draws = name.strip_prefix("f_").is_some_and(|n| GLOBAL.contains(&n.trim_end_matches('_')));
            if panics || draws {
                wrong.push(format!("{}:{line}: {name}", file.display()));
            }
        }
    }
    let mend = "call the f_ twin, and draw by motrain_core::rng; a name that is not tch's here goes into clippy.toml";
    assert!(wrong.is_empty(), "{mend}:\n{}", wrong.join("\n"));
}
