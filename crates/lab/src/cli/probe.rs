//! The command `probe`: its arguments, its report and its exit status.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, anyhow, bail};
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use clap::Args;

use super::{Outcome, ReceiverAddresses};
use crate::http::{NotAUrl, Url};
use crate::list::duration;
use crate::output::print;
use crate::probe::cases::{self, Case, Rule, Spec, Value};
use crate::probe::judge::{Finding, Found, Judged, Out, OutParent, OutTrace, Verdict};
use crate::probe::neighbor::{Answer, Neighbor, Route};
use crate::probe::request::Template;
use crate::probe::{Pattern, Plan, Report};
use crate::span::shortened;
use crate::store::Refused;
use crate::tree::visible;
use crate::waterfall::count;
use traces::headers::Format;

/// The arguments of the command.
#[derive(Args)]
pub struct Probe {
    /// A request that the service accepts: 'POST http://localhost:8080/checkout'. Without a method it is GET, or POST with --body.
    /// Only http: name the address of the service behind TLS.
    #[arg(value_name = "REQUEST")]
    request: String,
    /// The body of the request, or @FILE.
    #[arg(long, value_name = "BODY", help_heading = "Request")]
    body: Option<String>,
    /// A header of the request, such as 'Authorization: Bearer …'. Can be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header, help_heading = "Request")]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// An address where the service calls another one. The probe listens there and answers, or passes the calls on to the real
    /// service at TARGET. Can be given several times.
    #[arg(
        long = "neighbor",
        value_name = "[NAME=]ADDRESS[,TARGET]",
        value_parser = neighbor,
        required_unless_present = "leaf",
        conflicts_with = "leaf",
        help_heading = "Neighbors"
    )]
    neighbors: Vec<Neighbor>,
    /// An answer of the neighbors: 'POST /generate=@answer.json', '/users/*=404', 'PUT /cart=201 {}'. The extension of the file
    /// gives the content type. Everything else is answered 200 with {}. Can be given several times.
    #[arg(long = "answer", value_name = "[METHOD ]PATH=[STATUS ][BODY]", value_parser = answer, help_heading = "Neighbors")]
    answers: Vec<Answer>,
    /// A route that the service calls on its own, such as 'GET /health'. Such calls are answered and not judged. Can be given
    /// several times.
    #[arg(long = "ignore", value_name = "[METHOD ]PATH", value_parser = route, help_heading = "Neighbors")]
    ignored: Vec<Route>,
    /// The service calls no other one. Its spans alone are judged.
    #[arg(long, conflicts_with = "no_spans", help_heading = "Neighbors")]
    leaf: bool,
    /// The service is at the edge: it has to start a new trace for each request and must not continue the caller's. It may link to
    /// the caller.
    #[arg(long, help_heading = "Rules")]
    edge: bool,
    /// A case that may fail, by its name in the table: it is then reported only. Can be given several times.
    #[arg(long = "allow", value_name = "CASE", help_heading = "Rules")]
    allowed: Vec<String>,
    /// Also sends the headers that SDKs in several languages and Envoy send.
    #[arg(long, help_heading = "Rules")]
    callers: bool,
    /// Judges the calls alone and receives no spans.
    #[arg(long, help_heading = "Rules")]
    no_spans: bool,
    #[command(flatten)]
    receivers: ReceiverAddresses,
    /// How long to wait for a call or a span after the last one. The default is just above the 5 seconds for which SDKs keep their
    /// spans.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "6s", help_heading = "Waiting")]
    settle: Duration,
    /// How long an answer may take, and all spans together.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", help_heading = "Waiting")]
    timeout: Duration,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let usage = "write NAME: VALUE";
    let (name, value) = text.split_once(':').ok_or(usage)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| usage)?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| usage)?;
    Ok((name, value))
}

fn neighbor(text: &str) -> Result<Neighbor, String> {
    let (address, target) = match text.split_once(',') {
        Some((address, target)) => (address, Some(target)),
        None => (text, None),
    };
    let (name, address) = address.split_once('=').unwrap_or((address, address));
    // A socket needs a number.
    let number = address.replace("localhost:", "127.0.0.1:");
    let number = number.parse();
    let address = number.map_err(|_| format!("{address} is not an address: write HOST:PORT"))?;
    let target = target.map(|target| match Url::parse(target) {
        Ok(Url { authority, path }) if path == "/" => Ok(authority),
        Ok(_) => Err(format!("{target} has a path: write http://HOST:PORT")),
        Err(error) => Err(error.to_string()),
    });
    Ok(Neighbor { name: name.to_owned(), address, target: target.transpose()? })
}

