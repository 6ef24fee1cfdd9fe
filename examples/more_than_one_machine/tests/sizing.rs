//! The sizing against numbers worked out by hand, and what must hold for all loads.

use clap::{CommandFactory as _, Parser as _};
use more_than_one_machine::{Load, Size, Unusable};
use proptest::prelude::*;

fn load(spans_per_second: f64) -> Load {
    Load {
        spans_per_second,
        ..Load::parse_from(["sizing", "--spans-per-second=1"])
    }
}

#[test]
fn by_hand() {
    let load = Load {
        spans_per_second: 100_000.0,
        headroom: 2.0,
        spans_per_trace: 10.0,
        bytes_per_span: 500.0,
        compressed_bytes_per_span: 100.0,
        kept_share: 0.1,
        decision_wait_seconds: 10.0,
        memory_factor: 4.0,
        collector_spans_per_second: 60_000.0,
        partition_mb_per_second: 5.0,
        kafka_hours: 10.0,
        copies: 3.0,
        retention_days: 10.0,
    };
    let size = load.size().expect("a size");
    // Sums of such numbers are not exact.
    let rounded = |number: f64| (number * 1e9).round() / 1e9;
    let size = Size {
        kafka_tb: rounded(size.kafka_tb),
        stored_tb: rounded(size.stored_tb),
        ..size
    };
    let by_hand = Size {
        busiest_spans_per_second: 200_000.0,
        network_mb_per_second: 100.0,
        compressed_mb_per_second: 20.0,
        // 200,000 / 60,000 = 3.3
        collectors: 4,
        // 200,000 spans/s for 10 s, in traces of 10, by 4
        traces_held: 50_000,
        // 500,000 spans of 500 bytes, four times
        held_gb: 1.0,
        // 20 MB/s at 5 each
        partitions: 4,
        // 100,000 * 100 bytes * 36,000 s * 3
        kafka_tb: 1.08,
        // 10,000 * 500 bytes * 864,000 s * 3
        stored_tb: 12.96,
    };
    assert_eq!(size, by_hand);
}

#[test]
fn what_is_no_load_is_refused_with_its_name() {
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, -0.0] {
        let refused = load(wrong).size();
        assert_eq!(refused, Err(Unusable::NotPositive("spans-per-second")));
    }
    let (mut share, mut headroom) = (load(1.0), load(1.0));
    share.kept_share = 1.1;
    headroom.headroom = 0.5;
    for refused in [share.size(), headroom.size()] {
        assert!(matches!(refused, Err(Unusable::OutOfRange(_))));
    }
    for absurd in [1e15, f64::MAX] {
        assert_eq!(load(absurd).size(), Err(Unusable::TooLarge));
    }
}

/// Any value for each option of the command line.
fn any_load() -> impl Strategy<Value = Load> {
    let command = Load::command();
    let options = command
        .get_opts()
        .map(|it| it.get_long().expect("a long name"));
    let options: Vec<String> = options.map(str::to_owned).collect();
    let value = prop_oneof![any::<f64>(), 1e-3..1e9f64];
    proptest::collection::vec(value, options.len()).prop_map(move |values| {
        let options = options.iter().zip(values);
        let options = options.map(|(name, value)| format!("--{name}={value}"));
        Load::try_parse_from(["sizing".to_owned()].into_iter().chain(options))
            .expect("a load")
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_what_has_a_size_has_a_finite_one(load in any_load()) {
        if let Ok(size) = load.size() {
            prop_assert!(size.stored_tb.is_finite() && size.held_gb.is_finite());
            prop_assert!(size.network_mb_per_second.is_finite());
            let _ = size.to_string();
        }
    }

    #[test]
    fn there_is_enough_of_everything(spans in 1.0..1e8f64) {
        // Sums of such numbers are not exact.
        const CLOSE: f64 = 1.0 + 1e-9;
        let load = load(spans);
        let size = load.size().expect("a size");
        let busiest = spans * load.headroom;
        let collectors = size.collectors as f64 * CLOSE;
        prop_assert!(collectors * load.collector_spans_per_second >= busiest);
        let capacity = size.partitions as f64 * load.partition_mb_per_second;
        prop_assert!(capacity * CLOSE >= size.compressed_mb_per_second);
        prop_assert_eq!(size.partitions % size.collectors, 0);
        let held = size.traces_held as f64 * collectors * load.spans_per_trace;
        prop_assert!(held >= busiest * load.decision_wait_seconds);
    }

    #[test]
    fn more_spans_never_need_less(spans in 1.0..1e8f64, more in 1.0..10.0f64) {
        let (less, more) = (load(spans).size(), load(spans * more).size());
        let (less, more) = (less.expect("a size"), more.expect("a size"));
        prop_assert!(less.collectors <= more.collectors);
        prop_assert!(less.kafka_tb <= more.kafka_tb);
        prop_assert!(less.stored_tb <= more.stored_tb);
    }
}
