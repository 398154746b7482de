//! The measured window: it opens after a warm-up and closes by the clock.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use vswitch_bench::cpu::{CpuTime, own_user_seconds};

/// Length of warm-up and window.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WindowArgs {
    /// Milliseconds that do not count, after the first packet.
    #[arg(long)]
    pub(crate) warmup_ms: u64,
    /// Milliseconds that count.
    #[arg(long)]
    pub(crate) window_ms: u64,
}

impl WindowArgs {
    pub(crate) const fn warmup(self) -> Duration {
        Duration::from_millis(self.warmup_ms)
    }

    pub(crate) const fn length(self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

/// An open window.
#[derive(Debug)]
pub(crate) struct Window {
    opened: Instant,
    cpu: CpuTime,
    own: f64,
}

/// What a window cost.
#[derive(Debug)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    pub(crate) cpu: CpuTime,
    /// Seconds in this process's own code.
    pub(crate) own: f64,
}

impl Window {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            cpu: CpuTime::of_machine()?,
            own: own_user_seconds()?,
            opened: Instant::now(),
        })
    }

    pub(crate) fn close(&self) -> Result<Spent> {
        let seconds = self.opened.elapsed().as_secs_f64();
        Ok(Spent {
            seconds,
            cpu: CpuTime::of_machine()? - self.cpu,
            own: own_user_seconds()? - self.own,
        })
    }
}