fn route(text: &str) -> Result<Route, &'static str> {
    text.parse()
}

fn answer(text: &str) -> Result<Answer, String> {
    let (route, answer) = text.split_once('=').ok_or("write PATH=@FILE")?;
    let answer = answer.trim();
    let (status, body) = match answer.split_once(' ') {
        _ if answer.parse::<u16>().is_ok() => (Some(answer), ""),
        Some((status, body)) if status.parse::<u16>().is_ok() => (Some(status), body.trim()),
        _ => (None, answer),
    };
    let status = status.map(str::parse::<StatusCode>).transpose();
    let status = status.map_err(|_| format!("{answer} does not begin with an HTTP status"))?;
    let (media_type, body) = content(body).map_err(|error| format!("{error:#}"))?;
    Ok(Answer { route: route.parse()?, status: status.unwrap_or(StatusCode::OK), media_type, body })
}

/// Reads a body, or that of a file, and its content type.
fn content(body: &str) -> anyhow::Result<(&'static str, Bytes)> {
    let Some(path) = body.strip_prefix('@') else {
        let media_type = match serde_json::from_str::<serde_json::Value>(body) {
            Ok(_) => "application/json",
            Err(_) => "text/plain; charset=utf-8",
        };
        return Ok((media_type, Bytes::copy_from_slice(body.as_bytes())));
    };
    let bytes = std::fs::read(path).with_context(|| format!("{path} cannot be read"))?;
    let media_type = match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "xml" => "application/xml",
        _ => "application/octet-stream",
    };
    Ok((media_type, bytes.into()))
}

impl Probe {
    /// Probes the service and prints the report. The outcome is [`Outcome::Found`] when a case failed.
    ///
    /// # Errors
    /// Fails when the service can't be asked or nothing shows what it does.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let plan = self.plan()?;
        let requests = plan.cases.len();
        let Template { method, url: Url { authority, path }, .. } = &plan.request;
        let request = format!("{method} http://{authority}{path}");
        let probe = crate::probe::Probe::bind(plan).await?;
        if let Some([otlp, grpc]) = probe.receivers {
            eprintln!("Receiving spans at http://{otlp} and http://{grpc} (gRPC).");
        }
        eprintln!("Sending {requests} requests to {request}, one after the other.");
        let report = probe.run().await?;
        print(&text(&report))?;
        match report.incomplete {
            _ if report.is_broken() => Ok(Outcome::Found),
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Fine),
        }
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let (method, url) = match self.request.trim().split_once(' ') {
            Some((method, url)) => (Some(method.to_uppercase()), url.trim()),
            None => (None, self.request.trim()),
        };
        let default = if self.body.is_some() { "POST" } else { "GET" };
        let method = method.as_deref().unwrap_or(default);
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            bail!("{method:?} is not an HTTP method: write 'POST http://HOST:PORT/PATH'");
        };
        let url = Url::parse(url).map_err(|error| match error {
            NotAUrl::Https(_) => anyhow!("{error}: name the address of the service behind TLS"),
            NotAUrl::Invalid(_) => anyhow!("{error}"),
        })?;
        let mut headers = self.headers.clone();
        let mut bytes = Bytes::new();
        if let Some(body) = &self.body {
            let (media_type, body) = content(body)?;
            if !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
                headers.push((CONTENT_TYPE, HeaderValue::from_static(media_type)));
            }
            bytes = body;
        }
        let mut cases = cases::cases();
        if self.callers {
            cases.extend(cases::callers()?);
        }
        if let Some(unknown) =
            self.allowed.iter().find(|name| cases.iter().all(|it| it.name != **name))
        {
            let names: Vec<&str> = cases.iter().map(|it| &*it.name).collect();
            bail!("no case is called {unknown:?} (--allow); they are: {}", names.join("; "));
        }
        Ok(Plan {
            request: Template { method, url, headers, body: bytes },
            cases,
            neighbors: self.neighbors.clone(),
            answers: self.answers.clone(),
            ignored: self.ignored.clone(),
            receivers: (!self.no_spans).then_some([self.receivers.otlp, self.receivers.grpc]),
            edge: self.edge,
            allowed: self.allowed.clone(),
            settle: self.settle,
            timeout: self.timeout,
        })
    }
}

