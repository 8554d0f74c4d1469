//! Options of components and stages: a struct with defaults gives the schema, the check and the did-you-mean.

use crate::error::{Error, Result};
use crate::schema;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `Err((option, what is wrong with it))`.
pub type Checked = std::result::Result<(), (&'static str, String)>;

/// The options of something that a user configures. The struct itself is the documentation: field comments become the schema's
/// descriptions, `Default` gives the defaults. Ranges, choices and lengths stand in the schema (`#[schemars(range(min = 1, max = 9))]`, an
/// enum), where they hold at every depth; `core/engine/tests/options.rs` fails for an option without any.
pub trait Options: DeserializeOwned + JsonSchema {
    /// How options go together, which a schema cannot say. Only what is parsed by itself is asked, not a struct inside another.
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
    let parsed: T = read(owner, options)?;
    parsed.check().map_err(|(option, what)| Error::BadOption { owner: owner.into(), option: option.into(), what })?;
    Ok(parsed)
}

/// Reads a part of options, which has only its schema to fit.
pub fn read<T: DeserializeOwned + JsonSchema>(owner: &str, options: &Value) -> Result<T> {
    let empty = Value::Object(Default::default());
    let options = if options.is_null() { &empty } else { options };
    schema::check(owner, &schema_of::<T>(), options)?;
    serde_json::from_value(options.clone()).map_err(|e| Error::BadOptions { owner: owner.into(), what: e.to_string() })
}

/// Checks a value that was made in Rust against its own schema.
pub fn check_value<T: Serialize + JsonSchema>(owner: &str, value: &T) -> Result<()> {
    let json =
        serde_json::to_value(value).map_err(|e| Error::BadOptions { owner: owner.into(), what: e.to_string() })?;
    schema::check(owner, &schema_of::<T>(), &json)
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
    struct Strength {
        /// How strong.
        beta: f64,
    }
    impl Default for Strength {
        fn default() -> Self {
            Self { beta: 0.1 }
        }
    }
    impl Options for Strength {
        fn check(&self) -> Checked {
            if self.beta > 0.0 { Ok(()) } else { Err(("beta", format!("must be above 0, not {}", self.beta))) }
        }
    }

    fn failure(options: Value) -> String {
        parse::<Strength>("loss \"dpo\"", &options).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn reads_and_names_the_option_at_fault() {
        assert_eq!(parse::<Strength>("x", &json!({"beta": 1})).unwrap().beta, 1.0);
        assert_eq!(parse::<Strength>("x", &Value::Null).unwrap().beta, 0.1);
        assert_eq!(failure(json!({"betta": 1})), "loss \"dpo\" has no option \"betta\"; did you mean \"beta\"?");
        assert_eq!(failure(json!({"beta": -1})), "loss \"dpo\": option \"beta\" must be above 0, not -1");
        assert_eq!(failure(json!({"beta": "a"})), "loss \"dpo\": option \"beta\" must be a number, not \"a\"");
    }

    #[test]
    fn describes_itself() {
        assert_eq!(describe(&schema_of::<Strength>()), ["beta = 0.1  How strong."]);
    }
}
