//! The diagnosis as a program for browsers: a text in, a piece of a page out. The page that runs it is
//! `src/how-to/diagnose.md`, with `theme/diagnose.js`; `build.sh` compiles it.

use traces::case::Case;
use traces::report::{self, Links};

/// The state of the sources that this was compiled from: `tests/browser/book.rs` looks for it.
#[unsafe(no_mangle)]
pub static SOURCES: [u8; 32] = *include_bytes!(concat!(env!("OUT_DIR"), "/sources"));

/// Allocates `length` bytes for a text; [`diagnose`] frees them.
#[unsafe(no_mangle)]
pub extern "C" fn room(length: usize) -> *mut u8 {
    let room: Box<[u8]> = vec![0; length].into_boxed_slice();
    Box::into_raw(room).cast()
}

/// Reads the text in `room` and returns the address of a piece of HTML: its length in four bytes, little-endian, then its
/// bytes. They are never freed.
///
/// # Safety
/// `room` must come from [`room`] with the same `length`, and each room may be used only once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn diagnose(room: *mut u8, length: usize) -> *const u8 {
    // SAFETY: as the caller promises.
    let text = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(room, length)) };
    let page = page(&text);
    let length = u32::try_from(page.len()).unwrap_or_default();
    let answer = [&length.to_le_bytes(), page.as_bytes()].concat();
    Box::leak(answer.into_boxed_slice()).as_ptr()
}

fn page(text: &[u8]) -> String {
    match Case::read(text) {
        Ok(case) => {
            let links = Links { book: Some("../"), span: &|_| None };
            report::case(&case, &links).into_string()
        }
        Err(problem) => report::problem(&problem).into_string(),
    }
}
