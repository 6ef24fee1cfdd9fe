//! The sentences of findings and remarks: the only place where their data becomes words.
//!
//! Code in a sentence stands between backticks.

use std::fmt::{self, Display, Formatter};

use crate::diagnose::{
    Abandoned, Around, Certainty, Evidence, Failure, Finding, Inspected, Library, NamedSpan,
    Outcome, Secret, Seen, WrongKind,
};
use crate::headers::{Contradiction, Format, Placeholder, Valid};
use crate::span::shortened;
use crate::traceparent::{Field, InvalidTraceparent};
use crate::tree::{LONGEST, Note, Skew, label, plain, took};
use crate::waterfall::count;

/// Says what happened, for how many more spans, and how many more findings there are, in one to three sentences.
pub fn cause(finding: &Finding) -> String {
    let mut text = finding.evidence.to_string();
    if finding.same > 0 {
        text.push_str(&format!(" The same of {} more.", finding.same));
    }
    if finding.more > 0 {
        text.push_str(&format!(" {} more like this.", finding.more));
    }
    text
}

/// The consequence of a header that isn't valid.
const BEGINS_ITS_OWN: &str = "A service that gets this begins a trace of its own.";

/// A `traceparent` as the subject of a sentence.
fn header(seen: &Seen) -> String {
    match seen {
        Seen::Alone => "This `traceparent`".to_owned(),
        Seen::InText { line, value } => {
            format!("The `traceparent` in line {line}, `{}`,", code(value))
        }
        Seen::OnHop { hop, to } if hop == to => format!("The `traceparent` that {to} got"),
        Seen::OnHop { hop, to } => format!("On {hop}, the `traceparent` that {to} got"),
        Seen::OnSpan(span) => format!("The `traceparent` that came with {span}"),
    }
}

/// Begins a sentence about the headers of a request: its subject and its verb.
fn request(seen: &Seen) -> String {
    match seen {
        Seen::Alone => "This request has".to_owned(),
        Seen::InText { line, .. } => format!("The request in line {line} has"),
        Seen::OnHop { hop, to } => format!("{} got", on(hop, to)),
        Seen::OnSpan(span) => format!("{span} came with"),
    }
}

/// Begins a sentence about a header that a service got. The proxies of a reader are named after their services.
fn on(hop: &str, to: &str) -> String {
    match hop == to {
        true => to.to_owned(),
        false => format!("On {hop}, {to}"),
    }
}

