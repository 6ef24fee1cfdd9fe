//! The command `expect`: sends one request, waits for its trace and compares the trace with a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::receivers::Receivers;
use crate::store::{Limits, Store};
use anyhow::{Context as _, anyhow, bail, ensure};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request as HttpRequest, Uri};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::process::Command;
use trace_expect::text::{NOT_ALONE, Others, Text, finding, generalised, warnings};
use trace_expect::{self, Cause, Files, Own, Report, Source, new_traceparent, run};
use traces::diagnose::Rule;
use traces::expect::compare::Counts;
use traces::expect::{Request, Verdict, Waiting};
use traces::traceparent::Traceparent;

use super::ask::host_and_port;
use super::diagnose::escaped;
use super::{Outcome, ReceiverAddresses, document};
use crate::client::Lab;
use crate::http::{self, NotAUrl, Url};
use crate::output::{print, print_json};
use crate::process;
use crate::report;
use crate::sources::{Caller, Jaeger, RunningLab};
use crate::span::TraceId;
use crate::viewer::document::Remark;
use crate::waterfall::count;
use crate::wire::now;

/// The address of the lab that is used if one answers there.
const DEFAULT_SITE: &str = "127.0.0.1:3000";

/// The most connections that the own receivers take at each address.
const CONNECTIONS: usize = 250;

/// The arguments of the command.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Expect {
    /// The file that says what the trace looks like.
    file: PathBuf,
    /// The name of the request in a file with several.
    name: Option<String>,
    #[command(flatten)]
    pub how: How,
    /// Writes the file from what has arrived. Lines that are right stay as they are.
    #[arg(long)]
    update: bool,
    /// Also writes this attribute, with --update. Can be given several times.
    #[arg(long, value_name = "KEY", requires = "update")]
    attribute: Vec<String>,
    /// Writes only which services call which, with --update, for a request that the file doesn't have yet.
    #[arg(long, requires = "update")]
    edges: bool,
    /// Fails when other traces arrive, too.
    #[arg(long)]
    alone: bool,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Writes what has arrived as one HTML file when the request isn't as expected, with the report on top. A run of CI can keep the
    /// file.
    #[arg(long, value_name = "FILE", conflicts_with = "update")]
    html: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  lab expect checkout.trace --update -- curl -sSf localhost:8080/checkout -H 'traceparent: {traceparent}'
  lab expect checkout.trace -- ./checkout-test.sh
  lab expect checkout.trace --request 'POST http://localhost:8080/checkout' --body @order.json --status 200";

/// How a request is sent and its spans are received.
#[derive(Args, Clone)]
pub struct How {
    /// Sends this request: a method and a URL of http. Without it, give a command behind `--`.
    #[arg(long, value_name = "METHOD URL", conflicts_with = "command")]
    request: Option<String>,
    /// The body of the request, or `@` and the file that has it.
    #[arg(long, value_name = "BODY", requires = "request")]
    body: Option<String>,
    /// A header of the request, such as 'content-type: text/plain'. Can be given several times.
    #[arg(long, value_name = "HEADER", requires = "request")]
    header: Vec<String>,
    /// The status that the request must be answered with. Without it, any status is accepted.
    #[arg(long, value_name = "STATUS", requires = "request")]
    status: Option<u16>,
    /// For how long nothing may arrive before the trace counts as complete. SDKs export every 5 seconds, unless
    /// OTEL_BSP_SCHEDULE_DELAY says otherwise.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "6s")]
    settle: Duration,
    /// How long to wait for a trace that isn't as the file says, from the end of the request on.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    timeout: Duration,
    /// The address of a running lab whose receiver is used. Without it, a lab at 127.0.0.1:3000 is used, if there is one and
    /// neither --otlp nor --grpc gives another address. Otherwise the spans are received at --otlp and --grpc.
    #[arg(long, env = "LAB_SITE", hide_env_values = true, value_name = "ADDRESS", value_parser = host_and_port, help_heading = "Addresses")]
    site: Option<String>,
    #[command(flatten)]
    receivers: ReceiverAddresses,
    /// Reads the spans from a backend with Jaeger's query API, at this URL of http.
    #[arg(long, value_name = "URL", conflicts_with = "site", help_heading = "Addresses")]
    jaeger: Option<String>,
    /// The command that sends the request. `{traceparent}` in its arguments is replaced, and TRACEPARENT is set in its
    /// environment.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One object, for programs.
    Json,
    /// An annotation, in a workflow of GitHub Actions.
    Github,
    /// A test suite with one test case.
    Junit,
}

