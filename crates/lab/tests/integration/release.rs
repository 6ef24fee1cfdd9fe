//! How the lab is packed for a release, and how the action installs it: the scripts in `.github`, run as a workflow runs them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use axum::Router;
use axum::extract::Path as RequestPath;
use axum::http::StatusCode;
use axum::routing::get;
use support::{has, lacks, serve};

/// The system that this test runs on.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const TARGET: &str = "x86_64-unknown-linux-musl";
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const TARGET: &str = "aarch64-unknown-linux-musl";
#[cfg(all(target_os = "macos", target_arch = "x86_64"))]
const TARGET: &str = "x86_64-apple-darwin";
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
const TARGET: &str = "aarch64-apple-darwin";

/// Writes a program that prints its name and its arguments.
fn program(path: &Path, name: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, format!("#!/bin/sh\necho {name} \"$@\"\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// Packs a stand-in for the lab. Returns the archive and its checksum.
fn packed(folder: &Path) -> [Vec<u8>; 2] {
    program(&folder.join("built/lab"), "the-packed-lab");
    let script = support::root().join(".github/release.sh");
    let mut pack = Command::new("bash");
    pack.arg(script).args([TARGET, "built", "packed"]).current_dir(folder);
    let output = pack.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let archive = format!("one-trace-lab-{TARGET}.tar.gz");
    [archive.clone(), archive + ".sha256"]
        .map(|name| fs::read(folder.join("packed").join(name)).expect("a file"))
}

/// Runs the action's script against a server with these files. A stand-in for cargo prints its arguments and installs one for the lab.
async fn install(folder: &Path, files: HashMap<String, Vec<u8>>) -> Output {
    let answer = |RequestPath(path): RequestPath<String>| async move {
        files.get(&path).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let address = serve(Router::new().route("/{*path}", get(answer))).await;
    let cargo = folder.join("cargo/cargo");
    program(&cargo, "cargo");
    let install = "mkdir -p \"$4/bin\"; cp \"$0\" \"$4/bin/lab\"\n";
    fs::write(&cargo, fs::read_to_string(&cargo).expect("a script") + install).expect("written");
    let path = std::env::var("PATH").expect("a path");
    let script = support::root().join(".github/actions/lab/install.sh");
    let mut bash = tokio::process::Command::new("bash");
    bash.arg(script)
        .env("PATH", format!("{}:{path}", folder.join("cargo").display()))
        .env("RELEASES", format!("http://{address}"))
        .env("TO", folder.join("to"))
        .env("GITHUB_PATH", folder.join("path"))
        .env("no_proxy", "*")
        .env_remove("VERSION");
    bash.output().await.expect("it runs")
}

/// The path of an archive, as the manifest gives it to `cargo binstall`.
fn address() -> String {
    let manifest = support::root().join("crates/lab/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("a manifest");
    let url = manifest
        .lines()
        .find_map(|line| line.strip_prefix("pkg-url = \"{ repo }/releases/download/"));
    let url = url.and_then(|url| url.strip_suffix('"')).expect("an address");
    url.replace("{ version }", env!("CARGO_PKG_VERSION")).replace("{ target }", TARGET)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_packed_can_be_installed_if_its_checksum_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let [archive, checksum] = packed(folder.path());
    let address = address();
    let sum = address.clone() + ".sha256";

    let files =
        HashMap::from([(address.clone(), archive.clone()), (sum.clone(), checksum.clone())]);
    let output = install(folder.path(), files).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "the-packed-lab --version\n");
    let path = fs::read_to_string(folder.path().join("path")).expect("the path of later steps");
    assert_eq!(path.trim(), folder.path().join("to/bin").display().to_string());

    // An archive that was changed, and one without a checksum.
    let mut changed = archive.clone();
    changed.push(0);
    for (files, reason) in [
        (HashMap::from([(address.clone(), changed), (sum, checksum)]), "has the checksum"),
        (HashMap::from([(address, archive)]), "has no checksum"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let output = install(folder.path(), files).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stdout);
        has(&printed, ["::error::", reason, "nothing was installed"]);
        lacks(&printed, ["cargo"]);
        assert!(!folder.path().join("to/bin/lab").exists() && !folder.path().join("path").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_program_for_the_system_cargo_installs_the_same_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = install(folder.path(), HashMap::new()).await;
    assert!(output.status.success(), "{output:?}");
    let to = folder.path().join("to").display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let arguments = format!("cargo install --locked --root {to} one-trace-lab@{version}\n");
    has(&String::from_utf8_lossy(&output.stdout), [&arguments, "cargo --version"]);
}
