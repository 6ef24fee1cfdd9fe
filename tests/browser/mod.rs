//! What a reader sees, mostly in a real browser: the pages of the lab, those of the book that one can try, and the whole
//! book as a site.

mod book;
mod site;
mod viewer;
