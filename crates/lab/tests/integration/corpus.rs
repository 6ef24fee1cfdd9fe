//! Runs the corpus of the fuzz targets without a fuzzer, so that what once was found stays found.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::root;

#[path = "../../fuzz/src/lib.rs"]
mod decoders;

#[test]
fn every_input_of_the_corpus_passes_its_decoder() {
    // A panic in a task fails no test by itself.
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        report(panic);
    }));
    let fuzz = root().join("crates/lab/fuzz");
    let mut names = BTreeSet::new();
    for (name, decode) in decoders::DECODERS {
        names.insert(name.to_owned());
        let inputs =
            fs::read_dir(fuzz.join("corpus").join(name)).expect("a folder for each decoder");
        let inputs = Vec::from_iter(inputs.map(|input| input.expect("an input").path()));
        assert!(inputs.len() >= 3, "{name} has a corpus");
        for input in inputs {
            let bytes = fs::read(&input).expect("an input");
            assert!(bytes.len() <= 4096, "{} is small", input.display());
            decode(&bytes);
            assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{}", input.display());
        }
    }
    let targets = fs::read_dir(fuzz.join("fuzz_targets")).expect("targets");
    let targets = targets.map(|target| target.expect("a target").path());
    let targets = targets.map(|it| it.file_stem().expect("a name").to_string_lossy().into_owned());
    assert_eq!(names, targets.collect(), "a target for each decoder");
}
