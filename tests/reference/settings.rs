//! The variables that the services read: found in their code, each with its default and what it is for.

use std::collections::BTreeMap;

use course::hops;
use regex::{Captures, Regex};

use super::{code, table};
use crate::gates::TREE;
use support::recording::check;

/// The purpose of each variable. The test fails if a variable is missing here or if no service reads it.
#[rustfmt::skip] // one row for each variable
const MEANINGS: [(&str, &str); 17] = [
    ("API_GATEWAY_ADDR", "where it listens, `IP:PORT`"),
    ("BODY_TIMEOUT_MS", "the longest pause in the body of a request, in milliseconds"),
    ("HEAD_TIMEOUT_MS", "how long a connection may take to send the head of its first or next request, in milliseconds"),
    ("LLM_API_KEY", "sent to the model's server as `Authorization: Bearer`"),
    ("LLM_BASE_URL", "a server of OpenAI's protocol; unset, the offline model answers"),
    ("LLM_MODEL", "the model to ask for; needed with `LLM_BASE_URL`"),
    ("LLM_SERVICE_ADDR", "where it listens, `IP:PORT`"),
    ("LLM_SERVICE_TIMEOUT_MS", "how long a call may take, to its last byte, in milliseconds"),
    ("LLM_SERVICE_URL", "where llm-service is"),
    ("LLM_TIMEOUT_MS", "how long the model may take, in milliseconds"),
    ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "`true` puts prompts and answers on spans"),
    ("OTEL_SDK_DISABLED", "`true` records no span; the context is passed on all the same"),
    ("OTEL_SERVICE_NAME", "takes the place of the service's own name"),
    ("SHUTDOWN_TIMEOUT_MS", "how long requests in flight may take after a signal to stop, in milliseconds"),
    ("USER_SERVICE_ADDR", "where it listens, `IP:PORT`"),
    ("USER_SERVICE_TIMEOUT_MS", "how long a call may take, to its last byte, in milliseconds"),
    ("USER_SERVICE_URL", "where user-service is"),
];

/// The folders of the services and of the tutorial, and the files that they share.
const SOURCES: &str = "examples/production/src/";
const TUTORIAL: &str = "examples/distributed_tracing/src/";
const FROM_THE_TUTORIAL: [&str; 2] = ["error", "server"];

/// A call that reads a variable: its name, and its default or the constant that holds it.
const READ: &str = r#"settings::(?:bearer|deadline|flag|optional|read|server_url)\(\s*"(\w+)"(?:,\s*(?:"([^"]*)"|(\w+)))?"#;

/// A call that reads two: where another service is, and how long it may take.
const UPSTREAM: &str =
    r#"Upstream::from_env\(\s*"(\w+)",\s*"([^"]+)",\s*Duration::from_secs\((\d+)\)"#;

/// Every read goes through `settings`, by calls that [`variables`] knows.
#[test]
fn every_variable_of_the_services_is_listed_with_its_default() {
    let mut found = BTreeMap::new();
    let files = TREE.files(SOURCES, ".rs").map(str::to_owned);
    let shared = FROM_THE_TUTORIAL.map(|name| format!("{TUTORIAL}{name}.rs"));
    for file in files.chain(shared).filter(|file| !file.ends_with("/settings.rs")) {
        let text = TREE.read(&file);
        let count = |pattern| all(pattern, &text).len();
        // `Upstream::from_env` reads two variables, whose names its callers give.
        let read = if file.ends_with("/outgoing.rs") { 2 } else { count(READ) };
        assert_eq!(count("env::var"), 0, "{file}: only `settings` reads the environment");
        assert_eq!(count("settings::"), read, "{file}: a read that the reference doesn't know");
        assert_eq!(count("Upstream::from_env"), count(UPSTREAM), "{file}: an unknown upstream");
        let name = file.split_once("/src/").expect("a source").1.trim_end_matches(".rs");
        let service = match name.strip_prefix("bin/") {
            Some(_) => continue,
            None if hops::to(&name.replace('_', "-")).is_some() => name.replace('_', "-"),
            None if name == "model" => "llm-service".to_owned(),
            None if ["outgoing", "server", "telemetry"].contains(&name) => "all".to_owned(),
            None if read == 0 => continue,
            None => panic!("{file}: which services read its variables?"),
        };
        for (variable, default) in variables(&text) {
            found.insert(variable, (service.clone(), default));
        }
    }
    let meanings = BTreeMap::from(MEANINGS);
    let read = found.keys().map(String::as_str);
    assert!(read.eq(meanings.keys().copied()), "read: {found:#?}, described: {meanings:#?}");
    let rows = found.iter().zip(meanings.values()).map(|((name, (service, default)), purpose)| {
        let default = if default.is_empty() { "unset".to_owned() } else { code(default) };
        vec![code(name), service.clone(), default, (*purpose).to_owned()]
    });
    let table = table(&["Variable", "Read by", "Default", "Purpose"], rows);
    check!("reference/settings.md", &table);
}

/// The variables that a file reads through `settings`, with their defaults.
fn variables(text: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for call in all(READ, text) {
        let default = match call.get(3).map(|constant| constant.as_str()) {
            Some(constant) => {
                let value = format!(r"const {constant}: Duration = Duration::from_secs\((\d+)\)");
                format!("{}000", &all(&value, text)[0][1])
            }
            None => call.get(2).map_or("", |default| default.as_str()).to_owned(),
        };
        variables.push((call[1].to_owned(), default));
    }
    for call in all(UPSTREAM, text) {
        variables.push((format!("{}_URL", &call[1]), call[2].to_owned()));
        variables.push((format!("{}_TIMEOUT_MS", &call[1]), format!("{}000", &call[3])));
    }
    variables
}

fn all<'a>(pattern: &str, text: &'a str) -> Vec<Captures<'a>> {
    Regex::new(pattern).expect("a pattern").captures_iter(text).collect()
}