fn time(text: &str) -> Result<Duration, String> {
    let has_unit = text.ends_with(char::is_alphabetic);
    let duration = crate::list::duration(text).ok().filter(|_| has_unit);
    duration.ok_or_else(|| "write a time such as 6s or 500ms".to_owned())
}

/// Adds how to write a file that doesn't exist.
fn with_hint(error: trace_expect::Error) -> anyhow::Error {
    let is_missing = error.is_missing();
    let error = anyhow::Error::from(error);
    match is_missing {
        true => anyhow!("{error:#} (--update writes it)"),
        false => error,
    }
}

/// How the request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    AsExpected,
    /// The status, which isn't the expected one.
    Status(u16),
}

/// A request that was sent, its spans, and how it was answered.
pub struct Sent {
    pub report: Report,
    answer: Answer,
    caller: Caller,
}

impl Sent {
    /// Whether everything is as expected.
    pub fn is_fine(&self) -> bool {
        self.report.matches() && self.answer == Answer::AsExpected
    }
}

impl Expect {
    /// Runs the command. The outcome is [`Outcome::Found`] when the trace differs.
    ///
    /// # Errors
    /// The file, the command or the receiver can't do their part, or nothing arrives.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let name = self.name.as_deref();
        let mut files = match self.update {
            true => Files::open_or_new(&self.file)?,
            false => Files::open(&self.file).map_err(with_hint)?,
        };
        let title = files.title(name);
        let request = match self.update {
            true => files.request_to_write(name, self.edges)?,
            false => files.request(name).map_err(with_hint)?.clone(),
        };
        let mut sent = self.how.send(&request, &self.attribute).await?;
        let case = std::mem::take(&mut sent.report.case);
        let Sent { report, answer, .. } = &sent;
        if report.is_empty() && report.others.is_empty() {
            let found = report.findings.iter().find(|it| it.rule != Rule::NothingArrived);
            let why = found.map_or_else(
                || {
                    let address = self.how.where_to();
                    format!("do the services export to {address}, and is the traceparent in the request?")
                },
                finding,
            );
            bail!("{title}: no span has arrived within {} s: {why}", report.waited.as_secs());
        }
        if self.update {
            if let Answer::Status(status) = answer {
                bail!("{title}: nothing was written: the request was answered {status}");
            }
            for warning in warnings(report) {
                eprintln!("Warning: {title}: {warning}");
            }
            let text = match files.update(&request, report, self.edges)? {
                None => format!("{title}: unchanged\n"),
                Some(replaced) => {
                    let replaced = generalised(&replaced).unwrap_or_default();
                    let spans = count(report.counted.len(), "span");
                    format!("{title}: written, {spans}\n{replaced}")
                }
            };
            print(&format!("{text}{}", Others(&report.others)))?;
            return Ok(Outcome::Fine);
        }
        let mut problems = Vec::new();
        if let Answer::Status(status) = answer {
            let expected = self.how.status.unwrap_or_default();
            problems.push(format!("the request was answered {status} instead of {expected}"));
        }
        if self.alone && !report.others.is_empty() {
            problems.push(NOT_ALONE.to_owned());
        }
        let text = Text { report, name: &title, problems: &problems };
        self.print(&sent, &text)?;
        if report.matches() && problems.is_empty() {
            return Ok(Outcome::Fine);
        }
        if let Some(path) = &self.html {
            let (title, text) = (format!("Compared with {title}"), text.to_string());
            let remark = Remark { title: &title, text: &text };
            document::write(path, case, report.sent.trace_id, Some(&remark))?;
        }
        Ok(Outcome::Found)
    }

    fn print(&self, sent: &Sent, text: &Text<'_>) -> anyhow::Result<()> {
        let Sent { report, answer, .. } = sent;
        let summary = text.summary();
        match self.format {
            Format::Json => {
                let status = match answer {
                    Answer::AsExpected => None,
                    Answer::Status(status) => Some(*status),
                };
                let json = Json::new(text.name, report, summary.is_empty(), status);
                print_json(&serde_json::to_string_pretty(&json)?)
            }
            Format::Github if !summary.is_empty() => {
                let file = escaped(&self.file.display().to_string());
                let file = file.replace(':', "%3A").replace(',', "%2C");
                let title = match report.matches() {
                    true => "The request is not as expected",
                    false => "The trace differs",
                };
                print(&format!(
                    "::error file={file},title={title}::{}\n",
                    escaped(text.to_string().trim_end())
                ))
            }
            Format::Text | Format::Github => print(&text.to_string()),
            Format::Junit => print(&junit(text)),
        }
    }
}

