//! The environment of a service that `lab run` starts.

use std::ffi::OsStr;
use std::path::Path;

use crate::held::Receivers;
use crate::http::Url;

/// How long an SDK collects spans and log records before it sends them, in milliseconds.
const EXPORT_DELAY: &str = "200";

/// The signals that have settings of their own.
const SIGNALS: [&str; 3] = ["TRACES", "LOGS", "METRICS"];

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const NAME: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The settings of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The variables to set.
    pub set: Vec<(String, String)>,
    /// The variables that were set already and are left alone.
    pub kept: Vec<String>,
    /// Those of [`Settings::kept`] that send spans or log records to another place than the lab, or nowhere.
    pub elsewhere: Vec<String>,
    /// The name of the service.
    pub service: String,
}

impl Settings {
    /// Decides the settings. `is` looks up a variable of the environment, `name` is the name that was asked for, and `program` is
    /// what is run. An empty variable counts as absent, as OpenTelemetry's specification says.
    pub fn new(
        is: impl Fn(&str) -> Option<String>,
        receivers: &Receivers,
        name: Option<&str>,
        program: &OsStr,
    ) -> Self {
        let is = |key: &str| is(key).filter(|value| !value.is_empty());
        let mut settings = Settings {
            set: Vec::new(),
            kept: Vec::new(),
            elsewhere: Vec::new(),
            service: service(&is, name, program),
        };
        let endpoint = is(ENDPOINT);
        // With the endpoint of another receiver goes its protocol.
        let protocol = match (is(PROTOCOL), &endpoint) {
            (None, None) => settings.set(PROTOCOL, "http/protobuf"),
            (protocol, _) => protocol.unwrap_or_default(),
        };
        if endpoint.is_none() {
            settings.set(ENDPOINT, receivers.url(is_grpc(&protocol)));
        }
        for signal in SIGNALS {
            let of_signal = |what: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
            let own = is(&of_signal("PROTOCOL"));
            let differs = own.is_some_and(|own| is_grpc(&own) != is_grpc(&protocol));
            if differs && endpoint.is_none() && is(&of_signal("ENDPOINT")).is_none() {
                let url = receivers.url(!is_grpc(&protocol));
                let path = format!("/v1/{}", signal.to_lowercase());
                let path = if is_grpc(&protocol) { &path } else { "" };
                settings.set(&of_signal("ENDPOINT"), format!("{url}{path}"));
            }
        }
        for delay in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"] {
            if is(delay).is_none() {
                settings.set(delay, EXPORT_DELAY);
            }
        }
        if name.is_some() || !(is(NAME).is_some() || attribute(&is).is_some()) {
            settings.set(NAME, settings.service.clone());
        }
        settings.compare(&is, receivers);
        settings
    }

    fn set(&mut self, key: &str, value: impl Into<String>) -> String {
        let value = value.into();
        self.set.push((key.to_owned(), value.clone()));
        value
    }

    /// Lists what is left alone.
    fn compare(&mut self, is: &impl Fn(&str) -> Option<String>, receivers: &Receivers) {
        let ours = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY", ATTRIBUTES, NAME];
        let general = [ENDPOINT, PROTOCOL, "OTEL_SDK_DISABLED"].map(str::to_owned);
        let of_signals = SIGNALS.into_iter().flat_map(|signal| {
            ["EXPORTER_OTLP_{}_ENDPOINT", "EXPORTER_OTLP_{}_PROTOCOL", "{}_EXPORTER"]
                .map(|it| format!("OTEL_{}", it.replace("{}", signal)))
        });
        for key in general.into_iter().chain(of_signals).chain(ours.map(str::to_owned)) {
            let is_new = self.set.iter().any(|(set, _)| *set == key);
            let Some(value) = is(&key).filter(|_| !is_new) else { continue };
            let is_metrics = key.contains("METRICS");
            let is_elsewhere = match key.as_str() {
                "OTEL_SDK_DISABLED" => value.eq_ignore_ascii_case("true"),
                key if key.ends_with("_ENDPOINT") => !receivers.are_at(&value),
                key if key.ends_with("S_EXPORTER") => !value.contains("otlp"),
                _ => false,
            };
            if is_elsewhere && !is_metrics {
                self.elsewhere.push(key.clone());
            }
            self.kept.push(key);
        }
    }
}

fn is_grpc(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("grpc")
}

