//! A live trace under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vswitch_api::PortNo;
use vswitch_datapath::live_trace::{LiveTrace, TracedPacket};
use vswitch_datapath::{Timestamp, TooManyWatchers, Watcher};

use super::limits::TraceLimits;
use crate::clock;
use crate::switch::{Described, Switch, Watch};

/// How often it is looked whether a packet has come.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How often who listens hears that the trace goes on.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// What a session has to tell.
#[derive(Debug)]
pub enum Heard {
    /// A packet came.
    Packet {
        /// When, in nanoseconds since 1970.
        unix_nanos: u64,
        /// What happened to it.
        packet: Box<TracedPacket>,
    },
    /// None came for a while.
    Nothing,
    /// It is over.
    Ended {
        /// Why.
        why: Ended,
        /// Packets that there was no room for.
        lost: u64,
    },
}

/// Why a live trace ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As many packets have come as were wanted.
    Count,
    /// Its time is over.
    Time,
    /// The port is gone.
    PortGone,
    /// The daemon stops.
    Stopping,
}

impl Ended {
    /// Returns the name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Time => "time",
            Self::PortGone => "port_gone",
            Self::Stopping => "stopping",
        }
    }
}

/// A live trace under way.
#[derive(Debug)]
pub struct LiveTraceSession {
    switch: Arc<Switch>,
    trace: Arc<LiveTrace>,
    /// Ends the trace when it is dropped.
    _watch: Watch,
    limits: TraceLimits,
    stop: watch::Receiver<bool>,
    /// Nanoseconds from 1970 to when the switch's clock began.
    epoch: u64,
    began: Timestamp,
    heard: u64,
    is_over: bool,
}

impl LiveTraceSession {
    /// Begins a trace: the packets that are decided on from then on are in it.
    ///
    /// # Errors
    /// [`TooManyWatchers`].
    pub async fn begin(
        switch: Arc<Switch>,
        described: Described,
        limits: TraceLimits,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, TooManyWatchers> {
        let Described { flow, port } = described;
        let trace = Arc::new(LiveTrace::new(port, flow, limits.packets));
        let watcher = Watcher::LiveTrace(Arc::clone(&trace));
        let watch = Watch::begin(Arc::clone(switch.datapath()), watcher).await?;
        let began = switch.clock().now();
        Ok(Self {
            trace,
            _watch: watch,
            limits,
            stop,
            epoch: clock::unix_nanos().saturating_sub(began.as_nanos()),
            began,
            heard: 0,
            is_over: false,
            switch,
        })
    }

    /// Returns the port of which every packet is looked at.
    #[must_use]
    pub fn port(&self) -> PortNo {
        self.trace.port()
    }

    /// Returns what there is to tell next; `None` behind the end.
    pub async fn next(&mut self) -> Option<Heard> {
        if self.is_over {
            return None;
        }
        let quiet_since = self.switch.clock().now();
        loop {
            // Looked at before the packets: what came until then is told.
            let ended = self.ended();
            if let Some(packet) = self.trace.next() {
                self.heard += 1;
                let unix_nanos = self.epoch.saturating_add(packet.time.as_nanos());
                return Some(Heard::Packet { unix_nanos, packet });
            }
            if let Some(why) = ended {
                self.is_over = true;
                let lost = self.trace.lost();
                return Some(Heard::Ended { why, lost });
            }
            if self.switch.clock().now().since(quiet_since) >= KEEP_ALIVE_EVERY {
                return Some(Heard::Nothing);
            }
            // An error means that the daemon is gone, which is seen as well.
            let stopped = self.stop.wait_for(|stopped| *stopped);
            let _is_stopping = tokio::time::timeout(LOOK_EVERY, stopped).await;
        }
    }

    fn ended(&self) -> Option<Ended> {
        if *self.stop.borrow() || self.stop.has_changed().is_err() {
            Some(Ended::Stopping)
        } else if self.heard + self.trace.lost() >= self.limits.packets.into() {
            Some(Ended::Count)
        } else if self.switch.clock().now().since(self.began) >= self.limits.time {
            Some(Ended::Time)
        } else {
            let is_there = self.switch.workers().has_port(self.trace.port());
            (!is_there).then_some(Ended::PortGone)
        }
    }
}