/// The report as JSON. The page `reference/lab.md` documents it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    request: &'a str,
    matches: bool,
    verdict: &'static str,
    trace_id: TraceId,
    spans: usize,
    #[serde(flatten)]
    counts: Counts,
    /// The status of the answer, where it isn't the expected one.
    status: Option<u16>,
    difference: Option<&'a str>,
    causes: Vec<Reason>,
    others: Vec<Other<'a>>,
}

#[derive(Serialize)]
struct Reason {
    /// The rule of the diagnosis; `not-taken` where nothing has the trace id that was sent.
    rule: Option<&'static str>,
    sentence: String,
}

impl Reason {
    fn new(cause: &Cause) -> Self {
        let (rule, sentence) = match cause {
            Cause::NotTaken { .. } => (Some("not-taken"), cause.to_string()),
            Cause::Finding(it) => (Some(it.rule.name()), report::cause(it)),
            Cause::Unknown { .. } => (None, cause.to_string()),
        };
        Reason { rule, sentence: sentence.trim_end().to_owned() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Other<'a> {
    trace_id: TraceId,
    name: &'a str,
    services: &'a [String],
    spans: usize,
}

impl<'a> Json<'a> {
    fn new(title: &'a str, report: &'a Report, matches: bool, status: Option<u16>) -> Self {
        let others = report.others.iter();
        Json {
            request: title,
            matches,
            verdict: match report.verdict {
                Verdict::Matches => "matches",
                Verdict::Differs => "differs",
                Verdict::TimedOut => "timed-out",
                Verdict::Unsettled => "unsettled",
            },
            trace_id: report.sent.trace_id,
            spans: report.actual.len(),
            counts: report.shown.counts,
            status,
            difference: (!report.matches()).then_some(report.shown.text.as_str()),
            causes: report.causes.iter().map(Reason::new).collect(),
            others: others
                .map(|it| Other {
                    trace_id: it.trace_id,
                    name: &it.name,
                    services: &it.services,
                    spans: it.spans,
                })
                .collect(),
        }
    }
}

/// The report in the form that [JUnit](https://github.com/testmoapp/junitxml) made common.
fn junit(text: &Text<'_>) -> String {
    let seconds = text.report.waited.as_secs_f64();
    let title = xml(text.name);
    let summary = text.summary();
    let failures = usize::from(!summary.is_empty());
    let failure = match failures {
        0 => String::new(),
        _ => {
            let message = xml(&summary);
            format!("<failure message=\"{message}\">{}</failure>", xml(&text.to_string()))
        }
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites><testsuite name=\"lab expect\" tests=\"1\" failures=\"{failures}\" time=\"{seconds:.3}\">\
         <testcase name=\"{title}\" classname=\"lab.expect\" time=\"{seconds:.3}\">{failure}</testcase>\
         </testsuite></testsuites>\n"
    )
}

/// Escapes a text for XML 1.0, which allows no control characters but these.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

impl How {
    /// Sends the request with the id of a new trace and waits for its trace.
    ///
    /// # Errors
    /// The request can't be sent, or the spans can't be received.
    pub async fn send(&self, request: &Request, keys: &[String]) -> anyhow::Result<Sent> {
        let sender = Sender::new(self)?;
        if let Some(url) = &self.jaeger {
            let url = Url::parse(url).context("--jaeger")?;
            let mut source = Jaeger::new(url, request.services()).await?;
            return self.watch(&mut source, request, keys, &sender).await;
        }
        let site = self.site.as_deref();
        // Services that export to another address don't export to the lab that happens to run.
        let is_elsewhere = self.receivers != ReceiverAddresses::DEFAULT;
        if site.is_some() || !is_elsewhere {
            match (RunningLab::new(Lab::at(site.unwrap_or(DEFAULT_SITE))).await, site) {
                (Ok(mut lab), _) => {
                    let sent = self.watch(&mut lab, request, keys, &sender).await?;
                    if !sent.report.is_empty() {
                        lab.add_caller(&sent.caller).await?;
                    }
                    return Ok(sent);
                }
                (Err(error), Some(_)) => return Err(error.into()),
                (Err(_), None) => {}
            }
        }
        let ReceiverAddresses { otlp, grpc } = self.receivers;
        let receivers = Receivers::bind(otlp, grpc).await;
        // A lab has the port, but its pages are at another address.
        let receivers = receivers.map_err(|error| {
            let error = anyhow::Error::from(error);
            anyhow!("{error:#}; if a lab listens there, give the address of its pages with --site")
        })?;
        let (http, grpc) = receivers.addresses();
        eprintln!("Receiving spans at http://{http} and http://{grpc} (gRPC)");
        let store = Store::new(Limits::default());
        let mut source = Own::new(store.clone());
        let served = receivers.serve(store, CONNECTIONS, std::future::pending());
        tokio::select! {
            sent = self.watch(&mut source, request, keys, &sender) => sent,
            served = served => {
                served?;
                bail!("the receiver has stopped");
            }
        }
    }

    async fn watch<S: Source>(
        &self,
        source: &mut S,
        request: &Request,
        keys: &[String],
        sender: &Sender<'_>,
    ) -> anyhow::Result<Sent>
    where
        anyhow::Error: From<S::Error>,
    {
        let sent = new_traceparent();
        let waiting = Waiting { settle: self.settle, timeout: self.timeout };
        let mut caller = sender.caller(sent);
        let sending = async {
            caller.status = sender.send(sent).await?;
            caller.end = now();
            anyhow::Ok(())
        };
        let report = run(source, request, keys, sent, waiting, sending).await?;
        let answer = match (self.status, caller.status) {
            (Some(expected), Some(found)) if expected != found => Answer::Status(found),
            _ => Answer::AsExpected,
        };
        Ok(Sent { report, answer, caller })
    }

    /// The address of the lab.
    pub fn lab_site(&self) -> &str {
        self.site.as_deref().unwrap_or(DEFAULT_SITE)
    }

    /// Returns the addresses that services should export to, for a message.
    fn where_to(&self) -> String {
        match (&self.jaeger, &self.site) {
            (Some(url), _) => format!("the backend of {url}"),
            (None, Some(site)) => format!("the lab at {site}"),
            (None, None) => {
                let ReceiverAddresses { otlp, grpc } = self.receivers;
                format!("http://{otlp} or http://{grpc} (gRPC)")
            }
        }
    }
}

/// A command or a request of our own, which begins the trace.
enum Sender<'a> {
    Command(&'a [String]),
    Request { method: Method, url: Url, headers: Vec<(HeaderName, HeaderValue)>, body: Vec<u8> },
}

impl<'a> Sender<'a> {
    fn new(how: &'a How) -> anyhow::Result<Self> {
        let Some(request) = &how.request else {
            let nothing = "nothing sends the request: give --request 'GET http://...', or a command behind --";
            ensure!(!how.command.is_empty(), nothing);
            return Ok(Sender::Command(&how.command));
        };
        let (method, url) = request.trim().split_once(' ').unwrap_or(("GET", request.trim()));
        let method: Method =
            method.parse().with_context(|| format!("{method:?} is not a method (--request)"))?;
        let url = Url::parse(url.trim()).map_err(|error| match error {
            NotAUrl::Https(_) => {
                anyhow!("--request: {error}: give a command behind `--` instead, such as curl")
            }
            NotAUrl::Invalid(_) => anyhow!("--request: {error}"),
        })?;
        let body = match how.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
            None => Vec::new(),
            Some((_, Some(path))) => {
                std::fs::read(path).with_context(|| format!("cannot read {path} (--body)"))?
            }
            Some((body, None)) => body.as_bytes().to_vec(),
        };
        let mut headers = Vec::new();
        for header in &how.header {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("{header:?} has no colon (--header)"))?;
            let name: HeaderName = name
                .trim()
                .parse()
                .with_context(|| format!("{name:?} is not the name of a header (--header)"))?;
            let value: HeaderValue = value
                .trim()
                .parse()
                .with_context(|| format!("{value:?} is not the value of a header (--header)"))?;
            headers.push((name, value));
        }
        let has_type = headers.iter().any(|(name, _)| *name == axum::http::header::CONTENT_TYPE);
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        if !has_type && is_json {
            let json = HeaderValue::from_static("application/json");
            headers.push((axum::http::header::CONTENT_TYPE, json));
        }
        Ok(Sender::Request { method, url, headers, body })
    }

