//! Generates headers: some from the grammars, some valid ones with mutations, some of any bytes. The same seed generates the same.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Returns `true` with a probability of 1 in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn choose<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Returns a small number or, with a probability of 1 in `limit_once_in`, one close to 256.
    fn length(&mut self, limit_once_in: usize) -> usize {
        match self.once_in(limit_once_in) {
            true => 255 + self.below(3),
            false => self.below(9),
        }
    }

    /// `length` characters, mostly of `alphabet`: once in `odd_once_in` any byte.
    fn text(&mut self, length: usize, alphabet: &[u8], odd_once_in: usize) -> Vec<u8> {
        let mut byte = || match self.once_in(odd_once_in) {
            true => self.header_byte(),
            false => self.choose(alphabet),
        };
        (0..length).map(|_| byte()).collect()
    }

    /// A byte that HTTP allows in a header.
    fn header_byte(&mut self) -> u8 {
        match self.below(8) {
            0 => self.choose(b" \t,;=%-\"\\"),
            1 => 0x80 | self.below(0x80) as u8,
            _ => b' ' + self.below(0x5f) as u8,
        }
    }

    fn space(&mut self) -> &'static [u8] {
        self.choose(&[b"" as &[u8], b"", b"", b"", b"", b" ", b"\t", b" \t "])
    }
}

/// For the message of a failure.
pub fn printable(values: &[Vec<u8>]) -> Vec<String> {
    values.iter().map(|value| value.escape_ascii().to_string()).collect()
}

/// Changes some bytes of a valid value.
fn mutate(random: &mut Random, value: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let at = random.below(value.len() + 1);
        match random.below(5) {
            0 => value.insert(at, random.header_byte()),
            1 if at < value.len() => drop(value.remove(at)),
            2 => value.truncate(at),
            3 => {
                let from = random.below(at + 1);
                let repeated = value[from..at].to_vec();
                value.extend(repeated);
            }
            _ if at < value.len() => value[at] = random.header_byte(),
            _ => value.push(random.header_byte()),
        }
    }
}

/// Splits a list in places where it has commas, which says the same, and sometimes anywhere.
fn split(random: &mut Random, list: Vec<u8>) -> Vec<Vec<u8>> {
    let mut values = vec![Vec::new()];
    for byte in list {
        if byte == b',' && random.once_in(6) {
            values.push(Vec::new());
        } else if let Some(value) = values.last_mut() {
            value.push(byte);
        }
    }
    if random.once_in(20) {
        values.insert(random.below(values.len() + 1), Vec::new());
    }
    values
}

const HEX: &[u8] = b"0123456789abcdef";

pub fn traceparents(random: &mut Random) -> Vec<Vec<u8>> {
    let count = match random.below(20) {
        0 => 0,
        1 => 2,
        _ => 1,
    };
    (0..count).map(|_| traceparent(random)).collect()
}

fn traceparent(random: &mut Random) -> Vec<u8> {
    if random.once_in(30) {
        let length = random.below(70);
        return random.text(length, HEX, 2);
    }
    let mut value = random.space().to_vec();
    value.extend(random.choose(&[b"00", b"00", b"00", b"01", b"cc", b"fe", b"ff", b"0a", b"0A"]));
    for length in [32, 16, 2] {
        value.push(b'-');
        let length = if random.once_in(40) { length - 1 + random.below(3) } else { length };
        let digits = if random.once_in(20) { b"0" } else { HEX };
        value.extend(random.text(length, digits, 200));
    }
    if random.once_in(4) {
        value.extend(random.choose(&[
            b"-" as &[u8],
            b"-later",
            b".",
            b"0",
            b"-\xff",
            b"\xff",
            b"\xc3\xa4",
        ]));
        let length = random.below(5);
        value.extend(random.text(length, HEX, 2));
    }
    value.extend(random.space());
    if random.once_in(3) {
        mutate(random, &mut value);
    }
    value
}

