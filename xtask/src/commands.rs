//! What each `cargo xtask` command does.

use crate::run::{cache, cargo, checked, root, target};
use crate::{contributing, fuzz, libtorch, models, plugins};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Tools that set-up needs, with the command that brings them on Debian.
const TOOLS: [(&str, &[&str], &str); 3] = [
    ("python3 with pip", &["python3", "-m", "pip", "--version"], "apt-get install python3-pip"),
    ("C++ compiler", &["c++", "--version"], "apt-get install g++"),
    ("C compiler", &["cc", "--version"], "apt-get install gcc"),
];

/// Says what is wrong and the command that mends it.
pub fn doctor() -> Result<()> {
    let mut wrong = 0;
    let mut say = |name: &str, problem: Option<String>| match problem {
        None => println!("ok       {name}"),
        Some(what) => {
            wrong += 1;
            println!("missing  {name}: {what}");
        }
    };
    for (name, command, mend) in TOOLS {
        let found = Command::new(command[0]).args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        say(name, (!found.is_ok_and(|s| s.success())).then(|| format!("run: {mend}")));
    }
    say("libtorch", libtorch::located().err().map(|e| format!("{e:#}")));
    let nextest = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    say(
        "cargo-nextest (optional)",
        (!nextest.is_ok_and(|s| s.success()))
            .then(|| "tests fall back to cargo test; run: cargo install cargo-nextest".into()),
    );
    let smollm2 = root().join("models/smollm2/config.json").is_file();
    say("SmolLM2", (!smollm2).then(|| "run: cargo xtask fetch-model smollm2".into()));
    println!("cache    {}", cache()?.display());
    match wrong {
        0 => Ok(()),
        1 => bail!("one thing is missing"),
        _ => bail!("{wrong} things are missing"),
    }
}

/// Builds the optimised binary and returns its path.
pub fn release_binary() -> Result<PathBuf> {
    checked(cargo().args(["build", "--release", "--package", "motrain"]))?;
    Ok(target().join("release/motrain"))
}

/// Builds the binary that tests go through and returns its path.
pub fn test_binary() -> Result<PathBuf> {
    // With all tests, so that the test run resolves the same features and builds nothing twice.
    checked(cargo().args(["build", "--workspace", "--all-targets"]))?;
    Ok(target().join("debug/motrain"))
}

pub fn demo(out: &str) -> Result<()> {
    libtorch::setup(false)?;
    let binary = release_binary()?;
    checked(Command::new(binary).args(["--script", "experiments/hh.rhai", "--out", out]))
}

/// Sets up what is missing and tests; with `ci` after formats, lints, documentation and packages, and before a short look for inputs that break readers.
pub fn test(ci: bool, args: &[String]) -> Result<()> {
    libtorch::setup(false)?;
    if ci {
        checked(cargo().args(["fmt", "--all", "--check"]))?;
        checked(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
        checked(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        contributing::check()?;
        checked(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
        // What plugin authors get must build from its packages alone.
        let published = ["--package", "motrain-abi", "--package", "motrain-plugin"];
        checked(cargo().args(["package", "--offline", "--allow-dirty"]).args(published))?;
    }
    test_binary()?;
    models::fetch("smollm2", test_binary)?;
    let nextest = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let mut command = cargo();
    if nextest.is_ok_and(|s| s.success()) {
        command.args(["nextest", "run", "--workspace"]);
    } else {
        // Some tests leave out the kernels of their whole process.
        command.args(["test", "--workspace"]).env("RUST_TEST_THREADS", "1");
    }
    checked(command.args(args))?;
    if ci { fuzz::run(10, &[]) } else { Ok(()) }
}

pub fn bench(args: &[String]) -> Result<()> {
    libtorch::setup(false)?;
    let model = models::fetch("smollm2", release_binary)?;
    let bench = |package: &str| {
        let mut command = cargo();
        command.args(["bench", "--workspace", "--bench", package, "--"]);
        command
    };
    checked(bench("online_step").arg(model).args(args))?;
    let loss = plugins::build()?.join(plugins::library("loss-robust"));
    checked(bench("components").arg(loss).arg(plugins::template()?))
}
