//! Runs the test program where nothing is installed and reads what it reports.
#![cfg(unix)]

use std::env;
use std::io::Write as _;
use std::process::{Command, Output};

use support::root;

/// Runs three tests of this program where nothing is installed.
fn where_nothing_is_installed(ci: bool) -> Output {
    let nothing = tempfile::tempdir().expect("a folder");
    let tests = env::current_exe().expect("a program");
    let mut command = Command::new(tests);
    command
        .args(["--exact", "gates::self_test::every_gate_has_a_fault"])
        .arg("gates::binaries::no_binary_has_a_path_of_the_build")
        .arg("follow_the_book::the_tutorial_works_as_it_is_printed")
        .env("PATH", nothing.path())
        .env_remove("CI");
    if ci {
        command.env("CI", "true");
    }
    command.output().expect("the tests run")
}

#[test]
fn what_is_missing_is_reported_once_and_its_tests_do_not_count_as_passed() {
    let output = where_nothing_is_installed(false);
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reported}");
    let expected = "\
Skipped tests: 2. Missing:
  curl (1): install the package `curl`
  strip (1): install the package `binutils`

";
    assert_eq!(reported, expected);

    let mut log = tempfile::NamedTempFile::new().expect("a file");
    let printed = [output.stdout, output.stderr].concat();
    log.write_all(&printed).expect("written");
    let totals = Command::new(root().join(".ci/totals"))
        .arg(log.path())
        .output()
        .expect("the totals are counted");
    let totals = String::from_utf8_lossy(&totals.stdout);
    assert_eq!(totals, "1 passed, 0 failed, 2 skipped\n");
}

#[test]
fn in_ci_what_is_missing_is_a_failure() {
    let output = where_nothing_is_installed(true);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 passed; 2 failed"), "{printed}");
    let expected = "curl is missing: install the package `curl`";
    assert!(printed.contains(expected), "{printed}");
}
