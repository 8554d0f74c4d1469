//! What CONTRIBUTING.md shows of new components, stages and steerings, done in a copy of the sources: it compiles.

use crate::run::{cargo, checked, root, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A fenced block of the text: its language and its lines.
type Block<'a> = (&'a str, Vec<&'a str>);

pub fn check() -> Result<()> {
    let copy = target().join("contributing");
    let _ = fs::remove_dir_all(&copy);
    for file in sources()?.iter().filter(|file| root().join(file).is_file()) {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::copy(root().join(file), to)?;
    }
    let text = fs::read_to_string(root().join("CONTRIBUTING.md"))?;
    let mut added = 0;
    for section in text.split("\n## ") {
        let blocks = blocks(section);
        let of = |language: &str| blocks.iter().find(|(own, _)| *own == language).map(|(_, lines)| lines);
        if let (Some(file), Some(diff)) = (of("rust"), of("diff")) {
            add(&copy, file, diff).with_context(|| section.lines().next().unwrap_or_default().to_owned())?;
            added += 1;
        }
    }
    if added < 3 {
        bail!("CONTRIBUTING.md shows {added} additions; a file in ```rust and its lines in ```diff are one");
    }
    let mut check = cargo();
    check.current_dir(&copy).args(["check", "--package", "motrain-engine", "--lib"]);
    checked(check.env("CARGO_TARGET_DIR", target()))
}

/// Every file of the sources, relative to the root.
fn sources() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = String::from_utf8(git.output()?.stdout)?;
    Ok(listed.split('\0').filter(|file| !file.is_empty()).map(str::to_owned).collect())
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut out: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                out.push((language, Vec::new()));
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => out.last_mut().into_iter().for_each(|(_, lines)| lines.push(line)),
            (None, false) => {}
        }
    }
    out
}

/// Writes the file beside the one that a `mod` line of the diff goes into, and the diff's lines.
fn add(copy: &Path, file: &[&str], diff: &[&str]) -> Result<()> {
    let (mut at, mut old) = (None, None);
    for line in diff {
        let (sign, rest) = line.split_at_checked(1).context("an empty line")?;
        match sign {
            " " => at = Some(copy.join(rest)),
            "-" => old = Some(rest),
            _ => {
                let path = at.as_deref().context("a line before any file")?;
                let text = fs::read_to_string(path)?;
                fs::write(path, with(&text, old.take(), rest)?)?;
                if let Some((_, module)) = rest.trim_end_matches(';').split_once("mod ") {
                    fs::write(path.with_file_name(format!("{module}.rs")), file.join("\n") + "\n")?;
                }
            }
        }
    }
    Ok(())
}

/// A text with a new line in place of an old one, or else before the first that begins most like it.
fn with(text: &str, old: Option<&str>, new: &str) -> Result<String> {
    if let Some(old) = old {
        let found = text.contains(old).then(|| text.replacen(old, new, 1));
        return found.with_context(|| format!("there is no line {old}"));
    }
    let ends = new.char_indices().filter(|(_, c)| !c.is_alphanumeric()).map(|(i, c)| i + c.len_utf8());
    let place = ends.rev().find_map(|end| text.find(&format!("\n{}", &new[..end])));
    let place = place.with_context(|| format!("no line begins like {new}"))?;
    Ok(format!("{}\n{new}{}", &text[..place], &text[place..]))
}
