//! Writes `crates/traces/src/proto/{common,resource,trace,collector,logs,logs_collector}.rs`: the messages of OTLP for traces and
//! logs, with the attributes for their JSON form.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use prost_build::{Config, Module};

/// Each Rust module, and the package and file that it is generated from.
const MODULES: [(&str, &str, &str); 6] = [
    ("common", "common.v1", "common/v1/common.proto"),
    ("resource", "resource.v1", "resource/v1/resource.proto"),
    ("trace", "trace.v1", "trace/v1/trace.proto"),
    ("collector", "collector.trace.v1", "collector/trace/v1/trace_service.proto"),
    ("logs", "logs.v1", "logs/v1/logs.proto"),
    ("logs_collector", "collector.logs.v1", "collector/logs/v1/logs_service.proto"),
];

/// The messages in which a field may be missing in JSON.
const WITH_DEFAULTS: [&str; 13] = [
    "ExportLogsServiceRequest",
    "ExportTraceServiceRequest",
    "InstrumentationScope",
    "LogRecord",
    "Resource",
    "ResourceLogs",
    "ResourceSpans",
    "ScopeLogs",
    "ScopeSpans",
    "Span",
    "Span.Event",
    "Span.Link",
    "Status",
];

/// The fields whose JSON form isn't serde's, with the attribute that changes it.
const FIELDS: [(&str, &str); 11] = [
    ("trace_id", "with = \"crate::proto::json::hex\""),
    ("span_id", "with = \"crate::proto::json::hex\""),
    ("parent_span_id", "with = \"crate::proto::json::hex\""),
    ("start_time_unix_nano", "with = \"crate::proto::json::number\""),
    ("end_time_unix_nano", "with = \"crate::proto::json::number\""),
    ("observed_time_unix_nano", "with = \"crate::proto::json::number\""),
    ("time_unix_nano", "with = \"crate::proto::json::number\""),
    ("AnyValue.value", "flatten"),
    ("int_value", "with = \"crate::proto::json::number\""),
    ("bytes_value", "with = \"crate::proto::json::base64\""),
    ("key_strindex", "default, skip_serializing_if = \"crate::proto::json::is_zero\""),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = MODULES.map(|(_, _, file)| format!("opentelemetry/proto/{file}"));
    let descriptors = protox::compile(&files, [folder])?.file;
    for ((module, package, _), file) in MODULES.iter().zip(&files) {
        let mut config = config();
        for (other, package, _) in MODULES.iter().filter(|(other, ..)| other != module) {
            let package = format!(".opentelemetry.proto.{package}");
            config.extern_path(package, format!("crate::proto::{other}"));
        }
        let package = format!("opentelemetry.proto.{package}");
        let requests = descriptors
            .iter()
            .map(|file| (Module::from_protobuf_package_name(file.package()), file.clone()));
        let code = config.generate(requests.collect())?;
        let code = &code[&Module::from_protobuf_package_name(&package)];
        let path = folder.join(format!("../src/proto/{module}.rs"));
        let header = format!(
            "// Generated from {file}; don't edit it.\n\
             // Copyright 2019, OpenTelemetry Authors. Licensed under the Apache License, Version 2.0: LICENSE-APACHE.\n\n"
        );
        fs::write(&path, header + code)?;
        let formatted = Command::new("rustfmt").args(["--edition", "2024"]).arg(&path).status()?;
        if !formatted.success() {
            return Err(format!("rustfmt {}: {formatted}", path.display()).into());
        }
    }
    Ok(())
}

fn config() -> Config {
    let mut config = Config::new();
    // The comments are in the definitions.
    config.disable_comments(["."]);
    let both =
        "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(rename_all = \"camelCase\")]";
    config.message_attribute(".", both);
    for message in WITH_DEFAULTS {
        config.message_attribute(message, "#[serde(default)]");
    }
    config.message_attribute("AnyValue", "#[serde(from = \"crate::proto::json::Fields\")]");
    let write = "#[derive(serde::Serialize)]\n#[serde(rename_all = \"camelCase\")]";
    config.enum_attribute("AnyValue.value", write);
    for (field, attribute) in FIELDS {
        config.field_attribute(field, format!("#[serde({attribute})]"));
    }
    config
}
