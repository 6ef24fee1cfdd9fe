//! Whatever is in a file, reading it ends, without a panic and within a bounded amount of memory. `cargo test` tries a few thousand
//! mutations of the files in `cases`; this tries ten million on two threads:
//!
//! ```sh
//! MUTATIONS=5000000 cargo test --release -p traces --test mutations -- --ignored
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

use traces::case::Case;
use traces::report;

/// Counts the memory that each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size() as isize;
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Makes the same mutations in every run.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A file changed in a few places: bytes and values replaced, cut out, doubled, nested, cut off, or taken from another file.
    fn mutate(&mut self, files: &[Vec<u8>]) -> Vec<u8> {
        /// Replacements for the value of a field.
        const VALUES: [&[u8]; 16] = [
            b"null",
            b"{}",
            b"[]",
            b"\"\"",
            b"-1",
            b"1e999",
            b"18446744073709551615",
            b"\"18446744073709551616\"",
            b"true",
            b"[[]]",
            b"{\"low\":-1,\"high\":-1}",
            b"\"9999-99-99T99:99:99.9999999999+99:99\"",
            b"\"\\ud800\"",
            b"1.5",
            b"\"=\"",
            b"\"0x\"",
        ];
        let mut bytes = self.pick(files).clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(64)).min(bytes.len());
            match self.below(9) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                4 => bytes.truncate(end),
                5 => {
                    // The value behind the next colon.
                    let colon = bytes[at..].iter().position(|it| *it == b':');
                    let start = colon.map_or(at, |colon| at + colon + 1);
                    let rest = &bytes[start..];
                    let length = rest.iter().position(|it| b",}]\n".contains(it));
                    let end = start + length.unwrap_or(rest.len());
                    drop(bytes.splice(start..end, self.pick(&VALUES).iter().copied()));
                }
                6 => {
                    let levels = 1 << self.below(12);
                    let (open, close): (&[u8], &[u8]) = *self.pick(&[
                        (&b"["[..], &b"]"[..]),
                        (b"{\"data\":", b"}"),
                        (b"{\"spans\":[", b"]}"),
                    ]);
                    bytes.splice(0..0, open.repeat(levels));
                    bytes.extend(close.repeat(levels));
                }
                7 => {
                    let other = self.pick::<Vec<u8>>(files);
                    let from = self.below(other.len());
                    let to = (from + self.below(512)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                _ => bytes.extend_from_slice(self.pick::<Vec<u8>>(files)),
            }
        }
        bytes
    }
}

/// Texts with headers and without a trace.
const HEADERS: [&str; 6] = [
    "> GET / HTTP/1.1\n> traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n> b3: 0\n",
    "curl -H 'traceparent: ${TP}' \\\n  -H \"uber-trace-id: 4bf92f3577b34da6:1:0:0\" http://x",
    "{\"headers\": {\"traceparent\": [\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\"]}}",
    "INFO x-b3-traceid=4bf92f3577b34da6, x-b3-sampled=1 traceparent=null, x-datadog-trace-id=258",
    "let a = 1;\nfn main() {\n    format!(\"traceparent: 00-{é}-{b}-01\");\n    traceparent: None,\n}",
    "#!/bin/sh\n'traceparent' => '00-' . $a, \"X-Amzn-Trace-Id: Root=1-4bf92f35-77b34da6a3ce929d0e0e4736\"",
];

/// Tries mutations that begin with a number. Returns how many were read as traces.
fn try_mutations(seed: u64, count: usize) -> usize {
    let folder = support::root().join("crates/traces/tests/cases");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("cases").map(|it| it.expect("a file").path()).collect();
    files.sort();
    let files = files.iter().map(|file| fs::read(file).expect("bytes"));
    let files: Vec<Vec<u8>> = files.chain(HEADERS.map(|it| it.as_bytes().to_vec())).collect();
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let mut read = 0;
    for _ in 0..count {
        let bytes = random.mutate(&files);
        let before = HELD.get();
        PEAK.set(before);
        let case = Case::read(&bytes);
        let taken = PEAK.get() - before;
        let packed = bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5]);
        // What is packed may unpack to a thousand times as much.
        let times = if packed { 4000 } else { 400 };
        let limit = (times * bytes.len() + (1 << 20)) as isize;
        assert!(
            taken < limit,
            "{taken} bytes for {}: {}",
            bytes.len(),
            String::from_utf8_lossy(&bytes)
        );
        match case {
            Ok(case) => {
                read += 1;
                drop(report::text(&case, ""));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    read
}

#[test]
fn mutations_of_files_end_within_a_bounded_amount_of_memory() {
    let read = try_mutations(1, 5000);
    assert!(read > 500, "only {read} of 5000 were read as traces");
}

#[test]
#[ignore = "takes minutes"]
fn millions_of_mutations_do_too() {
    let count = std::env::var("MUTATIONS").map_or(1_000_000, |it| it.parse().expect("a number"));
    let seed = std::env::var("SEED").map_or(2, |it| it.parse().expect("a number"));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                let read = try_mutations(seed + thread, count);
                println!("{read} of {count} were read as traces");
            });
        }
    });
}