/// Writes the report: a table, a sentence for each finding, and what the letters stand for.
pub fn text(report: &Report) -> String {
    let rows: Vec<[String; 4]> = report
        .judged
        .iter()
        .map(|it| [it.case.name.to_string(), came(&it.case), went(&it.out), rule(it.case.rule)])
        .collect();
    let heads = ["Case", "In", "Out", "Rule"];
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default().max(heads[column].len())
    };
    let [names, ins, outs] = [0, 1, 2].map(width);
    let line = |cells: [&str; 4], verdict: &str| {
        let [name, came, went, rule] = cells;
        format!("{name:names$}  {came:ins$}  {went:outs$}  {verdict}  {rule}").trim_end().to_owned()
            + "\n"
    };
    let mut text = line(heads, "Verdict");
    for (judged, row) in report.judged.iter().zip(&rows) {
        let verdict = format!("{:7}", word(judged.verdict));
        text += &line(row.each_ref().map(String::as_str), &styled(judged.verdict, &verdict));
    }
    let sentences = sentences(&report.judged);
    if !sentences.is_empty() {
        text += &format!("\n{sentences}");
    }
    if let Some(pattern) = report.pattern() {
        text += &format!("\n{}\n", cause(pattern));
    }
    if let Some(Refused { requests, reason }) = &report.refused {
        text += &format!(
            "\nSpans are missing here because the probe rejected some in {}. The first reason:\n  {}\n",
            count(*requests, "request"),
            visible(reason)
        );
    }
    text += &format!("\n{}\n\n{}", summary(&report.judged), legend(&report.judged));
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Sound => "sound",
        Verdict::Noted => "noted",
        Verdict::Unseen => "unseen",
        Verdict::Broken => "BROKEN",
    }
}

