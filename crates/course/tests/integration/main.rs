//! The course: its checkpoints, the pages that it adds to the lab, and all of it as a process.

mod check;
mod process;
mod site;
