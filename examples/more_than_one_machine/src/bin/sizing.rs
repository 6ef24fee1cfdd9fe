//! Prints what a number of spans per second needs; `--help` says what is assumed.

use clap::Parser as _;
use clap::error::ErrorKind;
use more_than_one_machine::Load;

fn main() {
    match Load::parse().size() {
        Ok(size) => println!("{size}"),
        Err(error) => {
            let error =
                clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
            error.exit()
        }
    }
}