fn styled(verdict: Verdict, text: &str) -> String {
    let style = match verdict {
        Verdict::Sound => Style::new(),
        Verdict::Noted | Verdict::Unseen => AnsiColor::Yellow.on_default(),
        Verdict::Broken => AnsiColor::Red.on_default().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// The characters of a header that fit into the table.
const HEADER_SHOWN: usize = 28;

/// Writes the headers of a case, with letters for ids.
fn came(case: &Case) -> String {
    let headers = case.headers.iter().map(|(name, value)| {
        let value = match value {
            Value::Template(template) => template.replace(['O', 'Q'], "0…0"),
            Value::Members(count) => return format!("{count} members"),
            Value::Entries(count) => return format!("{count} entries"),
        };
        match &**name {
            "traceparent" => value,
            // The name of the case has that of the header.
            _ if value.is_empty() => "\"\"".to_owned(),
            _ => shortened(&value, HEADER_SHOWN),
        }
    });
    let headers: Vec<String> = headers.collect();
    match headers.is_empty() {
        true => "-".to_owned(),
        false => headers.join(" + "),
    }
}

/// Writes what went out, once for equal calls.
fn went(out: &[Out]) -> String {
    let mut texts: Vec<(String, usize)> = Vec::new();
    for it in out {
        let text = sent(it);
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times += 1,
            None => texts.push((text, 1)),
        }
    }
    let texts: Vec<String> = texts
        .into_iter()
        .map(|(text, times)| if times > 1 { format!("{times} x {text}") } else { text })
        .collect();
    match texts.is_empty() {
        true => "-".to_owned(),
        false => texts.join(", "),
    }
}

fn sent(out: &Out) -> String {
    let trace = |trace: &OutTrace| match trace {
        OutTrace::Callers => "T",
        OutTrace::Second => "X",
        OutTrace::New => "N",
    };
    match out {
        Out::Traceparent { version, trace: id, parent, flags } => {
            let parent = match parent {
                OutParent::Callers => "P",
                OutParent::Client => "C",
                OutParent::New => "S",
            };
            format!("{version:02x}-{}-{parent}-{flags:02x}", trace(id))
        }
        Out::Other(values) if values.is_empty() => "none".to_owned(),
        Out::Other(values) if values.len() > 1 => format!("{} headers", values.len()),
        Out::Other(values) => shortened(&visible(&values.concat()), HEADER_SHOWN),
        Out::Span { trace: id, below_caller: true } => format!("span of {} below P", trace(id)),
        Out::Span { trace: id, below_caller: false } => format!("span of {}", trace(id)),
    }
}

/// Writes the short name of a document and the section.
fn rule(rule: Rule) -> String {
    format!("{} {}", document(rule.spec).0, rule.section)
}

/// The short name and the address of a document.
fn document(spec: Spec) -> (&'static str, &'static str) {
    match spec {
        Spec::TraceContext => ("TC", "https://www.w3.org/TR/trace-context/"),
        Spec::TraceContext2 => ("TC2", "https://www.w3.org/TR/trace-context-2/"),
        Spec::Suite => ("Suite", "https://github.com/w3c/trace-context/tree/main/test"),
        Spec::Baggage => ("Baggage", "https://www.w3.org/TR/baggage/"),
        Spec::OpenTelemetry => ("OTel", "https://opentelemetry.io/docs/specs/otel/"),
        Spec::B3 => ("B3", "https://github.com/openzipkin/b3-propagation"),
        Spec::Jaeger => ("Jaeger", "https://www.jaegertracing.io/docs/1.76/client-libraries/"),
    }
}

/// Writes a line for each kind of finding, with the cases that it is in.
fn sentences(judged: &[Judged]) -> String {
    let mut lines: Vec<(Verdict, String, Vec<&str>)> = Vec::new();
    let mut add = |verdict: Verdict, sentence: String, case| match lines
        .iter_mut()
        .find(|(is, known, _)| *is == verdict && *known == sentence)
    {
        Some((.., cases)) => cases.push(case),
        None => lines.push((verdict, sentence, vec![case])),
    };
    for Judged { case, found, verdict, .. } in judged {
        for Found { call, finding, verdict } in found {
            let call = call.as_ref().map(|call| format!(", in {}", visible(call)));
            let rule = finding.rule().filter(|it| *it != case.rule);
            let rule = rule.map(|it| format!(" ({})", self::rule(it)));
            let [call, rule] = [call, rule].map(Option::unwrap_or_default);
            add(*verdict, format!("{}{call}{rule}", sentence(finding)), &*case.name);
        }
        if *verdict == Verdict::Unseen {
            let nothing = "neither a call nor a span shows what the service did";
            add(*verdict, nothing.to_owned(), &*case.name);
        }
    }
    // The worst first.
    lines.sort_by_key(|(verdict, ..)| std::cmp::Reverse(*verdict));
    let lines = lines.into_iter().map(|(verdict, sentence, cases)| {
        let cases = match cases.len() {
            0..=CASES_NAMED => cases.join(", "),
            count => format!(
                "{} and {} more",
                cases[..CASES_NAMED - 1].join(", "),
                count + 1 - CASES_NAMED
            ),
        };
        let word = styled(verdict, &format!("{:6}", word(verdict)));
        format!("{word}  {sentence}\n        in {cases}\n")
    });
    lines.collect()
}

/// The most cases that a finding names.
const CASES_NAMED: usize = 4;

fn sentence(finding: &Finding) -> String {
    let format = |format: &Format| match format {
        Format::B3 | Format::B3Multi => "B3",
        Format::Jaeger => "Jaeger's header",
        Format::Datadog => "Datadog's headers",
        Format::XRay => "X-Ray's header",
        Format::GoogleCloud => "Google Cloud's header",
    };
    match finding {
        Finding::NoAnswer(reason) => format!("the service did not answer: {reason}"),
        Finding::OtherStatus { first, status } => {
            format!("the service answered {status}, and {first} to the first request")
        }
        Finding::NoTraceparent => "no traceparent was sent on".to_owned(),
        Finding::NotStarted => "no trace was started: no traceparent was sent".to_owned(),
        Finding::SeveralTraceparents(count) => {
            format!("{count} traceparent headers were sent on")
        }
        Finding::Invalid { value, reason } => {
            format!("an invalid traceparent was sent on, {}: {reason}", visible(value))
        }
        Finding::LaterVersion(version) => {
            format!("version {version:02x} was sent on, which nobody knows yet: 00 is the highest")
        }
        Finding::NotContinued => "the trace was not continued".to_owned(),
        Finding::Believed => "the ids of an invalid header were used".to_owned(),
        Finding::OneOfTwo => "the ids of one of the two headers were used".to_owned(),
        Finding::ContinuedAtEdge => {
            "the caller's trace was continued, and --edge says that a new one starts".to_owned()
        }
        Finding::SeveralTraces(count) => {
            format!("the calls of this one request are in {count} traces")
        }
        Finding::CallersParent => {
            "the caller's parent id was sent on: the service has no span of its own there"
                .to_owned()
        }
        Finding::SameParent => "two calls carry the same parent id".to_owned(),
        Finding::NoSpan => "no span has the parent id that was sent on".to_owned(),
        Finding::NotTheClient(kind) => {
            format!(
                "the parent that was sent on is a {kind} span, and not the CLIENT span of the call"
            )
        }
        Finding::NoClient(kind) => {
            format!("the service has no CLIENT span here: the parent is its {kind} span")
        }
        Finding::ReservedFlags(flags) => {
            format!("the flags {flags:02x} were sent on: those without a meaning must be zero")
        }
        Finding::Sampled(true) => "the call is sampled, and the caller isn't".to_owned(),
        Finding::Sampled(false) => "the call isn't sampled, and the caller is".to_owned(),
        Finding::Random(true) => "the random flag was set".to_owned(),
        Finding::Random(false) => "the random flag was not passed on".to_owned(),
        Finding::MembersLost { kept, of } => {
            format!("{kept} of {of} members of the tracestate were passed on unchanged")
        }
        Finding::MemberChanged(key) => {
            format!("the member {} of the tracestate was changed", visible(key))
        }
        Finding::Reordered => {
            "the members of the tracestate were put into another order".to_owned()
        }
        Finding::KeyTwice(key) => {
            format!("the key {} is in the tracestate twice", visible(key))
        }
        Finding::StateBelieved => {
            "the tracestate was passed on, although it came without a valid traceparent".to_owned()
        }
        Finding::EntriesLost { kept, of } => {
            format!("{kept} of {of} entries of the baggage were passed on")
        }
        Finding::EntryChanged { key, came, sent } => {
            let [key, came, sent] = [key, came, sent].map(|it| visible(it));
            format!("the entry {key} of the baggage was {came:?} and is {sent:?}")
        }
        Finding::FewerCalls { calls, first } => {
            format!("{} came, and {first} for the first request", count(*calls, "call"))
        }
        Finding::NotEntered => {
            "spans of the trace have arrived, and the caller's span is the parent of none"
                .to_owned()
        }
        Finding::Recorded => "spans were recorded, and the caller isn't sampled".to_owned(),
        Finding::Reads(format_, true) => format!("the service reads {}", format(format_)),
        Finding::Reads(format_, false) => {
            format!("the service does not read {}: it starts a new trace", format(format_))
        }
    }
}

/// The usual causes of what all cases show.
fn cause(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::NeverContinues => {
            "The service continues no trace. Look for one of these:\n  \
             1. No propagator is set, or only one of another format.\n  \
             2. Nothing extracts: the server's instrumentation is missing, or is installed after the routes.\n  \
             3. The name of the header is compared in one case: in Python, dict(request.headers) has the key `Traceparent`, and \
             not `traceparent`.\n  \
             4. A call is made in a task or thread that doesn't have the context of the request.\n\
             If the service starts its own traces on purpose, say --edge."
        }
        Pattern::NeverSends => {
            "The service sends no traceparent. Look for one of these:\n  \
             1. The HTTP client is not instrumented, or the line that injects is missing.\n  \
             2. No propagator is set: in many SDKs the default one does nothing.\n  \
             3. Something between the service and the probe removes the header."
        }
    }
}

