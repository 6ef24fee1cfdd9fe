//! Solutions of the book's exercises that are modules of their own. Those that
//! change a file of the tutorial are that file once more, in `src/bin` and `tests`.

pub mod hang_up;