/// One sentence.
impl Display for Evidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::NothingArrived { requests: 0 } => f.write_str("No span has arrived."),
            Evidence::NothingArrived { .. } => {
                f.write_str("Requests went over the wire, and no span of them has arrived.")
            }
            Evidence::HeaderDropped { hop } => write!(
                f,
                "On {hop}, the `traceparent` that was sent did not arrive: something between drops it."
            ),
            Evidence::HeaderInvalid { seen, invalid } => {
                let InvalidTraceparent { byte, reason } = invalid;
                write!(f, "{} isn't valid at byte {byte}: {reason}. {BEGINS_ITS_OWN}", header(seen))
            }
            Evidence::HeaderPlaceholder { seen, placeholder, text } => {
                let header = match seen {
                    // The sentence names the value itself.
                    Seen::InText { line, .. } => format!("The `traceparent` in line {line}"),
                    seen => header(seen),
                };
                let text = code(text);
                match placeholder {
                    Placeholder::Empty => write!(f, "{header} is empty.")?,
                    Placeholder::Null => write!(
                        f,
                        "{header} is the text `{text}`, which a program wrote because it had no value."
                    )?,
                    Placeholder::Variable => write!(
                        f,
                        "{header} is the text `{text}`, a variable that nothing has replaced with its value."
                    )?,
                }
                write!(f, " {BEGINS_ITS_OWN}")
            }
            Evidence::HeaderReplaced { hop, field } => {
                let (name, byte) = (its(*field), field.range().start);
                write!(
                    f,
                    "On {hop}, another `traceparent` arrived than was sent: {name} (from byte {byte}) is not the same."
                )
            }
            Evidence::HeaderRepeated { seen, count, traces } => {
                write!(
                    f,
                    "{} {count} `traceparent` headers where one is allowed, and which one counts depends on the propagator.",
                    request(seen)
                )?;
                match traces {
                    0 | 1 => Ok(()),
                    _ => write!(f, " They name {traces} different traces."),
                }
            }
            Evidence::HeadersContradict { seen, format, contradiction } => match contradiction {
                Contradiction::Traces([own, other]) => write!(
                    f,
                    "{} a `traceparent` of trace {own} and a `{}` of trace {other}. Which of the two a service joins depends on its propagators.",
                    request(seen),
                    format.header()
                ),
                Contradiction::Sampling { own } => {
                    let (own, other) = match own {
                        true => ("to sample the trace", "not to"),
                        false => ("not to sample the trace", "to sample it"),
                    };
                    write!(
                        f,
                        "{} a `traceparent` that says {own} and a `{}` that says {other}. Whether a service records the request depends on its propagators, so parts of the trace may be missing.",
                        request(seen),
                        format.sampling_header()
                    )
                }
            },
            Evidence::HeadersJoined { seen, count } => write!(
                f,
                "{} has {count} values joined by a comma, because a proxy or a client made one header of {count}. {BEGINS_ITS_OWN}",
                header(seen)
            ),
            Evidence::ForeignFormat { seen, format, trace_id } => {
                let header = format.header();
                match seen {
                    Seen::Alone => write!(f, "The caller sent {format} (`{header}`)")?,
                    Seen::InText { line, .. } => {
                        write!(f, "In line {line}, the caller sent {format} (`{header}`)")?
                    }
                    Seen::OnHop { hop, to } => {
                        write!(f, "{} got {format} (`{header}`)", on(hop, to))?
                    }
                    Seen::OnSpan(span) => write!(f, "{span} came with {format} (`{header}`)")?,
                }
                write!(
                    f,
                    " and no `traceparent`. A service that reads only `traceparent` doesn't join trace {trace_id}; it begins one of its own."
                )
            }
            Evidence::HeaderUnsampled { seen, format } => {
                match format {
                    None => write!(
                        f,
                        "{} is valid, but its sampled flag isn't set (byte {FLAGS_DIGIT})",
                        header(seen)
                    )?,
                    Some(format) => {
                        let header = format.sampling_header();
                        match seen {
                            Seen::InText { line, .. } => {
                                write!(f, "`{header}` in line {line} says not to sample")?
                            }
                            _ => write!(f, "`{header}` says not to sample")?,
                        }
                    }
                }
                f.write_str(", so the caller has recorded nothing and asks for the same.")
            }
            Evidence::FlagNotSet { hop, to, cleared } => {
                let what = match cleared {
                    true => "the sampled flag was cleared on the way",
                    false => "the caller sent flags without the sampled bit",
                };
                write!(
                    f,
                    "On {hop}, {what} (byte {FLAGS_DIGIT} of the `traceparent`), so {to} is asked to record nothing, and to pass that on."
                )
            }
            Evidence::FallenApart { call, caller, called } => write!(
                f,
                "`{}` of {} was answered by {} in another trace: the context of the call did not get there, or was not used.",
                code(call),
                plain(caller),
                plain(called)
            ),
            Evidence::RootWithin { span, around: Around::Request(request) } => write!(
                f,
                "{span} begins a trace while its service answers {request}, and no other request: it may be a part of that, started without its context."
            ),
            Evidence::RootWithin { span, around: Around::Call(call) } => write!(
                f,
                "{span} begins a trace during {call}, which nobody has answered, and its service has no span of a request: that span may have been filtered out."
            ),
            Evidence::ClientRoot { span, request } => write!(
                f,
                "{span} begins a trace, though its service answers requests, such as {request}: the call may belong to one of them."
            ),
            Evidence::SeveralRoots { count, first } => write!(
                f,
                "{count} spans of one trace have no parent, the first {first}: the trace id was passed on to them, and the parent was not."
            ),
            Evidence::SharedId { id, count, first } => write!(
                f,
                "{count} spans without a parent came with one id, {id}, the first {first}. Nothing says which of them is the parent of what names that id."
            ),
            Evidence::ParentNotHere { span, parent, known } => write!(
                f,
                "The parent {parent} of {span} has not arrived. It is {}of the same process: it has not ended, or was not sent.",
                if *known { "" } else { "probably " }
            ),
            Evidence::ServiceBetweenNotHere { span, call } => write!(
                f,
                "{span} happened within {call}, and what called it is not here: the header got through the service between them, and its spans did not."
            ),
            Evidence::CallerNotHere { span, parent, .. } => write!(
                f,
                "{span} names a parent that is not here, {parent}: the span of its caller went elsewhere, or was not recorded."
            ),
            Evidence::NotEnded { span, zipkin: true } => write!(
                f,
                "{span} has no duration: it was still running when it was sent, or its sender left that out."
            ),
            Evidence::NotEnded { span, zipkin: false } => write!(
                f,
                "{span} has no end: it was still running when it was sent or saved, or its end was lost."
            ),
            Evidence::OwnAncestor { span } => write!(f, "{span} is its own ancestor."),
            Evidence::BesideItsCall { span, call, parent } => write!(
                f,
                "{span} was called by {call}, and its parent is {parent}: the context around the call was injected, and not that of the call."
            ),
            Evidence::HeldOpen { span, task, after } => write!(
                f,
                "{span} was open for {} longer than the call that it answered, and ended with {task}: that task may hold it open.",
                took(*after)
            ),
            Evidence::RequestsBelow { span, count } => write!(
                f,
                "{count} requests follow each other below {span}: it may be the span of a connection or a loop, so requests that have nothing to do with each other share a trace."
            ),
            Evidence::WrongKind { span, why } => match why {
                WrongKind::CalledBy(caller) => {
                    write!(f, "{span} was called by {caller}: it must be SERVER or CONSUMER.")
                }
                WrongKind::HasRoute => write!(
                    f,
                    "{span} has an HTTP route, so it answers a request: it must be {}.",
                    why.expected()
                ),
                WrongKind::HasUrl => write!(
                    f,
                    "{span} has a whole URL, so it sends a request: it must be {}.",
                    why.expected()
                ),
            },
            Evidence::StatusNotSet { span, status } => {
                write!(f, "{span} has the HTTP status {status}, and its own status is not error.")
            }
            Evidence::CallerHungUp { span, call, request: Abandoned::Dropped } => write!(
                f,
                "{call} failed without an answer, and {span} ended without one: its caller hung up, and its own status is not error."
            ),
            Evidence::CallerHungUp { span, call, request: Abandoned::WentOn(by) } => write!(
                f,
                "{call} failed without an answer, and {span} went on for {} longer: its caller had hung up, and its own status is not error.",
                took(*by)
            ),
            Evidence::ClockSkew { caller, called, by: Skew::Behind(by) } => write!(
                f,
                "{} starts up to {} before {}, which called it: the clocks of their hosts differ by at least that.",
                plain(called),
                took(*by),
                plain(caller)
            ),
            Evidence::ClockSkew { caller, called, by: Skew::Ahead(by) } => write!(
                f,
                "{} starts up to {} after the calls of {} that it answered have ended: the clocks of their hosts differ by at least that.",
                plain(called),
                took(*by),
                plain(caller)
            ),
            Evidence::NoServiceName { span } => {
                write!(
                    f,
                    "The service of {span} has no name, so nobody can tell it from others without one."
                )
            }
            Evidence::MixedVersions { service, library, versions } => {
                let versions: Vec<String> = versions.iter().map(|it| shortened(it, 40)).collect();
                write!(
                    f,
                    "One process of {} has {library} twice, as {}: copies of OpenTelemetry share no context and no propagator.",
                    label(service),
                    versions.join(" and ")
                )
            }
            Evidence::ValueInName { span, value, others: 0 } => write!(
                f,
                "The name of {span} has a value in it, `{}`, so each value makes another name.",
                code(value)
            ),
            Evidence::ValueInName { span, value, others } => write!(
                f,
                "The name of {span} has a value in it, `{}`, and other names have {others} other {} in its place: each makes another name.",
                code(value),
                if *others == 1 { "value" } else { "values" }
            ),
            Evidence::TinySpans { parent, count, median } => write!(
                f,
                "{parent} has {count} INTERNAL spans right below it, and half of them took no more than {}: recording them may cost more than their work.",
                took(*median)
            ),
            Evidence::Secret { span, attribute, secret } => {
                write!(f, "The attribute `{}` of {span} holds {secret}.", shortened(attribute, 100))
            }
        }
    }
}

