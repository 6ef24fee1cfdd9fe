//! The OpenTelemetry Collector with the files of the examples, and what a test can say about these files without it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_yaml_ng::Value;
use tempfile::NamedTempFile;
use tokio::process::Command;

use super::component::{Component, installed, output_of};
use crate::gates::TREE;

/// Its components that the Go proxy doesn't have, so the Collector of the tests is built without them.
pub const LEFT_OUT: &[&str] = &["loadbalancing"];

/// A Collector that isn't running yet.
pub struct Collector {
    file: NamedTempFile,
    command: Command,
}

impl Collector {
    /// A Collector with a file of the examples. Each of `moved` takes the place of an address in the file, and each of `variables` is
    /// set for it. Returns `None` where the Collector isn't installed.
    pub fn with(
        path: &str,
        moved: &[(&str, SocketAddr)],
        variables: &[(&str, &str)],
    ) -> Option<Collector> {
        let program = installed("collector")?.join("bin/collector");
        let mut text = source(path);
        for (address, to) in moved {
            assert!(text.contains(address), "{path} has no {address}");
            text = text.replace(address, &to.to_string());
        }
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
        fs::write(&file, text).expect("written");
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        Some(Collector { file, command })
    }

    /// Starts it and waits until it receives.
    pub async fn start(mut self) -> Component {
        // Its own metrics would take a fixed port.
        self.command.args(["--set", "service.telemetry.metrics.level=none", "--config"]);
        self.command.arg(self.file.path());
        let collector = Component::start(self.command, "Everything is ready").await;
        let lines = collector.lines().join("\n");
        assert!(!lines.contains("deprecated"), "the file uses an old name:\n{lines}");
        collector
    }

    /// The complaints of its command `validate`; empty where it has none.
    pub async fn complaints(mut self) -> String {
        self.command.args(["validate", "--config"]).arg(self.file.path());
        let output = self.command.output().await.expect("it runs");
        let complaints = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.success(), complaints.is_empty(), "{complaints}");
        complaints
    }
}

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

#[tokio::test]
async fn the_collector_accepts_the_files_of_all_examples() {
    for path in TREE.files("examples/", ".yaml").filter(|path| path.contains("/collector")) {
        let variables = ["BACKEND_ENDPOINT", "PHOENIX_ENDPOINT", "HONEYHIVE_ENDPOINT"];
        let variables = variables.map(|name| (name, "http://localhost:4318"));
        let variables = [&variables[..], &[("HH_API_KEY", "key")]].concat();
        let Some(collector) = Collector::with(path, &[], &variables) else { return };
        let complaints = collector.complaints().await;
        let file = yaml(path);
        match LEFT_OUT.iter().find(|name| !file["exporters"][**name].is_null()) {
            Some(name) => assert!(complaints.contains(&format!("unknown type: \"{name}\""))),
            None => assert_eq!(complaints, "", "{path}"),
        }
    }
}

#[test]
fn jaeger_accepts_its_file() {
    let Some(jaeger) = installed("jaeger") else { return };
    let file = "examples/more_than_one_machine/jaeger-cassandra.yaml";
    let mut validate = std::process::Command::new(jaeger.join("bin/jaeger"));
    output_of(validate.args(["validate", "--config", file]));
}