/// The name of the service that the SDK will use.
fn service(is: &impl Fn(&str) -> Option<String>, name: Option<&str>, program: &OsStr) -> String {
    let of_program = || {
        let file = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
        file.strip_suffix(std::env::consts::EXE_SUFFIX).unwrap_or(&file).to_owned()
    };
    let set = name.map(str::to_owned).or_else(|| is(NAME)).or_else(|| attribute(is));
    set.unwrap_or_else(of_program)
}

/// The name of the service in the attributes of its resource.
fn attribute(is: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let attributes = is(ATTRIBUTES)?;
    let mut pairs = attributes.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == "service.name").map(|(_, name)| name.trim().to_owned())
}

impl Receivers {
    fn url(&self, is_grpc: bool) -> String {
        format!("http://{}", if is_grpc { &self.grpc } else { &self.otlp })
    }

    /// Whether a URL is that of one of these receivers. Every name and address of this machine's loopback interface counts as the
    /// same host.
    fn are_at(&self, url: &str) -> bool {
        let Ok(Url { authority, .. }) = Url::parse(url) else { return false };
        [&self.otlp, &self.grpc]
            .into_iter()
            .any(|it| host_and_port(it) == host_and_port(&authority))
    }
}

fn host_and_port(authority: &str) -> (&str, &str) {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    match host {
        "127.0.0.1" | "[::1]" | "0.0.0.0" => ("localhost", port),
        host => (host, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of `./shop` with these variables, separated by blanks.
    fn with(environment: &str, name: Option<&str>) -> Settings {
        let variables: Vec<_> =
            environment.split(' ').filter_map(|it| it.split_once('=')).collect();
        let is = |key: &str| {
            let found = variables.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        let receivers =
            Receivers { otlp: "127.0.0.1:1".to_owned(), grpc: "127.0.0.1:2".to_owned() };
        Settings::new(is, &receivers, name, OsStr::new("./bin/shop"))
    }

    fn set(settings: &Settings) -> Vec<String> {
        let set = settings.set.iter();
        let lines = set.map(|(key, value)| {
            format!("{}={value}", key.trim_start_matches("OTEL_").replace("EXPORTER_OTLP_", ""))
        });
        lines.filter(|it| !it.contains("DELAY")).collect()
    }

    #[test]
    fn a_setting_of_the_user_wins() {
        let all = ["PROTOCOL=http/protobuf", "ENDPOINT=http://127.0.0.1:1", "SERVICE_NAME=shop"];
        assert_eq!(set(&with("", None)), all);
        assert_eq!(set(&with("OTEL_SERVICE_NAME= OTEL_EXPORTER_OTLP_ENDPOINT=", None)), all);

        // The receiver follows the protocol.
        let grpc = with("OTEL_EXPORTER_OTLP_PROTOCOL=grpc", None);
        assert_eq!(set(&grpc), ["ENDPOINT=http://127.0.0.1:2", "SERVICE_NAME=shop"]);
        let mixed = with("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc", Some("till"));
        assert_eq!(set(&mixed)[2..], ["TRACES_ENDPOINT=http://127.0.0.1:2", "SERVICE_NAME=till"]);
        let other = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/json";
        assert_eq!(set(&with(other, None))[1], "LOGS_ENDPOINT=http://127.0.0.1:1/v1/logs");

        // Another endpoint keeps its protocol.
        let elsewhere = with("OTEL_EXPORTER_OTLP_ENDPOINT=https://vendor:4317", None);
        assert_eq!(set(&elsewhere), ["SERVICE_NAME=shop"]);
        assert_eq!(elsewhere.elsewhere, ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let here = with("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:2/", None);
        assert!(here.elsewhere.is_empty(), "{here:?}");
        assert_eq!(here.kept, ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let nowhere = with("OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none", None);
        assert_eq!(nowhere.elsewhere, ["OTEL_TRACES_EXPORTER"]);
    }

    #[test]
    fn the_name_is_that_of_the_flag_then_of_the_environment_then_of_the_program() {
        let attributes = "OTEL_RESOURCE_ATTRIBUTES=a=b,service.name=till";
        for (environment, name, service, is_set) in [
            ("", None, "shop", true),
            ("OTEL_SERVICE_NAME=pay", None, "pay", false),
            (attributes, None, "till", false),
            ("OTEL_RESOURCE_ATTRIBUTES=a=b", None, "shop", true),
            ("OTEL_SERVICE_NAME=pay", Some("mine"), "mine", true),
            (attributes, Some("mine"), "mine", true),
        ] {
            let settings = with(environment, name);
            assert_eq!(settings.service, service, "{environment}");
            let set = settings.set.iter().any(|(key, _)| key == NAME);
            assert_eq!(set, is_set, "{environment}");
        }
    }
}
