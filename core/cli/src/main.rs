//! `motrain`: from a script to a plan to a trained, evaluated, steerable policy.

#![deny(clippy::print_stdout)]

mod allowed;
mod args;
mod bench;
mod commands;
mod components;
mod config;
mod environment;
mod locate;
mod out;
mod paper;
mod plugin_check;
mod report;
mod script;

use anyhow::Result;
use args::{Command, PluginCommand};
use clap::Parser;
use motrain_core::plugin;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let args = args::Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("MOTRAIN_LOG").unwrap_or_else(|_| "info".into()))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    environment::settle(&args);
    let _main = plugin::Main::begin();
    let trial = matches!(args.command, Some(Command::Plugin { command: PluginCommand::Trial { .. } }));
    // A trial's standard output is what the plugin prints.
    let kept = if trial { Ok(()) } else { out::keep() };
    match kept.and_then(|()| start(args)).and_then(|()| out::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Found by plugins before the C library's (build.rs exports it): a plugin that ends the process must not pass for success.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn _exit(code: std::ffi::c_int) -> ! {
    plugin::raw_exit(code)
}

/// As `_exit`.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn _Exit(code: std::ffi::c_int) -> ! {
    plugin::raw_exit(code)
}

/// As `_exit`.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn quick_exit(code: std::ffi::c_int) -> ! {
    plugin::raw_exit(code)
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

fn start(args: args::Args) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            plugin::exit(130);
        }
        eprintln!("\nsaving after this step, then stopping; Ctrl-C again stops at once");
    })?;
    commands::dispatch(args, &stop)
}