impl Inspected {
    /// Says where the request itself failed, in two sentences. Returns `None` if no span has an error.
    pub fn failure(&self) -> Option<String> {
        let mut text = self.failed()?;
        text[..1].make_ascii_uppercase();
        Some(text)
    }

    /// Says the same in lower case, for a sentence that has begun.
    pub fn failed(&self) -> Option<String> {
        let Failure { span, error_type, message, code: place, spans, traces, outcome, alike } =
            self.failure.as_ref()?;
        let have = if *traces == 1 { "has" } else { "have" };
        let with = |all| format!("{traces} of {all} traces {have} spans with an error");
        let mut text = match (self.traces, outcome) {
            (1, Outcome::Recovered) => "a part of the request failed.".to_owned(),
            (1, _) => "the request failed.".to_owned(),
            (all, Outcome::Recovered) => format!("{}.", with(all)),
            (all, Outcome::Refused) => {
                format!("{}, and {alike} of the requests got an answer of 4xx.", with(all))
            }
            (all, Outcome::Failed) => format!("{}, and {alike} of the requests failed.", with(all)),
        };
        let there = match (self.traces, outcome) {
            (1, _) | (_, Outcome::Recovered) => "",
            _ => " there",
        };
        text.push_str(&match spans {
            1 => format!(" The span with the error{there} is {span}"),
            _ => format!(" The deepest of {spans} spans with an error{there} is {span}"),
        });
        if let Some(place) = place {
            text.push_str(&format!(", at `{}`", code(&place.to_string())));
        }
        for part in error_type.iter().chain([message]).filter(|part| !part.is_empty()) {
            text.push_str(": ");
            text.push_str(&code(&shortened(part, LONGEST)));
        }
        text.push('.');
        Some(text)
    }
}

