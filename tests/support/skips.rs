//! Tests that need a program this machine lacks. A skipped test passes, as far as libtest knows, so the program of the tests
//! says at its end how many of them were skipped, what they lack, and how to get it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};

/// The tests that lack a program, by the program and how to get it.
#[derive(Default)]
struct Skips(BTreeMap<(String, String), BTreeSet<String>>);

static SKIPS: Mutex<Skips> = Mutex::new(Skips(BTreeMap::new()));

impl Skips {
    fn add(&mut self, test: &str, missing: &str, get: &str) {
        let key = (missing.to_owned(), get.to_owned());
        self.0.entry(key).or_default().insert(test.to_owned());
    }
}

/// `.ci/totals` reads the first line.
impl Display for Skips {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tests: BTreeSet<&String> = self.0.values().flatten().collect();
        writeln!(f, "Skipped tests: {}. Missing:", tests.len())?;
        for ((missing, get), tests) in &self.0 {
            writeln!(f, "  {missing} ({}): {get}", tests.len())?;
        }
        writeln!(f)
    }
}

/// Counts the current test as skipped. The caller still has to return from it. Under `CI=true` this is a failure.
pub fn skipped(missing: &str, get: &str) {
    assert!(!in_ci(), "{missing} is missing: {get}");
    skipped_even_in_ci(missing, get);
}

/// The same, for what a test can do without in CI too.
pub fn skipped_even_in_ci(missing: &str, get: &str) {
    static AT_EXIT: Once = Once::new();
    // SAFETY: `report` is a function of this program, and does not unwind.
    AT_EXIT.call_once(|| unsafe { assert_eq!(libc::atexit(report), 0) });
    // libtest runs each test on a thread that has its name.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let mut skips = SKIPS.lock().unwrap_or_else(PoisonError::into_inner);
    skips.add(test, missing, get);
}

/// Runs after libtest's last line. libtest captures what the print macros write, and not this.
extern "C" fn report() {
    let skips = SKIPS.lock().unwrap_or_else(PoisonError::into_inner);
    // There is nobody left to tell that standard error is closed.
    let _ = std::io::stderr().write_all(skips.to_string().as_bytes());
}

/// Whether this runs where nothing may be missing.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Whether a program that the current test calls is missing. If so, the test counts as skipped.
pub fn is_missing(program: &str, get: &str) -> bool {
    let missing = std::process::Command::new(program).arg("--version").output().is_err();
    if missing {
        skipped(program, get);
    }
    missing
}

/// Whether there is no browser to drive. If so, the current test counts as skipped.
pub fn browser_is_missing() -> bool {
    let get = "install Chromium and ChromeDriver (Debian: chromium-driver)";
    is_missing("chromedriver", get)
}

/// The script of axe-core. Without it, the current test counts as skipped.
pub fn axe() -> Option<String> {
    let axe = super::root().join("target/sdks/node_modules/axe-core/axe.min.js");
    let script = std::fs::read_to_string(axe).ok();
    if script.is_none() {
        skipped("axe-core", "run `bash tests/sdks/install.sh`");
    }
    script
}

#[test]
fn a_test_that_lacks_two_programs_is_counted_once() {
    let mut skips = Skips::default();
    skips.add("first", "curl", "install `curl`");
    skips.add("first", "jq", "install `jq`");
    skips.add("second", "jq", "install `jq`");
    skips.add("second", "jq", "install `jq`");
    let expected = "\
Skipped tests: 2. Missing:
  curl (1): install `curl`
  jq (2): install `jq`

";
    assert_eq!(skips.to_string(), expected);
}