fn summary(judged: &[Judged]) -> String {
    let verdicts = [Verdict::Sound, Verdict::Noted, Verdict::Unseen, Verdict::Broken];
    let counts = verdicts.into_iter().filter_map(|verdict| {
        let count = judged.iter().filter(|it| it.verdict == verdict).count();
        (count > 0).then(|| format!("{count} {}", word(verdict).to_lowercase()))
    });
    format!("{}: {}.", count(judged.len(), "case"), counts.collect::<Vec<_>>().join(", "))
}

/// Explains the letters and the documents of a report.
fn legend(judged: &[Judged]) -> String {
    let used = |spec: Spec| {
        let found = judged.iter().flat_map(|it| &it.found);
        let mut rules = judged.iter().map(|it| it.case.rule);
        rules.any(|rule| rule.spec == spec)
            || found.filter_map(|it| it.finding.rule()).any(|rule| rule.spec == spec)
    };
    let documents = Spec::ALL.into_iter().filter(|spec| used(*spec)).map(|spec| {
        let (name, address) = document(spec);
        format!("{name:8}{address}\n")
    });
    let documents: String = documents.collect();
    format!(
        "T, P    the trace id and the parent id of the caller; U is T in upper case, X the trace id of a second header\n\
         N       a trace id that the caller didn't send\n\
         C, S    the id of a CLIENT span that has arrived, and any other new id\n{documents}"
    )
}
