//! Writes the state of the sources to where `lib.rs` includes it.

include!("sources.rs");

fn main() {
    let folder = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo"));
    let crates = folder.parent().expect("the folder of the crates");
    for folder in ["in_browser", "traces"] {
        println!("cargo:rerun-if-changed={}", crates.join(folder).display());
    }
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").expect("cargo"));
    std::fs::write(out.join("sources"), state_of_sources(crates)).expect("written");
}
