//! No program of ours contains the folder that it was built in: after a move it would look for its files there.

use std::fs;
use std::process::Command;

use support::is_missing;

const PROGRAMS: [&str; 5] = ["lab", "course", "api_gateway", "user_service", "llm_service"];

#[tokio::test]
async fn no_binary_has_a_path_of_the_build() {
    if is_missing("strip", "install the package `binutils`") {
        return;
    }
    let folder = support::binaries().await;
    let tests = std::env::current_exe().expect("the program of the tests");
    let programs = PROGRAMS.map(|name| folder.join(name));
    let stripped = tempfile::tempdir().expect("a folder");
    let stripped = stripped.path().join("program");
    let root = support::root();
    let root = root.to_str().expect("text");
    for program in programs.iter().chain([&tests]) {
        // Debug information has the folder, and nothing reads it there.
        let strip = Command::new("strip").arg("-o").args([&stripped, program]).status();
        assert!(strip.expect("strip runs").success());
        let bytes = fs::read(&stripped).expect("a program");
        let found = memchr::memmem::find(&bytes, root.as_bytes());
        let around = found.map(|at| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 80)]));
        assert_eq!(around, None, "{}", program.display());
    }
}
