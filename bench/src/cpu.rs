//! Processor time, as the kernel counts it in `/proc`.

use std::ops::Sub;

use anyhow::{Context as _, Result};

/// The kernel counts in hundredths of a second (`USER_HZ`), whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds of the whole machine since it started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuTime {
    /// Everything but idle, waiting for a disk, and steal.
    pub busy: f64,
    /// Taken by the hypervisor for others.
    pub steal: f64,
}

impl CpuTime {
    /// Reads the first line of `/proc/stat`.
    ///
    /// # Errors
    /// Fails if the file cannot be read or has another form.
    pub fn of_machine() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?)
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().next().unwrap_or_default();
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next();
        let ticks = fields
            .map(str::parse::<f64>)
            .collect::<Result<Vec<_>, _>>()?;
        match (name, ticks.as_slice()) {
            // proc(5): guest time is part of user time already.
            (Some("cpu"), [user, nice, system, _idle, _iowait, irq, softirq, steal, ..]) => {
                Ok(Self {
                    busy: (user + nice + system + irq + softirq) / TICKS_PER_SECOND,
                    steal: steal / TICKS_PER_SECOND,
                })
            }
            _ => anyhow::bail!("/proc/stat starts with {line:?}"),
        }
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            busy: self.busy - earlier.busy,
            steal: self.steal - earlier.steal,
        }
    }
}

/// Returns the seconds that this process spent in its own code, outside the kernel.
///
/// # Errors
/// Fails if `/proc/self/stat` cannot be read or has another form.
pub fn own_user_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in parentheses, may hold spaces; user time is the twelfth field behind it.
    let (_, rest) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has a name")?;
    let ticks = rest.split_ascii_whitespace().nth(11);
    let ticks: f64 = ticks.context("/proc/self/stat has user time")?.parse()?;
    Ok(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_steal_are_not_busy() {
        let earlier = CpuTime::parse("cpu  100 0 200 9000 50 0 0 7 0 0\ncpu0 1").unwrap();
        let later = CpuTime::parse("cpu  150 10 220 9900 90 5 15 27 0 0\ncpu0 1").unwrap();
        let spent = later - earlier;
        assert!((spent.busy - 1.0).abs() < 1e-9, "{spent:?}");
        assert!((spent.steal - 0.2).abs() < 1e-9, "{spent:?}");
    }

    #[test]
    fn another_first_line_is_an_error() {
        CpuTime::parse("intr 1 2 3").unwrap_err();
    }
}