/// Says what the rules looked at, in one to four sentences. The report begins with it when no rule found a fault.
impl Display for Inspected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.headers[..] {
            [] => {}
            [header] => return write!(f, "This `traceparent` is valid and sampled.{header}"),
            several => {
                let count = several.len();
                return write!(f, "These {count} `traceparent` headers are valid and sampled.");
            }
        }
        if let Some(failure) = self.failed() {
            write!(f, "Propagation is intact, and {failure} ")?;
        }
        let (spans, services) = (count(self.spans, "span"), count(self.services, "service"));
        write!(f, "No rule found a fault in {spans} of {services}")?;
        match self.requests {
            0 => f.write_str("."),
            requests => write!(f, " or in {} on the wire.", count(requests, "request")),
        }
    }
}

/// Says what else the fields of a valid `traceparent` mean, each sentence after a space. Empty for the usual ones.
impl Display for Valid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Valid { version, flags } = *self;
        match flags & !1 {
            0 => {}
            2 => write!(
                f,
                " Its flags are {flags:02x}: the sampled bit is set, and so is the bit that says that the trace id is random."
            )?,
            _ => write!(
                f,
                " Its flags are {flags:02x}: the sampled bit is set, and so are bits that the standard doesn't define. Services ignore those."
            )?,
        }
        match version {
            0 => Ok(()),
            _ => write!(
                f,
                " Its version is {version:02x}: services read the fields that version 00 has."
            ),
        }
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::B3 | Format::B3Multi => "B3",
            Format::Jaeger => "Jaeger's format",
            Format::Datadog => "Datadog's format",
            Format::XRay => "the format of AWS X-Ray",
            Format::GoogleCloud => "the format of Google Cloud",
        })
    }
}

