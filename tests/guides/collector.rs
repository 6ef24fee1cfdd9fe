//! The files of the OpenTelemetry Collector, and what can be said of them without it. It is asked itself in the
//! workflow: examples/validate.sh.

use std::collections::BTreeSet;
use std::fs;

use serde_yaml_ng::Value;

/// A file of the repository.
pub fn yaml(path: &str) -> Value {
    let text = fs::read_to_string(crate::support::root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of a list.
pub fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_sequence().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|it| it.as_str().expect("text")).collect()
}

/// A Collector's file whose parts fit together: what is defined is used, and what is used is defined.
pub fn collector(path: &str) -> Value {
    let file = yaml(path);
    let pipelines = file["service"]["pipelines"].as_mapping();
    let pipelines: Vec<&Value> = pipelines.expect("pipelines").values().collect();
    for kind in ["receivers", "processors", "exporters", "extensions"] {
        let defined: BTreeSet<&str> = file[kind]
            .as_mapping()
            .into_iter()
            .flat_map(|map| map.keys())
            .map(|name| name.as_str().expect("text"))
            .collect();
        let used: BTreeSet<&str> = match kind {
            "extensions" => texts(&file["service"][kind]).into_iter().collect(),
            _ => pipelines.iter().flat_map(|it| texts(&it[kind])).collect(),
        };
        assert_eq!(used, defined, "{path}: {kind}");
    }
    file
}
