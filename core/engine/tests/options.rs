//! Every option of every stage and component, at every depth, has a range, a choice or a length, and nothing outside it is accepted. The
//! values are made from the schemas, so that an option of tomorrow is tried too; one that declares nothing fails.

#![allow(clippy::unwrap_used)]

use motrain_core::registry::{Kind, Registry};
use motrain_engine::plan::Stage;
use motrain_engine::stage::STAGES;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Item,
}

/// A value that must be refused, and where it is put.
type Bad = (Vec<Step>, Value);

/// As error messages write it: `train.batch_size`, `sources[0].name`.
fn written(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Item => out += "[0]",
            Step::Key(key) if out.is_empty() => out += key,
            Step::Key(key) => out += &format!(".{key}"),
        }
    }
    out
}

fn put(into: &mut Value, path: &[Step], bad: &Value) {
    let Some((step, rest)) = path.split_first() else {
        *into = bad.clone();
        return;
    };
    match step {
        Step::Key(key) => {
            if !into.is_object() {
                *into = json!({});
            }
            put(&mut into[key.as_str()], rest, bad);
        }
        Step::Item => {
            if into.get(0).is_none() {
                *into = json!([null]);
            }
            put(&mut into[0], rest, bad);
        }
    }
}

/// Collects bad values, and options that declare too little.
struct Visit<'a> {
    root: &'a Value,
    bad: Vec<Bad>,
    open: Vec<String>,
}

