//! The fields of a JSON file, taken one by one. What is left at the end was not understood: it is refused or named, never dropped.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[derive(Clone)]
pub struct Fields(Map<String, Value>);

/// What a file says, or what is wrong with it.
pub type Said<T> = Result<T, String>;

impl Fields {
    pub fn parse(text: &str) -> Said<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err("is no JSON object".into()),
            Err(e) => Err(format!("is not JSON: {e}")),
        }
    }

    /// A field's value; null says nothing.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Said<Option<T>> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|e| format!("{name}: {e}")),
        }
    }

    pub fn need<T: DeserializeOwned>(&mut self, name: &str) -> Said<T> {
        self.take(name)?.ok_or_else(|| format!("has no {name}"))
    }

    /// Whether the field is there, null or not.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A whole number that the field says, left where it is.
    pub fn peek(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    /// What the field says, left where it is.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Names of all fields that are there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The field as `name = value`.
    pub fn shown(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| shown(name, value))
    }

    /// What the field says where the file does not say it, or says null.
    pub fn usual(&mut self, name: &str, value: impl Into<Value>) {
        if self.0.get(name).is_none_or(Value::is_null) {
            self.0.insert(name.into(), value.into());
        }
    }

    /// Gives a field the name that others have for it.
    pub fn rename(&mut self, name: &str, common: &str) {
        if let Some(value) = self.0.shift_remove(name).filter(|v| !v.is_null()) {
            self.0.insert(common.into(), value);
        }
    }

    /// Leaves out fields that change nothing.
    pub fn harmless(&mut self, names: &[&str]) {
        for name in names {
            self.0.shift_remove(*name);
        }
    }

    /// The fields that are left and say something, as `name = value`.
    pub fn left(self) -> Vec<(String, String)> {
        let says = |v: &Value| match v {
            Value::Null | Value::Bool(false) => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        self.0.into_iter().filter(|(_, v)| says(v)).map(|(name, v)| (name.clone(), shown(&name, &v))).collect()
    }
}

impl From<Fields> for Map<String, Value> {
    fn from(fields: Fields) -> Self {
        fields.0
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

fn shown(name: &str, value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{name} = {}…", &text[..end]),
        None => format!("{name} = {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_left() {
        let mut fields = Fields::parse(r#"{"a": 1, "b": null, "c": "x", "d": [], "e": false, "f": {"g": 2}}"#).unwrap();
        assert_eq!(fields.take::<i64>("a"), Ok(Some(1)));
        assert_eq!(fields.take::<i64>("b"), Ok(None));
        assert_eq!(fields.take::<i64>("c").unwrap_err(), "c: invalid type: string \"x\", expected i64");
        assert_eq!(fields.need::<i64>("h").unwrap_err(), "has no h");
        assert_eq!(fields.left(), [("f".to_owned(), "f = {\"g\":2}".to_owned())]);
    }
}
