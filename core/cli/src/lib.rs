//! `motrain`: from a script to a plan to a trained, evaluated, steerable policy. The binary is `main` alone; benchmarks use the rest.

#![deny(clippy::print_stdout)]

mod allowed;
mod command;
pub mod components;
mod config;
mod locate;
mod out;
mod paper;
mod plans;
mod profile;
mod report;
pub mod script;
mod shipped;
mod signals;

use anyhow::Result;
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tracing_chrome::FlushGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What the binary does.
pub fn main() -> ExitCode {
    let args = command::Args::parse();
    let _profile = match log(args.profile()) {
        Ok(guard) => guard,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", describe(&error));
            return ExitCode::FAILURE;
        }
    };
    if args.computes() {
        motrain_engine::environment::settle();
    }
    let _main = motrain_host::Main::begin();
    let kept = if args.is_trial() { Ok(()) } else { out::keep() };
    match kept.and_then(|()| args.run()).and_then(|()| out::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", describe(&error));
            if error.chain().any(was_stopped) { ExitCode::from(signals::heard()) } else { ExitCode::FAILURE }
        }
    }
}

/// Messages go to standard error, and the parts of the work to a profile, if one is wanted.
fn log(profile: Option<&Path>) -> Result<Option<FlushGuard>> {
    let messages = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_writer(std::io::stderr)
        // Nobody may be left to read standard error (a closed terminal, `| head`), which must not end the work.
        .log_internal_errors(false)
        .with_filter(EnvFilter::try_from_env("MOTRAIN_LOG").unwrap_or_else(|_| "info".into()));
    let (profile, guard) = profile.map(profile::layer).transpose()?.unzip();
    tracing_subscriber::registry().with(messages).with(profile).init();
    Ok(guard)
}

fn was_stopped(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(motrain_engine::Error::Interrupted { .. } | motrain_engine::Error::Stopped))
        || matches!(cause.downcast_ref(), Some(motrain_core::Error::Stopped))
}

/// The error and its causes, each said once.
fn describe(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !lines.iter().any(|l| l.contains(&text)) {
            lines.push(text);
        }
    }
    lines.join("\n  because ")
}