pub fn tracestates(random: &mut Random) -> Vec<Vec<u8>> {
    const IN_KEY: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
    const IN_VALUE: &[u8] = b"!\"#$%&'()*+-./09:;<>?@AZ[\\]^_`az{|}~ ";
    if random.once_in(20) {
        let length = random.below(300);
        let list = random.text(length, b"a=1, ", 4);
        return split(random, list);
    }
    // How often something is wrong, so that long lists are valid as often as short ones.
    let odd = random.choose(&[200, 5_000, 1_000_000]);
    // Few different keys make repeated ones.
    let keys = random.choose(&[0, 0, 1, 3, 20]);
    let limit = random.choose(&[20, 5_000]);
    let mut list = Vec::new();
    for n in 0..members(random, 32) {
        if n > 0 {
            list.push(b',');
        }
        list.extend(random.space());
        if random.once_in(15) {
            continue;
        }
        if keys > 0 {
            list.push(b'a' + random.below(keys) as u8);
        } else {
            let length = random.length(limit);
            list.extend(format!("k{n}").into_bytes());
            list.extend(random.text(length.saturating_sub(2), IN_KEY, odd));
        }
        if !random.once_in(odd) {
            list.push(b'=');
        }
        let length = random.length(limit);
        let length = if random.once_in(odd) { 0 } else { length.max(1) };
        list.extend(random.text(length, IN_VALUE, odd));
        if !random.once_in(odd) {
            list.push(b'v');
        }
        list.extend(random.space());
    }
    if random.once_in(4) {
        mutate(random, &mut list);
    }
    split(random, list)
}

/// How many members a list has.
fn members(random: &mut Random, limit: usize) -> usize {
    match random.below(40) {
        0..4 => limit - 1 + random.below(4),
        4 => limit + random.below(3 * limit),
        // As many as the servers' limits of headers let through.
        5 if random.once_in(50) => 1_000,
        _ => random.below(6),
    }
}

const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~059azAZ";
const OCTET: &[u8] = b"!#$&'()*+-./059:<=>?@AZ[]^_`az{|}~%";

pub fn baggage(random: &mut Random) -> Vec<Vec<u8>> {
    if random.once_in(20) {
        let length = random.below(300);
        let list = random.text(length, b"a=1, ;%", 4);
        return split(random, list);
    }
    let odd = random.choose(&[20, 200, 5_000]);
    let keys = random.choose(&[0, 0, 1, 3, 70]);
    // Some lists are near to the limit of bytes.
    let large = random.once_in(60);
    let count = if large { 1 + random.below(5) } else { members(random, 64) };
    let mut list = Vec::new();
    for n in 0..count {
        if n > 0 {
            list.push(b',');
        }
        list.extend(random.space());
        if random.once_in(15) {
            continue;
        }
        if keys > 0 {
            list.extend(format!("k{}", random.below(keys)).into_bytes());
        } else {
            list.extend(format!("k{n}").into_bytes());
            let length = random.below(5);
            list.extend(random.text(length, TOKEN, odd));
        }
        list.extend(random.space());
        if !random.once_in(odd) {
            list.push(b'=');
        }
        list.extend(random.space());
        let length = match large {
            true => random.choose(&[8_180, 4_090, 2_700, 1_360]) + random.below(20),
            false => random.below(8),
        };
        list.extend(random.text(length, OCTET, 10 * odd));
        for _ in 0..random.below(3) {
            list.extend(random.choose(&[
                b"%41" as &[u8],
                b"%e2%82%ac",
                b"%FF",
                b"%F0%9F",
                b"%25",
                b"%2",
                b"%zz",
            ]));
        }
        list.extend(random.space());
        for _ in 0..random.below(6).saturating_sub(3) {
            list.push(b';');
            list.extend(random.space());
            let length = if random.once_in(odd) { 0 } else { 1 + random.below(3) };
            list.extend(random.text(length, TOKEN, odd));
            list.extend(random.space());
            if random.once_in(2) {
                list.push(b'=');
                list.extend(random.space());
                let length = random.below(4);
                list.extend(random.text(length, OCTET, odd));
                list.extend(random.space());
            }
        }
    }
    if random.once_in(4) {
        mutate(random, &mut list);
    }
    split(random, list)
}

/// Keys, values and properties as the API takes them: any text.
pub fn application_baggage(random: &mut Random) -> Vec<(String, String, String)> {
    let large = random.once_in(40);
    let count = if large { 70 } else { random.below(6) };
    let mut text = |length: usize, alphabet: &[u8]| {
        let bytes = random.text(length, alphabet, 20);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut entry = |n: usize| {
        let length = text(1, b"0123456789").parse().unwrap_or(30);
        let key = format!("k{n}{}", text(length % 4, TOKEN));
        let value = text(if large { length * 30 } else { length }, OCTET);
        (key, value, text(2 * length, b"ab=;; \t%\"\n"))
    };
    (0..count).map(&mut entry).collect()
}