impl Visit<'_> {
    fn resolved(&self, schema: &Value) -> Value {
        let Some(target) = schema["$ref"].as_str() else { return schema.clone() };
        let mut merged = self.root.pointer(&target[1..]).unwrap().as_object().unwrap().clone();
        merged.extend(
            schema.as_object().unwrap().iter().filter(|(k, _)| *k != "$ref").map(|(k, v)| (k.clone(), v.clone())),
        );
        self.resolved(&Value::Object(merged))
    }

    fn branches(&self, schema: &Value) -> Vec<Value> {
        let listed = ["anyOf", "oneOf"].iter().find_map(|k| schema[*k].as_array());
        listed.into_iter().flatten().map(|b| self.resolved(b)).collect()
    }

    fn types(&self, schema: &Value) -> Vec<String> {
        match &schema["type"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several.iter().map(|t| t.as_str().unwrap().to_owned()).collect(),
            _ if schema["enum"].is_array() || schema.get("const").is_some() => vec!["string".into()],
            _ => self.branches(schema).iter().flat_map(|b| self.types(b)).collect(),
        }
    }

    fn is_choice(&self, schema: &Value) -> bool {
        let one = |s: &Value| s["enum"].is_array() || s.get("const").is_some() || s["type"] == "null";
        let branches = self.branches(schema);
        one(schema) || (!branches.is_empty() && branches.iter().all(|b| self.is_choice(b)))
    }

    fn visit(&mut self, schema: &Value, path: &[Step]) {
        let schema = self.resolved(schema);
        if schema["x-any"] == true {
            return;
        }
        let types = self.types(&schema);
        if types.is_empty() {
            return self.open.push(format!("{} has no type", written(path)));
        }
        let has = |name: &str| types.iter().any(|t| t == name);
        let of_type: [(&str, bool, Value); 8] = [
            ("null", has("null"), Value::Null),
            ("boolean", has("boolean"), json!(true)),
            ("integer", has("integer") || has("number"), json!(3)),
            ("number", has("number"), json!(3.5)),
            ("number", has("number"), json!(8.0)),
            ("string", has("string"), json!("nonsense")),
            ("array", has("array"), json!([])),
            ("object", has("object"), json!({})),
        ];
        for (_, _, value) in of_type.into_iter().filter(|(_, fits, _)| !fits) {
            self.bad(path, value);
        }
        self.inside(&schema, path);
    }

    /// Bad values of the right type.
    fn inside(&mut self, schema: &Value, path: &[Step]) {
        if self.is_choice(schema) {
            self.bad(path, json!("nonsense"));
            return self.bad(path, json!(""));
        }
        for name in self.types(schema) {
            match name.as_str() {
                _ if schema["type"].is_null() => {}
                "number" | "integer" => self.number(schema, path, name == "integer"),
                "string" => self.text(schema, path),
                "array" => self.list(schema, path),
                "object" => self.map(schema, path),
                _ => {}
            }
        }
        for branch in self.branches(schema).iter().filter(|b| b["type"] != "null") {
            self.inside(branch, path);
        }
    }

    fn number(&mut self, schema: &Value, path: &[Step], whole: bool) {
        let bound = |keys: [&str; 2]| keys.iter().find_map(|k| schema[*k].as_f64().map(|b| (b, k.starts_with("excl"))));
        let (low, high) = (bound(["minimum", "exclusiveMinimum"]), bound(["maximum", "exclusiveMaximum"]));
        let (Some((low, above)), Some((high, below))) = (low, high) else {
            return self.open.push(format!("{} has no range", written(path)));
        };
        let step = if whole { 1.0 } else { (high - low) * 1e-6 };
        let mut numbers = vec![low - step, low - 1.0, -1e30, high + step, high * 2.0 + 1.0, 1e30, f64::MAX, f64::MIN];
        numbers.extend(above.then_some(low));
        numbers.extend(below.then_some(high));
        for number in numbers {
            let value = if whole && number.abs() < 1e18 { json!(number as i64) } else { json!(number) };
            self.bad(path, value);
        }
        if whole {
            [json!(u64::MAX), json!(i64::MIN), json!(low + 0.5)].into_iter().for_each(|v| self.bad(path, v));
        }
    }

    fn text(&mut self, schema: &Value, path: &[Step]) {
        let Some(most) = schema["maxLength"].as_u64() else {
            return self.open.push(format!("{} has neither a choice nor a length", written(path)));
        };
        self.bad(path, json!("x".repeat(most as usize + 1)));
        for length in 0..schema["minLength"].as_u64().unwrap_or(0) {
            self.bad(path, json!("x".repeat(length as usize)));
        }
        match schema["format"].as_str() {
            Some("name") => ["a\nb", " a", "a ", "a\u{1b}[31m", " "].iter().for_each(|t| self.bad(path, json!(t))),
            Some("regex") => self.bad(path, json!("(")),
            Some(other) => self.open.push(format!("{} has the format {other}, which is not tried here", written(path))),
            None => {}
        }
    }

    fn list(&mut self, schema: &Value, path: &[Step]) {
        let Some(most) = schema["maxItems"].as_u64() else {
            return self.open.push(format!("{} has no greatest number of items", written(path)));
        };
        self.bad(path, Value::Array(vec![Value::Null; most as usize + 1]));
        if schema["minItems"].as_u64() > Some(0) {
            self.bad(path, json!([]));
        }
        if schema["format"] == "weights" {
            [json!([0.5, 0.6]), json!([0.0, 0.0]), json!([0.5])].into_iter().for_each(|v| self.bad(path, v));
        }
        self.visit(&schema["items"], &[path, &[Step::Item]].concat());
    }

    fn map(&mut self, schema: &Value, path: &[Step]) {
        let at = |key: &str| [path, &[Step::Key(key.to_owned())]].concat();
        if schema["additionalProperties"].is_object() {
            if schema["maxProperties"].is_null() {
                self.open.push(format!("{} has no greatest number of entries", written(path)));
            }
            return self.visit(&schema["additionalProperties"], &at("some"));
        }
        self.bad(&at("no_such"), json!(1));
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            self.visit(property, &at(key));
        }
    }

    fn bad(&mut self, path: &[Step], value: Value) {
        self.bad.push((path.to_vec(), value));
    }
}

/// Tries all that is outside of the schema on top of a good sample; returns how many values were tried.
fn refuses_all(
    owner: &str,
    schema: &Value,
    sample: &Value,
    check: &dyn Fn(&Value) -> motrain_core::Result<()>,
) -> usize {
    check(sample).unwrap_or_else(|e| panic!("the sample of {owner} is refused: {e}"));
    let mut visit = Visit { root: schema, bad: vec![], open: vec![] };
    visit.map(&visit.resolved(schema), &[]);
    assert!(visit.open.is_empty(), "{owner}: {}", visit.open.join("; "));
    for (path, value) in &visit.bad {
        let mut options = sample.clone();
        put(&mut options, path, value);
        let shown: String = value.to_string().chars().take(60).collect();
        let message = check(&options).err().unwrap_or_else(|| panic!("{owner} accepts {} = {shown}", written(path)));
        let message = message.to_string();
        assert!(
            message.contains(&format!("option \"{}", written(path))),
            "{owner}, {} = {shown}: {message}",
            written(path)
        );
    }
    visit.bad.len()
}

