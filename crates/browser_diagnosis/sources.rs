// The state of the sources that `diagnose.wasm` is made of, as 32 bytes of text: included by the build script, which
// writes it into the program, and by the test, which looks for it there.

/// FNV-1a over the names and the texts of all files below `crates/browser_diagnosis`, `crates/traces/src` and
/// `crates/w3c-trace-context/src`.
///
/// # Errors
/// When one of them cannot be read.
pub fn state_of_sources(crates: &std::path::Path) -> std::io::Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![
        crates.join("browser_diagnosis"),
        crates.join("traces/src"),
        crates.join("w3c-trace-context/src"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true if path.ends_with("target") => {}
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for path in files {
        let name = path.strip_prefix(crates).unwrap_or(&path).to_string_lossy();
        let name = name.replace('\\', "/");
        for byte in name.bytes().chain([0]).chain(std::fs::read(&path)?) {
            // A checkout may have other line ends.
            if byte != b'\r' {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    Ok(format!("one-trace source{hash:016x}"))
}