/// How sure it is, in plain words.
impl Display for Certainty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::WorthALook => "worth a look",
        })
    }
}

/// The byte of a `traceparent` whose lowest bit is the sampled flag.
const FLAGS_DIGIT: usize = Field::Flags.range().end - 1;

/// A field of a header that a sentence has named.
fn its(field: Field) -> &'static str {
    match field {
        Field::Version => "its version",
        Field::TraceId => "its trace id",
        Field::ParentId => "its parent id",
        Field::Flags => "its flags",
    }
}

/// A name between backticks, so it can't have any.
pub(super) fn code(name: &str) -> String {
    plain(name).replace('`', "'")
}

/// A span in a sentence: `` `NAME` (KIND, SERVICE) ``.
impl Display for NamedSpan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let NamedSpan { name, kind, service } = self;
        write!(f, "`{}` ({kind}, {})", code(name), plain(service))
    }
}

impl Display for Library {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Library::Scope(name) => write!(f, "`{}`", label(name)),
            Library::Sdk(language) => write!(f, "the OpenTelemetry SDK for {language}"),
        }
    }
}

impl Display for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::PrivateKey => "a private key",
            Secret::BearerToken => "a bearer token",
            Secret::Jwt => "a token (JWT)",
            Secret::ApiKey => "an API key",
            Secret::GitHubToken => "a token of GitHub",
            Secret::AwsAccessKey => "an access key of AWS",
            Secret::SlackToken => "a token of Slack",
            Secret::UrlWithPassword => "a URL with a password",
            Secret::UrlWithSecret => "a URL with a secret in its query",
            Secret::ByName => "a secret, by its name",
        })
    }
}

/// The words before the id of a trace that a span is linked to.
pub const LINKED: &str = "linked to trace ";

/// A few words beside the span.
impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Note::To(host) => write!(f, "to {}", shortened(host, LONGEST)),
            Note::HttpStatus(status) => f.write_str(status),
            Note::RpcStatus(status) => f.write_str(&shortened(status, LONGEST)),
            Note::Error { error_type, message } => {
                f.write_str("error")?;
                if let Some(error_type) = error_type {
                    write!(f, " {}", shortened(error_type, LONGEST))?;
                }
                match message.as_str() {
                    "" => Ok(()),
                    message => write!(f, ": {}", shortened(message, LONGEST)),
                }
            }
            Note::LinkedToItself => f.write_str("linked to itself, and so to no other span"),
            Note::LinkedTo(trace) => write!(f, "{LINKED}{trace}"),
            Note::Links(count) => write!(f, "{count} links in all"),
            Note::Orphan(parent) => write!(f, "orphan: parent {parent} is not here"),
            Note::Ring => f.write_str("its parent is below it"),
            Note::Late(late) => write!(f, "starts {} after its parent ended", took(*late)),
            Note::Skew(Skew::Behind(by)) => {
                write!(f, "clock skew: starts {} before its parent", took(*by))
            }
            Note::Skew(Skew::Ahead(by)) => {
                write!(f, "clock skew: starts {} after the call that it answered", took(*by))
            }
            Note::SharedId(id) => {
                write!(f, "came with the id {id}, which another span of the trace has too")
            }
            Note::NotEnded => f.write_str("has not ended"),
            Note::WithoutTime => f.write_str("without a time"),
            Note::EndsBeforeItStarts => f.write_str("ends before it starts"),
        }
    }
}

/// Notes as one line of text, with commas between them.
pub fn notes(notes: &[Note]) -> String {
    let notes: Vec<String> = notes.iter().map(Note::to_string).collect();
    notes.join(", ")
}
