//! Script errors with file, line, column and a caret.

use motrain_core::shown::without_passwords;
use rhai::{EvalAltResult, Position};
use std::path::Path;

/// Rhai's own failures, which it has no error for.
pub const PANICKED: &str = "Rhai failed inside on this script; please report it with the script";

/// `hh.rhai:14:10: message`, the line, and a caret under the column.
pub fn render(file: &str, source: &str, position: Position, message: &str) -> String {
    let Some(line) = position.line() else { return format!("{file}: {message}") };
    let column = position.position().unwrap_or(1);
    let text = without_passwords(source.lines().nth(line - 1).unwrap_or(""));
    format!("{file}:{line}:{column}: {message}\n  {text}\n  {}^", " ".repeat(column.saturating_sub(1)))
}

/// Walks to where the error began: errors inside functions and modules carry the caller's position outside.
pub fn describe(file: &str, source: &str, error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorInFunctionCall(name, module, inner, at) if !module.is_empty() => {
            let within = crate::locate::text(Path::new(module)).unwrap_or_default();
            let short = module.rsplit('/').next().unwrap_or(module);
            let inner = describe(short, &within, inner);
            format!("{inner}\n{}", render(file, source, *at, &format!("called here, in {name}()")))
        }
        // A function that motrain calls is called from no place in the script.
        EvalAltResult::ErrorInFunctionCall(_, _, inner, at) if at.is_none() => describe(file, source, inner),
        EvalAltResult::ErrorInFunctionCall(_, _, inner, at) => {
            let inner = describe(file, source, inner);
            format!("{inner}\n{}", render(file, source, *at, "called here"))
        }
        EvalAltResult::ErrorInModule(_, inner, _) => describe(file, source, inner),
        EvalAltResult::ErrorRuntime(value, at) => render(file, source, *at, &value.to_string()),
        EvalAltResult::ErrorParsing(what, at) => render(file, source, *at, &what.to_string()),
        EvalAltResult::ErrorTerminated(why, at) => render(file, source, *at, &why.to_string()),
        EvalAltResult::ErrorPropertyNotFound(name, at) => {
            render(file, source, *at, &format!("there is no \"{name}\" here"))
        }
        other => {
            let mut plain = other.to_string();
            if let Some(at) = plain.rfind(" (line ") {
                plain.truncate(at);
            }
            render(file, source, other.position(), &plain)
        }
    }
}
