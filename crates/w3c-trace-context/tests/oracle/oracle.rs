//! Reads headers as the standards say, in slow and plain code written from their grammars and processing rules, not from the crate.
//!
//! The grammars are the ABNF of [Trace Context Level 2](https://www.w3.org/TR/trace-context-2/), sections 3.2 and 3.3, and of
//! [Baggage](https://www.w3.org/TR/baggage/), section 3.3.1, as regular expressions: a rule of the ABNF is a constant here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::Regex;

/// The decoded value of each key, and the properties as they came.
pub type Entries = BTreeMap<String, (String, String)>;

const OWS: &str = r"[ \t]*";

/// A regular expression for the whole of a value, with the rules in braces replaced by their definitions.
fn grammar(rule: &str, rules: &[(&str, &str)]) -> Regex {
    let mut pattern = rule.to_owned();
    for (name, definition) in rules {
        pattern = pattern.replace(&format!("<{name}>"), &format!("(?:{definition})"));
    }
    Regex::new(&format!(r"(?s-u)\A(?:{pattern})\z")).expect("a regular expression")
}

/// The trace id, the parent id and the flags that are defined: sampled and random.
///
/// A request has one `traceparent`. Of a version after 00, the fields of version 00 are read if they stand at their places and a
/// dash or nothing follows them; nothing is assumed about the rest (Versioning of traceparent). The versions are additive, so the
/// random flag of a later version is the same.
pub fn traceparent(headers: &[Vec<u8>]) -> Option<(String, String, u8)> {
    static VERSION_00: LazyLock<Regex> =
        LazyLock::new(|| grammar("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", &[]));
    static LATER: LazyLock<Regex> =
        LazyLock::new(|| grammar("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", &[]));
    let [header] = headers else { return None };
    let header = without_space_around(header);
    let valid = match header.starts_with(b"00") {
        true => VERSION_00.is_match(header),
        false => LATER.is_match(header) && !header.starts_with(b"ff"),
    };
    if !valid {
        return None;
    }
    let field = |from, to| String::from_utf8(header[from..to].to_vec()).expect("digits");
    let (trace_id, parent_id) = (field(3, 35), field(36, 52));
    let zeros = |id: &str| id.chars().all(|digit| digit == '0');
    let flags = u8::from_str_radix(&field(53, 55), 16).expect("digits");
    (!zeros(&trace_id) && !zeros(&parent_id)).then_some((trace_id, parent_id, flags & 0b11))
}

/// The members of the list that all headers make up, each `KEY=VALUE`; `None` if the list isn't valid.
///
/// The text says that a list member is a key and a value, that a list has at most 32, and that empty ones are allowed. So all
/// members with a key count towards the limit, also those with a key that came before, and empty ones don't. Members with a key
/// that came before may be discarded (Mutating the tracestate Field).
pub fn tracestate(headers: &[Vec<u8>]) -> Option<Vec<String>> {
    static MEMBER: LazyLock<Regex> = LazyLock::new(|| {
        grammar(
            "<key>=<value>",
            &[
                ("key", "<first><keychar>{0,255}"),
                ("value", "<chr>{0,255}<nblk-chr>"),
                ("first", "[a-z]|[0-9]"),
                ("keychar", "[a-z]|[0-9]|_|-|[*]|/|@"),
                ("chr", r"\x20|<nblk-chr>"),
                ("nblk-chr", r"[\x21-\x2b]|[\x2d-\x3c]|[\x3e-\x7e]"),
            ],
        )
    });
    let mut members: Vec<String> = Vec::new();
    let mut count = 0;
    for member in list(headers) {
        if member.is_empty() {
            continue;
        }
        if !MEMBER.is_match(&member) {
            return None;
        }
        count += 1;
        let member = String::from_utf8(member).expect("ASCII");
        let key = member.split('=').next();
        if !members.iter().any(|earlier| earlier.split('=').next() == key) {
            members.push(member);
        }
    }
    (count <= 32).then_some(members)
}

/// The members of a list that may be spread over several headers (RFC 9110, 5.3), without the white space around them.
fn list(headers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let combined = headers.join(&b","[..]);
    combined.split(|byte| *byte == b',').map(|it| without_space_around(it).to_vec()).collect()
}

fn without_space_around(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The rules of the grammar of baggage. Those of a token are RFC 7230's, section 3.2.6.
const BAGGAGE: [(&str, &str); 7] = [
    ("list-member", "<key><OWS>=<OWS><value>(?:<OWS>;<OWS><property>)*"),
    ("property", "<key><OWS>=<OWS><value>|<key><OWS>"),
    ("key", "<tchar>+"),
    ("value", "<baggage-octet>*"),
    ("baggage-octet", r"\x21|[\x23-\x2b]|[\x2d-\x3a]|[\x3c-\x5b]|[\x5d-\x7e]"),
    ("tchar", r"[!#$%&'*+.^_`|~-]|[0-9]|[A-Za-z]"),
    ("OWS", OWS),
];

static LIST_MEMBER: LazyLock<Regex> = LazyLock::new(|| grammar("<list-member>", &BAGGAGE));

/// The valid members of the list that all headers make up. One that isn't valid is as if it weren't there, and so is one with
/// which the list that is passed on would have more than 64 members or 8192 bytes. Of those with one key the last counts.
pub fn baggage(headers: &[Vec<u8>]) -> Entries {
    let mut entries = Entries::new();
    let mut lengths = BTreeMap::new();
    for member in list(headers).iter().filter(|member| LIST_MEMBER.is_match(member)) {
        let member = String::from_utf8(member.clone()).expect("ASCII");
        let (pair, properties) = member.split_once(';').unwrap_or((&member, ""));
        let (key, value) = pair.split_once('=').expect("the grammar has it");
        let text = |text: &str| text.trim_matches([' ', '\t']).to_owned();
        let (key, value, properties) = (text(key), percent_decoded(&text(value)), text(properties));
        let length = length(&key, &value, &properties);
        let others =
            lengths.iter().filter(|(other, _)| **other != key).map(|(_, length)| length + 1);
        if others.clone().count() < 64 && others.sum::<usize>() + length <= 8192 {
            lengths.insert(key.clone(), length);
            entries.insert(key, (value, properties));
        }
    }
    entries
}

/// The length of a member that is passed on. What is not a `baggage-octet`, and the percent sign, is percent-encoded.
fn length(key: &str, value: &str, properties: &str) -> usize {
    let plain = |byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    let value = value.bytes().map(|byte| if plain(byte) && byte != b'%' { 1 } else { 3 });
    let properties = if properties.is_empty() { 0 } else { 1 + properties.len() };
    key.len() + 1 + value.sum::<usize>() + properties
}

/// The text of a value: `%` and two hexadecimal digits are a byte, and what isn't UTF-8 becomes U+FFFD.
fn percent_decoded(value: &str) -> String {
    static SEQUENCE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("(?-u)%([0-9A-Fa-f]{2})").expect("a regular expression"));
    let bytes = SEQUENCE.replace_all(value.as_bytes(), |found: &regex::bytes::Captures| {
        let digits = std::str::from_utf8(&found[1]).expect("digits");
        vec![u8::from_str_radix(digits, 16).expect("digits")]
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a header is a `baggage-string` and within the limits that each implementation must support.
pub fn is_baggage_within_limits(header: &[u8]) -> bool {
    let members = list(&[header.to_vec()]);
    members.iter().all(|it| LIST_MEMBER.is_match(it)) && members.len() <= 64 && header.len() <= 8192
}
