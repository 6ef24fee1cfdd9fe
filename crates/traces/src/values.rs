//! Recognises the values in names: texts that are others in every request, such as ids, numbers and addresses.
//!
//! Three places ask. The diagnosis reports values in span names and needs a proof. `expect` replaces what would differ in the next
//! run and keeps what may be a part of the name. `diff` ignores all of them.

use std::net::Ipv4Addr;

/// A part of a name that may be a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    /// The offset at which it begins, in bytes.
    pub start: usize,
    pub text: &'a str,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A number behind `/` or `=`, or one with at least five digits.
    Number,
    /// Another number. It may be a part of the name, as in `retry 3`.
    ShortNumber,
    /// A UUID or another hexadecimal number.
    Id,
    Mail,
    /// An IPv4 address.
    Address,
    /// A port behind a host.
    Port,
    /// A version with three numbers.
    Version,
    /// The generated end of a pod's name, as in `checkout-6d4cf56db6-x7k2p`.
    Pod,
    /// An id or a number with at least four digits behind a prefix, as in `order_10017`. It may be a part of the name, as in
    /// `gpt-4o-2024-08-06`.
    Suffix,
}

/// The characters between the words of a name.
pub(crate) const SEPARATORS: [char; 11] = [' ', '/', '?', '&', '=', ':', ',', '(', ')', '\'', '"'];

/// The characters between the parts of a word.
const INNER: [char; 6] = ['@', '|', '[', ']', '#', ';'];

/// Finds the values in a name, in order.
pub(crate) fn values(name: &str) -> Vec<Value<'_>> {
    let mut values = Vec::new();
    let mut start = 0;
    let mut host_before = false;
    for word in name.split(SEPARATORS) {
        let before = name[..start].chars().next_back();
        // A URL may have a user, which looks like a mail address.
        let in_url = name[..start].rsplit(' ').next().is_some_and(|it| it.contains("://"));
        if !in_url && is_mail(word) {
            values.push(Value { start, text: word, form: Form::Mail });
            host_before = false;
        } else {
            let mut at = start;
            for (index, part) in word.split(INNER).enumerate() {
                let before = before.filter(|_| index == 0);
                let found = value(part, before, host_before);
                let found = found.map(|(from, form)| (at + from, &part[from..], form));
                values.extend(found.map(|(start, text, form)| Value { start, text, form }));
                host_before = is_host(part);
                at += part.len() + 1;
            }
        }
        start += word.len() + 1;
    }
    values
}

/// Returns where the value in a part of a name begins, if it has one. `before` is the character before it.
fn value(part: &str, before: Option<char>, host_before: bool) -> Option<(usize, Form)> {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    if part.is_empty() {
        return None;
    }
    let form = if before == Some(':') && host_before && part.parse::<u16>().is_ok() {
        Form::Port
    } else if digits == part.len() {
        match matches!(before, Some('/' | '=')) || digits >= 5 {
            true => Form::Number,
            false => Form::ShortNumber,
        }
    } else if is_hex(part) && part.len() >= 8 && (digits >= 4 || digits > 0 && part.len() >= 16) {
        Form::Id
    } else if part.parse::<Ipv4Addr>().is_ok() {
        Form::Address
    } else if is_version(part) {
        Form::Version
    } else if let Some(at) = pod(part) {
        return Some((at, Form::Pod));
    } else {
        return suffix(part).map(|at| (at, Form::Suffix));
    };
    Some((0, form))
}

fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains('.')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is an id beyond doubt: a UUID or a long hexadecimal number, or a number that is too long for a port, a postcode
/// or a date.
pub(crate) fn is_id(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_date = text.len() == 8 && (text.starts_with("19") || text.starts_with("20"));
    let long_hex = is_hex(text) && text.len() >= 16 && digits >= 4;
    long_hex || digits == text.len() && text.len() >= 7 && !is_date
}

pub(crate) fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        let top = host.rsplit_once('.').map_or("", |(_, top)| top);
        let is_top = top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_user = user.bytes().any(|byte| byte.is_ascii_alphanumeric());
        is_user && user != "git" && is_top
    })
}

/// Whether a text is a version with three numbers, such as `1.2.3` or `v1.2.3-rc.1`.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = numbers.split('.').collect();
    numbers.len() == 3 && numbers.into_iter().all(is_number)
}

/// Finds the generated end of a pod's name: two parts, of which both have a digit.
fn pod(text: &str) -> Option<usize> {
    let (rest, pod) = text.rsplit_once('-')?;
    let (name, set) = rest.rsplit_once('-')?;
    let is_generated = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        let ordinary = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
        lengths.contains(&part.len())
            && part.bytes().all(ordinary)
            && part.bytes().any(|it| it.is_ascii_digit())
    };
    let generated = !name.is_empty() && is_generated(set, 8..=10) && is_generated(pod, 5..=5);
    generated.then_some(name.len() + 1)
}

/// Finds an id or a number with at least four digits behind `_` or `-`.
fn suffix(text: &str) -> Option<usize> {
    let mut behind = text.match_indices(['_', '-']).map(|(at, _)| at + 1);
    behind.find(|at| {
        let end = &text[*at..];
        is_id(end) || end.len() >= 4 && is_number(end)
    })
}
