//! The files of the OpenTelemetry Collector, and what can be said of them without it. It is asked itself in the
//! workflow: examples/validate.sh.

use std::collections::BTreeSet;
use std::fs;

use serde_yaml_ng::Value;

/// A file of the repository.
pub fn source(path: &str) -> String {
    let text = fs::read_to_string(support::root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn parse(yaml: &str) -> Value {
    serde_yaml_ng::from_str(yaml).unwrap_or_else(|error| panic!("{error} in {yaml}"))
}

/// A YAML file of the repository.
pub fn yaml(path: &str) -> Value {
    parse(&source(path))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value:?}"))
}

/// The texts of a list.
pub fn texts(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().map(text).collect()
}

/// The keys and values of a mapping whose keys are texts; of nothing, none.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_mapping().into_iter().flatten().map(|(key, value)| (text(key), value))
}

/// A Collector's file whose parts fit together: it defines all that it uses, and uses all that it defines.
pub fn collector(path: &str) -> Value {
    let file = yaml(path);
    let service = &file["service"];
    for kind in ["receivers", "processors", "exporters", "extensions"] {
        let mut used: BTreeSet<&str> = texts(&service["extensions"]).into_iter().collect();
        if kind != "extensions" {
            used = entries(&service["pipelines"]).flat_map(|(_, it)| texts(&it[kind])).collect();
        }
        let defined: BTreeSet<&str> = entries(&file[kind]).map(|(name, _)| name).collect();
        assert_eq!(used, defined, "{path}: {kind}");
    }
    file
}
