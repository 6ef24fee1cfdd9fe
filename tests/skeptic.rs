//! Every Rust block of the book, as rendered, compiles and runs: one test each, made by `build.rs`, and named after
//! the page and the line of the block. The rest checks that this harness can fail.

use std::sync::LazyLock;

include!(concat!(env!("OUT_DIR"), "/blocks.rs"));

/// What the generated tests call: skeptic, with a compiler of our own (see `tests/skeptic/rustc.rs`).
mod block {
    use super::*;

    static COMPILER: LazyLock<()> = LazyLock::new(|| {
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
        skeptic::rt::run_test(root, out, target, text);
    }
}
