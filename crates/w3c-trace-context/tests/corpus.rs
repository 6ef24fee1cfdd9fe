//! Runs the corpus of the fuzz targets without a fuzzer, so that what once was found stays found.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod decoders;

#[test]
fn every_input_of_the_corpus_passes_its_decoder() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, decode) in decoders::DECODERS {
        let inputs = fs::read_dir(corpus.join(name)).expect("a folder for each decoder");
        let inputs = Vec::from_iter(inputs.map(|input| input.expect("an input").path()));
        assert!(inputs.len() >= 3, "{name} has a corpus");
        for input in inputs {
            eprintln!("{}", input.display());
            decode(&fs::read(&input).expect("an input"));
        }
    }
}
