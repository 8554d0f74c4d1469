//! Options of components and stages: a struct with defaults gives the schema, the check and the did-you-mean.

use crate::error::{Error, Result, did_you_mean};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `Err((option, what is wrong with it))`.
pub type Checked = std::result::Result<(), (&'static str, String)>;

/// The options of something that a user configures. The struct itself is the documentation: field comments
/// become the schema's descriptions, `Default` gives the defaults.
pub trait Options: DeserializeOwned + JsonSchema {
    /// What types cannot say: `("beta", "must be above 0")` names the option and what is wrong with it.
    fn check(&self) -> Checked {
        Ok(())
    }
}

/// The JSON schema of `T`.
pub fn schema_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// Reads options; `owner` (`loss "dpo"`) is named in errors. `null` stands for no options.
pub fn parse<T: Options>(owner: &str, options: &Value) -> Result<T> {
    let empty = Value::Object(Default::default());
    let options = if options.is_null() { &empty } else { options };
    check_names(owner, &schema_of::<T>(), options)?;
    let parsed: T = serde_json::from_value(options.clone()).map_err(|e| locate(owner, options, &e))?;
    parsed.check().map_err(|(option, what)| Error::BadOption { owner: owner.into(), option: option.into(), what })?;
    Ok(parsed)
}

/// Refuses option names that the schema does not list.
pub fn check_names(owner: &str, schema: &Value, options: &Value) -> Result<()> {
    let Value::Object(given) = options else {
        return Err(Error::BadOptions { owner: owner.into(), what: format!("options must be a map, not {options}") });
    };
    let none = Default::default();
    let known = match schema.get("properties") {
        Some(Value::Object(known)) => known,
        _ => &none,
    };
    for option in given.keys() {
        if !known.contains_key(option) {
            return Err(Error::UnknownOption {
                owner: owner.into(),
                option: option.clone(),
                suggestion: did_you_mean(option, known.keys().map(String::as_str)),
            });
        }
    }
    Ok(())
}

/// serde says what is wrong but not where: the option at fault is the one without which the error changes.
fn locate(owner: &str, options: &Value, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if let Value::Object(map) = options {
        for (option, value) in map {
            let shown = match value {
                Value::String(s) => format!("string \"{s}\""),
                Value::Number(n) if n.is_f64() => format!("floating point `{n}`"),
                Value::Number(n) => format!("integer `{n}`"),
                Value::Bool(b) => format!("boolean `{b}`"),
                _ => continue,
            };
            if text.contains(&shown) {
                return Error::BadOption { owner: owner.into(), option: option.clone(), what: format!("has {text}") };
            }
        }
    }
    Error::BadOptions { owner: owner.into(), what: text }
}

/// One line per option: name, type, default and description, for `motrain list`.
pub fn describe(schema: &Value) -> Vec<String> {
    let Some(Value::Object(properties)) = schema.get("properties") else {
        return Vec::new();
    };
    let line = |(name, property): (&String, &Value)| {
        let default = property.get("default").map(|d| format!(" = {d}")).unwrap_or_default();
        let about = property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        format!("{name}{default}  {about}").trim_end().to_owned()
    };
    properties.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        /// How strong.
        beta: f64,
    }
    impl Default for Sample {
        fn default() -> Self {
            Self { beta: 0.1 }
        }
    }
    impl Options for Sample {
        fn check(&self) -> Checked {
            if self.beta > 0.0 { Ok(()) } else { Err(("beta", format!("must be above 0, not {}", self.beta))) }
        }
    }

    fn failure(options: Value) -> String {
        parse::<Sample>("loss \"dpo\"", &options).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn reads_and_names_the_option_at_fault() {
        assert_eq!(parse::<Sample>("x", &json!({"beta": 1})).unwrap().beta, 1.0);
        assert_eq!(parse::<Sample>("x", &Value::Null).unwrap().beta, 0.1);
        assert_eq!(failure(json!({"betta": 1})), "loss \"dpo\" has no option \"betta\"; did you mean \"beta\"?");
        assert_eq!(failure(json!({"beta": -1})), "loss \"dpo\": option \"beta\" must be above 0, not -1");
        assert_eq!(
            failure(json!({"beta": "a"})),
            "loss \"dpo\": option \"beta\" has invalid type: string \"a\", expected f64"
        );
    }

    #[test]
    fn describes_itself() {
        assert_eq!(describe(&schema_of::<Sample>()), ["beta = 0.1  How strong."]);
    }
}