    /// The span of a request that is about to be sent.
    fn caller(&self, sent: Traceparent) -> Caller {
        let (name, url) = match self {
            Sender::Command(command) => {
                let program = command.first().map(Path::new).and_then(Path::file_name);
                (program.unwrap_or_default().to_string_lossy().into_owned(), None)
            }
            Sender::Request { method, url, .. } => (method.to_string(), Some(url.clone())),
        };
        Caller { sent, name, url, status: None, start: now(), end: now() }
    }

    /// Sends the request. Returns the status of the answer; `None` for a command.
    async fn send(&self, sent: Traceparent) -> anyhow::Result<Option<u16>> {
        match self {
            Sender::Command(command) => {
                run_command(command, sent).await?;
                Ok(None)
            }
            Sender::Request { method, url, headers, body } => {
                /// How long a service may take to answer.
                const TIMEOUT: Duration = Duration::from_secs(300);
                let mut request = HttpRequest::builder()
                    .method(method)
                    .uri(Uri::from(url.path.clone()))
                    .header("traceparent", sent.to_string());
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let request = request.body(Body::from(body.clone()));
                let answer = http::send(&url.authority, request, TIMEOUT).await;
                let answer = answer.map_err(|error| {
                    let authority = &url.authority;
                    let what = match error.kind() {
                        ErrorKind::ConnectionRefused => {
                            format!("no service answers at {authority}")
                        }
                        _ => format!("the request to {authority} failed"),
                    };
                    anyhow::Error::from(error).context(format!("{what} (--request)"))
                })?;
                Ok(Some(answer.status.as_u16()))
            }
        }
    }
}

