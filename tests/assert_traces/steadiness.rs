//! A sound system is never red, and a broken one never green. `cargo bench --bench expect` does the same 500 times each.

use support::shop::{Fault, Shop};
use trace_expect::Error;

const TIMES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_is_green_and_a_broken_one_red_each_time() {
    let shop = Shop::start().await;
    for (sent, ..) in shop.expect(TIMES, |_| None).await {
        sent.unwrap_or_else(|error| panic!("{error}"));
    }
    let faults = Fault::ALL.len();
    for (sent, fault, _) in shop.expect(TIMES, |index| Some(Fault::ALL[index % faults])).await {
        assert!(matches!(sent, Err(Error::Differs { .. })), "{fault:?}: {sent:?}");
    }
}
