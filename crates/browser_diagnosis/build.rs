//! Writes the state of the sources to where `lib.rs` includes it.

include!("sources.rs");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let crates = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("..");
    let crates = crates.canonicalize()?;
    for folder in ["browser_diagnosis", "traces/src", "w3c-trace-context/src"] {
        println!("cargo:rerun-if-changed={}", crates.join(folder).display());
    }
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("sources"), state_of_sources(&crates)?)?;
    Ok(())
}
