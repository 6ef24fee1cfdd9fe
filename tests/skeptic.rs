//! Every Rust block of the book, as rendered, compiles and runs. `build.rs` makes a test of each block, named after the page
//! and the line. The rest checks that this harness can fail.

use std::sync::LazyLock;

include!(concat!(env!("OUT_DIR"), "/blocks.rs"));

/// The generated tests call these functions of skeptic, with a compiler of our own (see `tests/skeptic/rustc.rs`).
mod block {
    use super::*;

    static COMPILER: LazyLock<()> = LazyLock::new(|| {
        // skeptic writes absolute paths into the tests. Cargo reuses a test program after its clone was moved, or when two
        // clones share a target folder, and it would then test the pages of the other folder.
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let again =
            "these blocks are from another folder: run `touch build.rs`, then `cargo test` again";
        assert_eq!(here, env!("CARGO_MANIFEST_DIR"), "{again}");
        // SAFETY: all reading of the environment in this process goes through std, which locks it.
        unsafe { std::env::set_var("RUSTC", env!("CARGO_BIN_EXE_rustc_for_blocks")) };
        // skeptic panics with the whole command line of the compiler, which would bury the compiler's own message.
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload().downcast_ref::<String>();
            let first_line = message.and_then(|text| text.lines().next());
            eprintln!("{}", first_line.unwrap_or("the block failed"));
        }));
    });

    pub fn compile_test(root: &str, out: &str, target: &str, text: &str) {
        LazyLock::force(&COMPILER);
        skeptic::rt::compile_test(root, out, target, text);
    }

    pub fn run_test(root: &str, out: &str, target: &str, text: &str) {
        LazyLock::force(&COMPILER);
        // While another thread starts a process, that process holds for a moment what this one has just written, and
        // the kernel refuses to run it ("Text file busy"). That says nothing about the block: try again.
        for _ in 0..10 {
            let run = || skeptic::rt::run_test(root, out, target, text);
            let Err(panic) = std::panic::catch_unwind(run) else {
                return;
            };
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            if !message.contains("Text file busy") {
                std::panic::resume_unwind(panic);
            }
        }
        panic!("the block could not be started: the file stays busy");
    }
}

/// The harness itself: what it must let pass, and what it must not.
mod harness {
    use super::block;

    fn with(test: fn(&str, &str, &str, &str), code: &str) {
        let text = format!("\n//@ src/page.md 7\n{code}");
        test(env!("CARGO_MANIFEST_DIR"), env!("OUT_DIR"), env!("BLOCK_TARGET"), &text);
    }

    /// `Future` is in the prelude since edition 2024.
    #[test]
    fn a_block_is_compiled_in_the_edition_of_its_readers() {
        let ready = "fn ready() -> impl Future<Output = ()> { async {} }";
        with(block::compile_test, &format!("{ready}\nfn main() {{ drop(ready()); }}"));
    }

    #[test]
    #[should_panic(expected = "Command failed")]
    fn a_block_that_does_not_compile_fails() {
        with(block::compile_test, "fn main() { let number: u32 = \"one\"; drop(number); }");
    }

    #[test]
    #[should_panic(expected = "Command failed")]
    fn a_block_with_a_warning_fails() {
        with(block::compile_test, "fn main() { let unused = 1; }");
    }

    #[test]
    #[should_panic(expected = "Command failed")]
    fn a_block_that_panics_fails() {
        with(block::run_test, "fn main() { panic!(\"on purpose\"); }");
    }
}
