//! How many Collectors, partitions and terabytes a number of spans needs.

use std::fmt;

/// What a system sends, and what its parts can take. MB, GB and TB count in 1000s.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sizing", about = None, max_term_width = 100)]
pub struct Load {
    /// Of all services, on average
    #[arg(long, value_name = "N")]
    pub spans_per_second: f64,
    /// What parts must take, as times that
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub headroom: f64,
    /// Measured: this system's
    #[arg(long, value_name = "N", default_value_t = 7.0)]
    pub spans_per_trace: f64,
    /// Of OTLP. Measured: this system's
    #[arg(long, value_name = "N", default_value_t = 240.0)]
    pub bytes_per_span: f64,
    /// With gzip. Measured: this system's
    #[arg(long, value_name = "N", default_value_t = 36.0)]
    pub compressed_bytes_per_span: f64,
    /// By tail sampling, from 0 to 1
    #[arg(long, value_name = "N", default_value_t = 0.1)]
    pub kept_share: f64,
    /// As in the sampler's file
    #[arg(long, value_name = "N", default_value_t = 15.0)]
    pub decision_wait_seconds: f64,
    /// Bytes held for one sent. Assumed
    #[arg(long, value_name = "N", default_value_t = 4.0)]
    pub memory_factor: f64,
    /// Assumed: 4 cores of 15,000
    #[arg(long, value_name = "N", default_value_t = 60_000.0)]
    pub collector_spans_per_second: f64,
    /// Of Kafka. Assumed
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    pub partition_mb_per_second: f64,
    /// How long Kafka keeps spans
    #[arg(long, value_name = "N", default_value_t = 24.0)]
    pub kafka_hours: f64,
    /// Of each span, in Kafka and in storage
    #[arg(long, value_name = "N", default_value_t = 3.0)]
    pub copies: f64,
    /// How long traces are stored
    #[arg(long, value_name = "N", default_value_t = 7.0)]
    pub retention_days: f64,
}

/// What [`Load`] needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Size {
    pub busiest_spans_per_second: f64,
    /// From the services to the agents, and again from tier to tier.
    pub network_mb_per_second: f64,
    pub compressed_mb_per_second: f64,
    /// In each tier: two at least, so that one may be down.
    pub collectors: u64,
    /// By each sampler: its `num_traces`.
    pub traces_held: u64,
    /// By each sampler, for these traces alone.
    pub held_gb: f64,
    /// The same number for each sampler, and one at least.
    pub partitions: u64,
    pub kafka_tb: f64,
    pub stored_tb: f64,
}

/// Why a [`Load`] has no [`Size`].
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Unusable {
    #[error("{0} must be a number above zero")]
    NotPositive(&'static str),
    #[error("{0}")]
    OutOfRange(&'static str),
    #[error("that is more than can be counted")]
    TooLarge,
}

/// No system has a billion of anything.
const MOST: f64 = 1e9;

impl Load {
    /// # Errors
    /// When a number is not above zero, a share is none, or the result is absurd.
    pub fn size(&self) -> Result<Size, Unusable> {
        self.check()?;
        let busiest = self.spans_per_second * self.headroom;
        let megabytes = |bytes: f64| busiest * bytes / 1e6;
        let compressed = megabytes(self.compressed_bytes_per_span);
        let collectors = count(busiest / self.collector_spans_per_second)?.max(2);
        let each = busiest * self.decision_wait_seconds / collectors as f64;
        let partitions = count(compressed / self.partition_mb_per_second)?;
        let seconds = |days: f64| days * 24.0 * 60.0 * 60.0;
        let stored = self.spans_per_second * self.kept_share * self.bytes_per_span;
        let queued = self.spans_per_second * self.compressed_bytes_per_span;
        let size = Size {
            busiest_spans_per_second: busiest,
            network_mb_per_second: megabytes(self.bytes_per_span),
            compressed_mb_per_second: compressed,
            collectors,
            traces_held: count(each / self.spans_per_trace)?,
            held_gb: each * self.bytes_per_span * self.memory_factor / 1e9,
            partitions: partitions.div_ceil(collectors) * collectors,
            kafka_tb: queued * seconds(self.kafka_hours / 24.0) * self.copies / 1e12,
            stored_tb: stored * seconds(self.retention_days) * self.copies / 1e12,
        };
        let amounts = [
            size.network_mb_per_second,
            size.held_gb,
            size.kafka_tb,
            size.stored_tb,
        ];
        match amounts.iter().all(|amount| amount.is_finite()) {
            true => Ok(size),
            false => Err(Unusable::TooLarge),
        }
    }

    fn check(&self) -> Result<(), Unusable> {
        for (name, value) in [
            ("spans-per-second", self.spans_per_second),
            ("headroom", self.headroom),
            ("spans-per-trace", self.spans_per_trace),
            ("bytes-per-span", self.bytes_per_span),
            ("compressed-bytes-per-span", self.compressed_bytes_per_span),
            ("kept-share", self.kept_share),
            ("decision-wait-seconds", self.decision_wait_seconds),
            ("memory-factor", self.memory_factor),
            (
                "collector-spans-per-second",
                self.collector_spans_per_second,
            ),
            ("partition-mb-per-second", self.partition_mb_per_second),
            ("kafka-hours", self.kafka_hours),
            ("copies", self.copies),
            ("retention-days", self.retention_days),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Unusable::NotPositive(name));
            }
        }
        if self.kept_share > 1.0 {
            return Err(Unusable::OutOfRange("kept-share must be at most 1"));
        }
        if self.headroom < 1.0 {
            return Err(Unusable::OutOfRange("headroom must be at least 1"));
        }
        Ok(())
    }
}

/// As many as it takes, and one at least.
fn count(needed: f64) -> Result<u64, Unusable> {
    if needed > MOST || needed.is_nan() {
        return Err(Unusable::TooLarge);
    }
    Ok((needed.ceil() as u64).max(1))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busiest = grouped(self.busiest_spans_per_second.ceil() as u64);
        writeln!(f, "the busiest second    {busiest} spans")?;
        let plain = self.network_mb_per_second;
        let gzip = self.compressed_mb_per_second;
        writeln!(
            f,
            "on the network        {plain:.1} MB/s, with gzip {gzip:.1} MB/s"
        )?;
        writeln!(
            f,
            "Collectors            {} in each tier",
            grouped(self.collectors)
        )?;
        let (traces, memory) = (grouped(self.traces_held), self.held_gb);
        writeln!(f, "each sampler holds    {traces} traces in {memory:.2} GB")?;
        let (partitions, disk) = (grouped(self.partitions), self.kafka_tb);
        writeln!(
            f,
            "Kafka                 {partitions} partitions, {disk:.1} TB on disk"
        )?;
        write!(f, "traces stored         {:.1} TB", self.stored_tb)
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
