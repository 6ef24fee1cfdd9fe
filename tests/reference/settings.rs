//! The variables that the services read: found in their code, each with its default and what it is for.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::{code, source, table};
use crate::support::recording::check;

/// The purpose of each variable. The test fails if a variable is missing here or if no service reads it.
const MEANINGS: [(&str, &str); 16] = [
    ("API_GATEWAY_ADDR", "where it listens, `IP:PORT`"),
    ("BODY_TIMEOUT_MS", "the longest pause in the body of a request, in milliseconds"),
    ("LLM_API_KEY", "sent to the model's server as `Authorization: Bearer`"),
    ("LLM_BASE_URL", "a server of OpenAI's protocol; unset, the offline model answers"),
    ("LLM_MODEL", "the model to ask for; needed with `LLM_BASE_URL`"),
    ("LLM_SERVICE_ADDR", "where it listens, `IP:PORT`"),
    ("LLM_SERVICE_TIMEOUT_MS", "how long a call may take, to its last byte, in milliseconds"),
    ("LLM_SERVICE_URL", "where llm-service is"),
    ("LLM_TIMEOUT_MS", "how long the model may take, in milliseconds"),
    (
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "`true` puts prompts and answers on spans",
    ),
    ("OTEL_SDK_DISABLED", "`true` records no span; the context is passed on all the same"),
    ("OTEL_SERVICE_NAME", "takes the place of the service's own name"),
    (
        "SHUTDOWN_TIMEOUT_MS",
        "how long requests in flight may take after a signal to stop, in milliseconds",
    ),
    ("USER_SERVICE_ADDR", "where it listens, `IP:PORT`"),
    ("USER_SERVICE_TIMEOUT_MS", "how long a call may take, to its last byte, in milliseconds"),
    ("USER_SERVICE_URL", "where user-service is"),
];

/// The services that a file of the example is a part of.
const FILES: [(&str, &str); 6] = [
    ("bin/api_gateway.rs", "api-gateway"),
    ("bin/user_service.rs", "user-service"),
    ("bin/llm_service.rs", "llm-service"),
    ("model.rs", "llm-service"),
    ("server.rs", "all"),
    ("telemetry.rs", "all"),
];

#[test]
fn every_variable_of_the_services_is_listed_with_its_default() {
    let mut found = BTreeMap::new();
    for (file, service) in FILES {
        for (name, default) in variables(&source(file)) {
            found.insert(name, (service, default));
        }
    }
    let meanings: BTreeMap<&str, &str> = MEANINGS.into_iter().collect();
    let (read, meant): (BTreeSet<&str>, BTreeSet<&str>) =
        (found.keys().map(String::as_str).collect(), meanings.keys().copied().collect());
    assert_eq!(read, meant, "read by the code, and described here");
    let rows = found.iter().map(|(name, (service, default))| {
        let default = if default.is_empty() { "unset".to_owned() } else { code(default) };
        vec![code(name), (*service).to_owned(), default, meanings[name.as_str()].to_owned()]
    });
    let table = table(&["Variable", "Read by", "Default", "Purpose"], rows);
    check!("reference/settings.md", &table);
}

/// Every read goes through `settings`, and [`variables`] knows its calls.
#[test]
fn only_settings_reads_the_environment() {
    let root = crate::support::root().join("examples/distributed_tracing/src");
    let known: Vec<&str> = FILES.iter().map(|(file, _)| *file).collect();
    let folders = [root.clone(), root.join("bin")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    for path in entries.map(|entry| entry.expect("an entry").path()).filter(|it| it.is_file()) {
        let name = path.strip_prefix(&root).expect("below it").to_str().expect("text");
        let text = std::fs::read_to_string(&path).expect("text");
        let own = text.contains("env::var") && name != "settings.rs";
        // The address of another service; its caller gives the name.
        let named = text.contains("settings::") && name != "outgoing.rs" && !known.contains(&name);
        assert!(!own && !named, "{name} reads variables that the reference does not know");
    }
}

/// The variables that a file reads through `settings`, with their defaults.
fn variables(text: &str) -> Vec<(String, String)> {
    let all = |pattern: &str| -> Vec<Vec<String>> {
        let pattern = Regex::new(pattern).expect("a pattern");
        let found = pattern.captures_iter(text);
        found
            .map(|it| {
                it.iter()
                    .skip(1)
                    .map(|group| group.map_or("", |it| it.as_str()).to_owned())
                    .collect()
            })
            .collect()
    };
    let mut variables = Vec::new();
    for call in all(r#"settings::read\(\s*"(\w+)",\s*"([^"]*)""#) {
        variables.push((call[0].clone(), call[1].clone()));
    }
    for call in all(r#"settings::(?:optional|server_url|flag)\(\s*"(\w+)""#) {
        variables.push((call[0].clone(), String::new()));
    }
    for call in all(r#"settings::deadline\(\s*"(\w+)",\s*(\w+)\)"#) {
        let seconds = all(&format!(r"const {}: Duration = Duration::from_secs\((\d+)\)", call[1]));
        variables.push((call[0].clone(), format!("{}000", seconds[0][0])));
    }
    for call in
        all(r#"Upstream::from_env\(\s*"(\w+)",\s*"([^"]+)",\s*Duration::from_secs\((\d+)\)"#)
    {
        variables.push((format!("{}_URL", call[0]), call[1].clone()));
        variables.push((format!("{}_TIMEOUT_MS", call[0]), format!("{}000", call[2])));
    }
    variables
}