fn stage_sample(kind: &str) -> Value {
    let with = |more: Value| {
        let mut all = json!({ "policy": "m", "prompts": { "paths": ["p"] }, "rewards": "r", "sampler": { "name": "grid" },
                              "conditioner": { "name": "none" } });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let without = |keys: &[&str], more: Value| {
        let mut all = with(more);
        keys.iter().for_each(|k| drop(all.as_object_mut().unwrap().remove(*k)));
        all
    };
    let judged = json!({ "name": "d", "weights": [0.8, 0.2], "judge": { "name": "gold" } });
    match kind {
        "init_model" => {
            json!({ "corpus": ["c"], "vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "layers": 1,
                                "heads": 2, "kv_heads": 1, "context": 16 })
        }
        "ratings" => without(&["sampler", "conditioner"], json!({})),
        "sft" | "reward_model" => json!({ "model": "m", "data": { "paths": ["d"] } }),
        "rewards" => {
            let sources = json!([{ "name": "A", "source": { "name": "length" } }]);
            without(&["rewards", "sampler", "conditioner"], json!({ "sources": sources }))
        }
        "ric_data" => without(&["sampler", "conditioner"], json!({})),
        "best_of_n" | "reinforce" => with(json!({})),
        "online_preference" => with(json!({ "label": { "name": "weighted_sum" }, "loss": { "name": "dpo" } })),
        "preference_data" => without(&["conditioner"], json!({ "label": { "name": "weighted_sum" } })),
        "preference" => without(&["prompts"], json!({ "data": { "paths": ["d"] }, "loss": { "name": "dpo" } })),
        "soup" => json!({ "of": { "base": "m", "parts": ["a"] }, "weights": [1.0] }),
        "evaluate" => without(&["sampler"], json!({ "name": "e" })),
        "ceiling" => without(&["policy", "sampler", "conditioner"], json!({ "name": "c" })),
        "compare" => json!({ "method": "a", "against": ["b"], "dimensions": [judged, judged] }),
        other => panic!("give a sample of stage {other}"),
    }
}

fn component_sample(kind: Kind, name: &str) -> Value {
    let statistics = json!({ "mean": [0.0], "std": [1.0], "low": [-1.0], "high": [1.0] });
    let chat = json!({ "url": "http://localhost:1/v1", "model": "m", "template": "{answer} {first} {second}" });
    match (kind, name) {
        (_, "fixed") => json!({ "weights": [0.5, 0.5] }),
        (_, "template") => json!({ "text": "{A} {prompt}" }),
        (_, "instructions") => json!({ "sentences": { "A": ["", "more"] } }),
        (_, "rewards_in_context") => json!({ "statistics": statistics }),
        (_, "lexicon") => json!({ "words": { "good": 1.0 } }),
        (_, "smooth_tchebycheff") => json!({ "ideal": [1.0] }),
        (_, "regex") => json!({ "pattern": "a+" }),
        (_, "column") => json!({ "column": "c" }),
        (_, "gold") => json!({ "score": "hh_helpful" }),
        (_, "reward_model") => json!({ "model": "m" }),
        (_, "implicit") => json!({ "policy": "m", "reference": "m" }),
        (_, "remote") => json!({ "url": "http://localhost:1/get_reward" }),
        (Kind::Reward, "chat") => chat,
        (Kind::Judge, "chat") => json!({ "url": chat["url"], "model": "m", "question": "q" }),
        _ => json!({}),
    }
}

#[test]
fn stages_refuse_every_value_outside_its_range() {
    for kind in STAGES {
        let check = |options: &Value| Stage::read(kind.name, "s", options).map(|_| ());
        let tried = refuses_all(kind.name, &(kind.schema)(), &stage_sample(kind.name), &check);
        assert!(tried > 40, "{}: only {tried} values", kind.name);
    }
}

#[test]
fn components_refuse_every_value_outside_its_range() {
    let mut registry = Registry::builtin();
    motrain_remote::register(&mut registry).unwrap();
    motrain_tasks::register(&mut registry).unwrap();
    motrain_engine::reward::register(&mut registry, "cpu", "f32").unwrap();
    let mut tried = 0;
    for kind in Kind::ALL {
        for (name, _, schema) in registry.list(kind) {
            let check = |options: &Value| registry.check(kind, name, options);
            tried += refuses_all(&format!("{} {name}", kind.name()), schema, &component_sample(kind, name), &check);
        }
    }
    assert!(tried > 500, "only {tried} values");
}
