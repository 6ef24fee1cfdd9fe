//! Requests that a proxy between two services has seen: the headers as they were sent and as they arrived.

use serde::{Deserialize, Serialize};

use crate::traceparent::Traceparent;

/// One request on one hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// The name of the hop, such as `gateway-user`.
    pub hop: String,
    /// The service that is called.
    pub to: String,
    /// When the headers were there, in nanoseconds since 1970, as text in JSON.
    #[serde(with = "crate::nanoseconds")]
    pub start: u64,
    /// When the answer began, in nanoseconds since 1970; `None` where there is none yet.
    #[serde(with = "crate::nanoseconds::optional", default)]
    pub end: Option<u64>,
    /// The request line and the headers as the caller sent them: a character a byte, as in ISO 8859-1.
    pub sent: String,
    /// The same as the called service got them; `None` where the request was not passed on.
    pub delivered: Option<String>,
    /// The HTTP status of the answer; `None` where there is none yet.
    pub status: Option<u16>,
    /// The name of the fault that was set on the hop, where there was one.
    pub fault: Option<String>,
}

impl Exchange {
    /// The only `traceparent` that the caller sent, where it is valid.
    pub fn sent_by(&self) -> Option<Traceparent> {
        only(&self.sent)
    }

    /// The only `traceparent` that the called service got, where it is valid.
    pub fn received(&self) -> Option<Traceparent> {
        only(self.delivered.as_deref()?)
    }
}

fn only(head: &str) -> Option<Traceparent> {
    match values(head, "traceparent")[..] {
        [value] => Traceparent::parse(value).ok(),
        _ => None,
    }
}

/// The lines of a head behind its first, which is the request line.
pub fn lines(head: &str) -> impl Iterator<Item = &str> {
    let lines = head.split("\r\n").skip(1);
    lines.filter(|line| !line.is_empty())
}

/// The values of a header, in order; names are compared in any case ([RFC 9110, 5.1](https://www.rfc-editor.org/rfc/rfc9110#section-5.1)).
pub fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = lines(head).filter_map(|line| line.split_once(':'));
    let wanted = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    wanted.map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
}
