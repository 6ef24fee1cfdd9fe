//! How steady `expect` is: 500 requests to a sound system must be green and 500 to a broken one red, beside two busy loops.
//!
//! `cargo bench --bench expect`; behind `--` stands another number of requests.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::shop::{Fault, Shop};
use trace_expect::Error;

#[tokio::main]
async fn main() -> ExitCode {
    let times = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(500);
    let shop = Shop::start().await;
    let mut wrong = 0;
    for is_broken in [false, true] {
        let start = Instant::now();
        let faults = Fault::ALL.len();
        let sent = shop.expect(times, |index| is_broken.then(|| Fault::ALL[index % faults])).await;
        let took = start.elapsed();
        let mut longest = Duration::ZERO;
        let mut right = 0;
        for (sent, fault, took) in sent {
            longest = longest.max(took);
            match (sent, fault) {
                (Ok(()), None) | (Err(Error::Differs { .. }), Some(_)) => right += 1,
                (Ok(()), Some(fault)) => println!("{fault:?} was not seen"),
                (Err(error), _) => println!("{error}"),
            }
        }
        wrong += times - right;
        let (what, colour) = if is_broken { ("broken", "red") } else { ("sound", "green") };
        println!("{what}: {right} of {times} {colour} in {took:.0?}, the longest in {longest:.1?}");
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
