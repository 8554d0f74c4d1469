//! Why the loader refused a library, and what to do about it.

use super::image::Image;
use std::error::Error;
use std::path::Path;

/// What the loader says (it has no codes, only text), and what helps.
const ADVICE: [(&str, &str); 10] = [
    ("undefined symbol", "nothing that it is linked with defines this; link the library that does, or define it"),
    ("symbol not found", "nothing that it is linked with defines this; link the library that does, or define it"),
    (
        "cannot open shared object file",
        "install this library, put it beside the plugin and link with -Wl,-rpath,'$ORIGIN', or name its folder in LD_LIBRARY_PATH",
    ),
    ("' not found", "it was built on a newer system; build it here, or on one as old as this"),
    ("static TLS", "start motrain with this library in LD_PRELOAD, or build it with -ftls-model=global-dynamic"),
    ("executable stack", "link it with -Wl,-z,noexecstack"),
    ("failed to map segment", "it is damaged, or its memory cannot be mapped here; build it again"),
    ("invalid ELF header", "one of the libraries that it needs is damaged"),
    ("file too short", "one of the libraries that it needs is damaged"),
    ("wrong ELF class", "one of the libraries that it needs is for another machine"),
];

/// The whole reason, which libloading keeps as the source of its error, with the library under the name that the user knows.
pub fn reason(error: &libloading::Error, image: &Image, shown: &Path) -> String {
    let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let said = said.replace(&*image.path.to_string_lossy(), &shown.to_string_lossy());
    // The path begins the text already where the library itself is at fault.
    let said = said.strip_prefix(&format!("{}: ", shown.display())).map_or(said.clone(), str::to_owned);
    match ADVICE.iter().find(|(text, _)| said.contains(text)) {
        Some((_, advice)) => format!("cannot be loaded: {said}; {advice}"),
        None => format!("cannot be loaded: {said}"),
    }
}