/// Runs a command to its end. Its output goes to standard error, so that the report stands alone on standard output.
async fn run_command(command: &[String], sent: Traceparent) -> anyhow::Result<()> {
    let traceparent = sent.to_string();
    let filled = command.iter().map(|it| it.replace("{traceparent}", &traceparent));
    let mut filled = filled;
    let program = filled.next().context("no command")?;
    let mut process = Command::new(&program);
    process
        .args(filled)
        .env("TRACEPARENT", &traceparent)
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .kill_on_drop(true);
    let child = process::spawn(process);
    let mut child = child.with_context(|| format!("cannot start the command {program}"))?;
    let status = child.wait().await.with_context(|| format!("cannot wait for {program}"))?;
    ensure!(status.success(), "the command failed ({status}): {}", shown(command));
    Ok(())
}

/// A command as it can be read, with a limit on its length.
fn shown(command: &[String]) -> String {
    crate::span::shortened(&command.join(" "), 200)
}

/// Reads the file and the request of a command that isn't `expect` itself.
///
/// # Errors
/// The file can't be read, or doesn't have the request.
pub fn request(file: &Path, name: Option<&str>) -> anyhow::Result<Request> {
    let files = Files::open(file).map_err(with_hint)?;
    Ok(files.request(name).map_err(with_hint)?.clone())
}
