//! Checks documents of the lab against the JSON Schemas of the reference.

use regex::Regex;
use serde_json::{Map, Value};

use crate::root;

/// Checks a document against the schema in `src/reference/schema/NAME.json`. A field that the schema doesn't have is a fault, so that
/// a schema can't lag behind.
pub fn conforms(name: &str, document: &Value) {
    let path = root().join(format!("src/reference/schema/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let schema = serde_json::from_str(&text).expect("JSON");
    let mut faults = Vec::new();
    check(&schema, &schema, document, name, &mut faults);
    assert!(faults.is_empty(), "{}\n{document:#}", faults.join("\n"));
}

/// The keywords that say nothing about a document.
const REMARKS: [&str; 4] = ["$schema", "$defs", "title", "description"];

fn check(root: &Value, schema: &Value, found: &Value, at: &str, faults: &mut Vec<String>) {
    let schema = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in schema.iter().filter(|(keyword, _)| !REMARKS.contains(&keyword.as_str()))
    {
        let is_met = match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().expect("a reference").trim_start_matches('#');
                let target = root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
                check(root, target, found, at, faults);
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|it| is_of(it, found)),
                one => is_of(one, found),
            },
            "enum" => rule.as_array().expect("values").contains(found),
            "anyOf" => rule.as_array().expect("schemas").iter().any(|rule| {
                let mut faults = Vec::new();
                check(root, rule, found, at, &mut faults);
                faults.is_empty()
            }),
            "minimum" => found.as_f64() >= rule.as_f64(),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().expect("a pattern")).expect("a pattern");
                found.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => {
                let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                names.into_iter().all(|name| found.get(name).is_some())
            }
            "properties" => {
                properties(root, rule.as_object().expect("schemas"), found, at, faults);
                true
            }
            "items" => {
                for (index, item) in found.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}[{index}]"), faults);
                }
                true
            }
            keyword => panic!("{keyword} is not checked: add it here"),
        };
        if !is_met {
            faults.push(format!("{at}: {found} breaks {keyword} {rule}"));
        }
    }
}

fn properties(
    root: &Value,
    schemas: &Map<String, Value>,
    found: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    for (name, value) in found.as_object().into_iter().flatten() {
        match schemas.get(name) {
            Some(schema) => check(root, schema, value, &format!("{at}.{name}"), faults),
            None => faults.push(format!("{at}.{name} is not in the schema")),
        }
    }
}

fn is_of(name: &Value, found: &Value) -> bool {
    match name.as_str().expect("the name of a type") {
        "array" => found.is_array(),
        "boolean" => found.is_boolean(),
        "integer" => found.is_i64() || found.is_u64(),
        "null" => found.is_null(),
        "object" => found.is_object(),
        "string" => found.is_string(),
        other => panic!("no type is named {other}"),
    }
}
