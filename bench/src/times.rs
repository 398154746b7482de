//! Sorted durations.

use std::time::Duration;

use serde_json::{Value, json};

/// Sorted times.
#[derive(Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn quantile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let index = (self.0.len() * percent / 100).min(last);
        self.0.get(index).copied().unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        json!({ "p50_us": micros(self.quantile(50)), "p99_us": micros(self.quantile(99)) })
    }

    /// Returns how many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }
}

/// Microseconds, to a hundredth.
pub fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
}
