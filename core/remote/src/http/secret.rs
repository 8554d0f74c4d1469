//! What is secret in an address: it stands in the environment. The address, which run folders keep, only names its variable.

use url::Url;

/// What secrets are called in a query or in the fields of a request, without case, `-` and `_`.
const NAMES: [&str; 16] = [
    "key",
    "apikey",
    "xapikey",
    "accesskey",
    "subscriptionkey",
    "token",
    "apitoken",
    "accesstoken",
    "authtoken",
    "secret",
    "clientsecret",
    "password",
    "passwd",
    "authorization",
    "sig",
    "signature",
];

pub fn is_name(name: &str) -> bool {
    NAMES.contains(&name.to_lowercase().replace(['-', '_'], "").as_str())
}

/// Puts what `${VARIABLES}` hold into an address, where it may be secret: user, password, values of the query. Refuses what is written out there.
pub fn fill(url: &mut Url, env: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let value = |name: &str| {
        let value = env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        value.ok_or_else(|| format!("names the variable {name}, which is not set or empty"))
    };
    if url.path().contains("$%7B") {
        return Err("names a variable in its path, where it would be shown; one may stand for user and password, and for values of the query".into());
    }
    let (user, password) = (decoded(url.username()), url.password().map(decoded));
    let login = match (variable(&user), password.as_deref()) {
        (None, None) if user.is_empty() => None,
        (None, None) => return Err(written_out("a user", "https://${LOGIN}@host with user:password in it")),
        (Some(login), None) => {
            let login = value(login)?;
            let (user, password) = login.split_once(':').unwrap_or((&login, ""));
            Some((user.to_owned(), password.to_owned()))
        }
        (name, Some(password)) => {
            let hidden =
                variable(password).ok_or_else(|| written_out("a password", "https://user:${PASSWORD}@host"))?;
            Some((name.map_or(Ok(user.clone()), value)?, value(hidden)?))
        }
    };
    if let Some((user, password)) = login {
        // Both fail only for addresses without a host, which are refused before.
        let _ = url.set_username(&user);
        let _ = url.set_password(Some(&password).filter(|p| !p.is_empty()).map(String::as_str));
    }
    let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut filled = false;
    for (name, given) in &mut query {
        if let Some(variable) = variable(given) {
            (*given, filled) = (value(variable)?, true);
        } else if is_name(name) && !given.is_empty() {
            return Err(written_out(&format!("the value of \"{name}\""), &format!("?{name}=${{VARIABLE}}")));
        }
    }
    if filled {
        url.query_pairs_mut().clear().extend_pairs(query);
    }
    Ok(())
}

fn written_out(what: &str, instead: &str) -> String {
    format!(
        "holds {what}, and addresses are kept in run folders: put it into an environment variable, and write {instead}"
    )
}

/// The name in `${NAME}`.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let fits = |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
    Some(name).filter(|n| !n.is_empty() && n.chars().enumerate().all(fits))
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "LOGIN" => Some("me:pa/ss:w@rd\n".to_owned()),
            "PASSWORD" => Some("p&=".into()),
            "EMPTY" => Some(" ".into()),
            _ => None,
        };
        let mut url = Url::parse(text).unwrap();
        fill(&mut url, env).map(|()| url.to_string())
    }

    #[test]
    fn variables_stand_for_what_is_secret() {
        for (text, expected) in [
            ("https://${LOGIN}@h/x", "https://me:pa%2Fss%3Aw%40rd@h/x"),
            ("https://you:${PASSWORD}@h/x?v=a%20b", "https://you:p&%3D@h/x?v=a%20b"),
            ("https://${PASSWORD}@h/", "https://p&%3D@h/"),
            ("https://h/x?v=1&key=${PASSWORD}", "https://h/x?v=1&key=p%26%3D"),
            ("https://h/x?max_tokens=5&key=", "https://h/x?max_tokens=5&key="),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_written_out_is_refused_and_not_repeated() {
        let wrong = [
            "https://me:hunter2@h/",
            "https://me:${hunter-2}@h/",
            "https://hunter2@h/",
            "https://h/?API-Key=hunter2",
            "https://h/?v=1&access_token=hunter2",
            "https://${NOT_SET}@h/",
            "https://h/?token=${EMPTY}",
            "https://h/${LOGIN}/x",
        ];
        let said = wrong.map(|text| filled(text).unwrap_err());
        assert!(said.iter().all(|s| !s.contains("hunter")), "{said:?}");
        insta::assert_snapshot!(said.join("\n"));
    }
}
