//! Reads attributes by their names in the stable semantic conventions, and also by older names: those that OpenTelemetry used
//! before, and those of OpenTracing and Zipkin.

use crate::proto::trace::Span as Proto;

use crate::span::attribute;

/// The first attribute that the span has.
pub(crate) fn first(proto: &Proto, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| attribute(proto, key))
}

/// The method of an HTTP request.
pub(crate) fn method(proto: &Proto) -> Option<String> {
    first(proto, &["http.request.method", "http.method"])
}

/// The status of an HTTP response.
pub(crate) fn status(proto: &Proto) -> Option<String> {
    first(proto, &["http.response.status_code", "http.status_code"])
}

/// The path of an HTTP request, without its query.
pub(crate) fn path(proto: &Proto) -> Option<String> {
    let path = first(proto, &["url.path", "http.target", "http.path"]);
    let path = path.or_else(|| first(proto, &["url.full", "http.url"]))?;
    path_of(&path).map(str::to_owned)
}

/// The path of a URL, or of a path with a query.
fn path_of(url: &str) -> Option<&str> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None if url.starts_with('/') => url,
        None => return None,
    };
    path.split(['?', '#']).next()
}

/// The host that a span calls, without its port.
pub(crate) fn host(proto: &Proto) -> Option<String> {
    let address = first(proto, &["server.address", "net.peer.name", "peer.hostname"]);
    address.or_else(|| {
        let url = first(proto, &["url.full", "http.url"])?;
        let (_, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let port =
            host.rfind(':').filter(|at| host[*at + 1..].bytes().all(|it| it.is_ascii_digit()));
        Some(host[..port.unwrap_or(host.len())].to_owned()).filter(|host| !host.is_empty())
    })
}

/// The destination of a call, as its caller names it: a service, or else a system and a host.
pub(crate) fn destination(proto: &Proto) -> Option<String> {
    const SYSTEMS: [&str; 5] = [
        "db.system.name",
        "db.system",
        "messaging.system",
        "gen_ai.provider.name",
        "gen_ai.system",
    ];
    if let Some(name) = first(proto, &["service.peer.name", "peer.service"]) {
        return Some(name);
    }
    let host = host(proto).map(|host| match first(proto, &["server.port", "net.peer.port"]) {
        Some(port) if port != "80" && port != "443" => format!("{host}:{port}"),
        _ => host,
    });
    match (first(proto, &SYSTEMS), host) {
        (Some(system), Some(host)) => Some(format!("{system} at {host}")),
        (system, host) => system.or(host),
    }
}

/// Whether the span has a URL with a scheme and a host. Some instrumentations record a path under the same name.
pub(crate) fn has_whole_url(proto: &Proto) -> bool {
    let url = first(proto, &["url.full", "http.url"]);
    url.is_some_and(|url| {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        matches!(scheme, "http" | "https" | "ws" | "wss") && !rest.is_empty()
    })
}

/// The name of the remote procedure, or the status of its answer, where the span has one.
pub(crate) fn rpc(proto: &Proto) -> Option<String> {
    let method = first(proto, &["rpc.method", "grpc.method", "rpc.grpc.full_method"])?;
    Some(method.rsplit('/').next().unwrap_or_default().to_owned())
}

/// The status of a remote procedure call, such as `NOT_FOUND`. In older conventions gRPC's is a number.
pub(crate) fn rpc_status(proto: &Proto) -> Option<String> {
    let status = first(proto, &["rpc.status_code", "rpc.response.status_code"]);
    status.or_else(|| {
        let number = attribute(proto, "rpc.grpc.status_code")?;
        let name = number.parse().ok().and_then(|number: usize| GRPC.get(number));
        Some(name.map_or(number, |name| (*name).to_owned()))
    })
}

/// The names of gRPC's status codes, by their numbers.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Whether the span is a call of a database or of a message broker. Such a call isn't answered by a SERVER span of another
/// service, except by one of the database itself.
pub(crate) fn is_database_or_queue(proto: &Proto) -> bool {
    const PREFIXES: [&str; 7] =
        ["db.", "messaging.", "message_bus.", "sql.", "cassandra.", "redis.", "mongodb."];
    let has_prefix = |key: &str| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    proto.attributes.iter().any(|attribute| has_prefix(&attribute.key))
}

/// The port of the other end of a call, or the service's own.
pub(crate) fn ports(proto: &Proto) -> impl Iterator<Item = String> {
    const KEYS: [&str; 6] = [
        "server.port",
        "client.port",
        "network.peer.port",
        "net.peer.port",
        "net.host.port",
        "peer.port",
    ];
    KEYS.into_iter().filter_map(|key| attribute(proto, key))
}
