//! Finds what is another value in every run: ids, numbers, hosts, ports and versions.

use super::glob::Glob;

/// The pattern that stands for a text with such values in it, or `None` where it has none.
pub fn generalised(text: &str) -> Option<Glob> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut word = String::new();
    let mut before = ' ';
    let mut host_before = false;
    for character in text.chars().map(Some).chain([None]) {
        let separates = character.is_none_or(|it| {
            matches!(
                it,
                ' ' | '/' | '?' | '&' | '=' | ':' | ',' | '(' | ')' | '\'' | '"' | '@' | '|'
            ) || matches!(it, '[' | ']' | '#' | ';')
        });
        if !separates {
            word.extend(character);
            continue;
        }
        let is_port = before == ':' && host_before && word.parse::<u16>().is_ok();
        if is_port || is_value(&word, matches!(before, '/' | '=')) {
            parts.push(std::mem::take(&mut part));
        } else {
            let is_host = word == "localhost" || word.contains('.');
            match suffix(&word) {
                Some(at) => {
                    part.push_str(&word[..at]);
                    parts.push(std::mem::take(&mut part));
                }
                None => part.push_str(&word),
            }
            host_before = is_host;
        }
        if is_address(&word) {
            host_before = true;
        }
        word.clear();
        if let Some(separator) = character {
            part.push(separator);
            before = separator;
        }
    }
    parts.push(part);
    (parts.len() > 1).then(|| Glob::with_gaps(parts))
}

/// Whether a word is a value by its form. `in_path` says that it is a segment of a path, or behind an equals sign.
fn is_value(word: &str, in_path: bool) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_number = !word.is_empty() && digits == word.len();
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_id = is_hex && word.len() >= 8 && digits > 0 && (digits >= 4 || word.len() >= 16);
    is_number && (in_path || word.len() >= 5) || is_id || is_address(word) || is_version(word)
}

fn is_address(word: &str) -> bool {
    word.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether a word is a version with three numbers, such as `1.2.3` or `v1.2.3-rc.1`.
fn is_version(word: &str) -> bool {
    let word = word.strip_prefix('v').unwrap_or(word);
    let numbers = word.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = numbers.split('.').collect();
    let is_number = |it: &&str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(is_number)
}

/// Finds the suffix of a pod, as in `checkout-6d4cf56db6-x7k2p`: two generated parts, of which the first has a digit.
fn suffix(word: &str) -> Option<usize> {
    let (rest, pod) = word.rsplit_once('-')?;
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
