//! The date that chat templates ask for.
//!
//! A prompt with today's date would make a run differ from its own resume. So there is one moment for all prompts of a process, and a
//! run keeps its own: the moment at which it first began, in UTC, whatever the machine's time zone.

use crate::files::read_text;
use crate::folder::RunFolder;
use crate::{Error, Result};
use minijinja::{Error as TemplateError, ErrorKind};
use std::sync::OnceLock;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::{parse_strftime_borrowed, well_known::Rfc3339};

static MOMENT: OnceLock<OffsetDateTime> = OnceLock::new();

/// The file of a run folder that holds the run's moment.
const FILE: &str = "started";

/// Takes the moment of a run folder for this process, writing it where the run begins.
pub fn keep(run: &RunFolder) -> Result<()> {
    let path = run.root().join(FILE);
    let moment = match read_text(&path)? {
        Some(text) => OffsetDateTime::parse(text.trim(), &Rfc3339)
            .map_err(|e| Error::file(&path, format!("holds no date as 2026-01-31T12:00:00Z ({e}); delete it")))?,
        None => {
            let now = *MOMENT.get_or_init(now);
            let text = now.format(&Rfc3339).map_err(|e| Error::file(&path, e.to_string()))?;
            run.write(FILE, &(text + "\n"))?;
            now
        }
    };
    let _ = MOMENT.set(moment);
    Ok(())
}

/// This second, or the one that SOURCE_DATE_EPOCH gives.
fn now() -> OffsetDateTime {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|s| s.parse().ok());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    OffsetDateTime::from_unix_timestamp(given.unwrap_or(since)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `strftime_now(format)` of chat templates.
pub fn strftime_now(format: &str) -> std::result::Result<String, TemplateError> {
    show(*MOMENT.get_or_init(now), format).map_err(|e| {
        TemplateError::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now does not know the format {format:?}: {e}"),
        )
    })
}

fn show(moment: OffsetDateTime, format: &str) -> std::result::Result<String, String> {
    // Python shows nothing for the zone of a time without one.
    let pieces: Vec<String> = format.split("%%").map(|p| p.replace("%Z", "").replace("%z", "")).collect();
    let items = pieces.join("%%");
    let items = parse_strftime_borrowed(&items).map_err(|e| e.to_string())?;
    moment.format(&items).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_writes_them() {
        let moment = OffsetDateTime::from_unix_timestamp(1_707_134_405).unwrap();
        for (format, expected) in [
            ("%d %B %Y", "05 February 2024"),
            ("%d %b %Y", "05 Feb 2024"),
            ("%Y-%m-%d %H:%M:%S", "2024-02-05 12:00:05"),
            ("%-d/%-m/%y", "5/2/24"),
            ("%A, %e. %j %p%Z 100%%z", "Monday,  5. 036 PM 100%z"),
            ("today", "today"),
        ] {
            assert_eq!(show(moment, format).unwrap(), expected);
        }
        assert!(show(moment, "%Q").is_err());
    }

    #[test]
    fn a_run_keeps_its_date() {
        let temporary = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&temporary.path().join("run")).unwrap();
        let file = run.root().join(FILE);
        std::fs::write(&file, "yesterday").unwrap();
        assert!(keep(&run).unwrap_err().to_string().contains("holds no date"));
        std::fs::remove_file(&file).unwrap();
        keep(&run).unwrap();
        let written = std::fs::read_to_string(&file).unwrap();
        keep(&run).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
        assert_eq!(strftime_now("%Y-%m-%d").unwrap(), written[..10]);
    }
}
