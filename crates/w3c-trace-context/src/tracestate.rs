//! The header `tracestate`: a list of `KEY=VALUE`, one for each tracing system that the request came through.

use std::iter::Copied;
use std::slice;

use crate::trim;

/// The most members that a list may have (TC list).
const MAX_MEMBERS: usize = 32;

/// The members of a valid list, in order.
pub struct Members<'a> {
    members: [(&'a str, &'a str); MAX_MEMBERS],
    count: usize,
}

impl<'a> Members<'a> {
    /// The members of all headers together; `None` if one of them is invalid or there are more than 32, because a list is
    /// used whole or not at all. Empty members are allowed and don't count. Of two members with one key both count, and the
    /// first is kept, because it is the later in time (TC Combined Header Value).
    pub fn parse(headers: &[&'a str]) -> Option<Members<'a>> {
        let mut list = Members { members: [("", ""); MAX_MEMBERS], count: 0 };
        // A number per key rules out most duplicates without comparing the keys again.
        let mut seen = [0; MAX_MEMBERS];
        let mut repeated = 0;
        for member in headers.iter().flat_map(|header| header.split(',')) {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            if !is_key(key) || !is_value(value) {
                return None;
            }
            let print = fingerprint(key);
            let mut known = seen[..list.count].iter().zip(&list.members);
            if known.any(|(other, (name, _))| *other == print && *name == key) {
                // It counts too.
                repeated += 1;
                continue;
            }
            *list.members.get_mut(list.count)? = (key, value);
            seen[list.count] = print;
            list.count += 1;
        }
        if list.count + repeated > MAX_MEMBERS {
            return None;
        }
        Some(list)
    }
}

impl<'m, 'a> IntoIterator for &'m Members<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = Copied<slice::Iter<'m, Self::Item>>;

    fn into_iter(self) -> Self::IntoIter {
        self.members[..self.count].iter().copied()
    }
}

/// The list as one header.
pub fn format<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)> + Copy) -> String {
    let lengths = members.into_iter().map(|(key, value)| key.len() + value.len() + 2);
    let length = lengths.sum();
    let mut header = String::with_capacity(length);
    for (key, value) in members {
        if !header.is_empty() {
            header.push(',');
        }
        header.push_str(key);
        header.push('=');
        header.push_str(value);
    }
    header
}

/// 1 to 256 of `a-z0-9_-*/@`, of which the first is a letter or a digit (TC Key).
fn is_key(key: &str) -> bool {
    let first = key.as_bytes().first();
    first.is_some_and(u8::is_ascii_alphanumeric) && key.len() <= 256 && all(key, IN_KEY)
}

/// Different for most keys that differ: their length and last characters.
fn fingerprint(key: &str) -> u32 {
    let last = key.bytes().rev().take(3);
    last.fold(0, |number, byte| number << 8 | u32::from(byte)) << 8 | (key.len() as u32 & 0xff)
}

/// 1 to 256 printable characters but `,` and `=`. Spaces at its end are not part of it, and are gone by now
/// (TC Value).
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && all(value, IN_VALUE)
}

const IN_KEY: u8 = 1;
const IN_VALUE: u8 = 2;

/// For each byte, the places it is allowed in.
static PLACES: [u8; 256] = {
    let mut places = [0; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        if !matches!(byte, b',' | b'=') {
            places[byte as usize] |= IN_VALUE;
        }
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@') {
            places[byte as usize] |= IN_KEY;
        }
        byte += 1;
    }
    places
};

/// Whether all characters may stand in `place`. Looks at each, which is faster than to stop at the first that may not.
fn all(text: &str, place: u8) -> bool {
    text.bytes().fold(place, |places, byte| places & PLACES[usize::from(byte)]) != 0
}
