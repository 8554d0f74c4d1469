//! Keys and passwords are sent to servers, and stand in no file, message or page.

use motrain_tests::server::{self, Asked, Reply, serve};
use motrain_tests::{failure, motrain};
use std::path::{Path, PathBuf};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|p| if p.is_dir() && !p.is_symlink() { files(&p) } else { vec![p] })
        .filter(|p| p.is_file())
        .collect()
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let echo = |_: usize, asked: &Asked| {
        let key = asked.header("authorization").unwrap_or("none").to_owned();
        Some(Reply::status(401, &format!("wrong key: {key} pass%2Fword pass/word")))
    };
    let (address, seen) = serve(echo);
    let f = tempfile::tempdir().unwrap();
    let url = format!("{}/get_reward?token=${{TOKEN}}", address.replace("http://", "http://${LOGIN}@"));
    let asks = |options: &str| {
        let mut command = server::fit(f.path(), "Remote", "remote", &format!("url: \"{url}\"{options}"));
        command.env("LOGIN", "me:pass/word").env("TOKEN", "query-secret").env("REMOTE_KEY", "sk-secret");
        command
    };
    let message = failure(&mut asks(""));
    assert_eq!(seen.asked()[0].header("authorization"), Some("Basic bWU6cGFzcy93b3Jk"));
    assert!(seen.asked()[0].line.contains("?token=query-secret"));
    let key = failure(&mut asks(", api_key_env: \"REMOTE_KEY\""));
    assert_eq!(seen.asked()[1].header("authorization"), Some("Bearer sk-secret"));
    for secret in ["pass%2Fword", "pass/word", "query-secret", "sk-secret", "me:"] {
        assert!(!message.contains(secret) && !key.contains(secret), "{secret}: {message} {key}");
        for file in files(&f.path().join("out")) {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
    }
    // And so the run is resumed: with the variables, or a message that names what is missing.
    let resume = || {
        let mut command = motrain(f.path());
        command.args(["--resume", "out"]).env("TOKEN", "query-secret").env("REMOTE_KEY", "sk-secret");
        command
    };
    assert!(failure(&mut resume()).contains("the variable LOGIN, which is not set or empty"));
    assert!(failure(resume().env("LOGIN", "me:pass/word")).contains("answered with status 401"));
}
