// ANCHOR: code
//! The time that a caller waits for the end of a call.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;

/// How long a caller waits, if it says so, and since when.
pub struct Deadline {
    started: Instant,
    time: Option<Duration>,
}

impl Deadline {
    /// Reads `grpc-timeout` of a call that starts now: up to eight digits and a
    /// unit, such as `250m` for 250 milliseconds.
    pub fn of(headers: &HeaderMap) -> Deadline {
        let value = headers.get("grpc-timeout").and_then(|it| it.to_str().ok());
        Deadline {
            started: Instant::now(),
            time: value.and_then(time),
        }
    }

    /// Returns whether nine tenths of the time are over. The caller's clock starts
    /// before the server's, so its hang-up may come a little early.
    pub fn has_passed(&self) -> bool {
        let elapsed = self.started.elapsed();
        self.time.is_some_and(|time| elapsed >= time / 10 * 9)
    }
}

fn time(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u32 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit * number)
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        assert_eq!(time("250m"), Some(Duration::from_millis(250)));
        assert_eq!(time("9000000u"), Some(Duration::from_secs(9)));
        assert_eq!(
            time("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for odd in ["", "S", "1", "1s", "-1S", "123456789S", "1é", "é"] {
            assert_eq!(time(odd), None, "{odd}");
        }
    }
}
