//! Who watches packets: captures, live traces and probes that are under way.

use std::sync::Arc;

use vswitch_api::PortNo;

use super::capture::Capture;
use super::live_trace::LiveTrace;
use super::probe::Probe;
use crate::conntrack::Tuple;

/// Captures that may be under way at once: each costs every packet of its port a second walk through
/// the tables, and some megabytes.
pub const MAX_CAPTURES: usize = 4;

/// Live traces that may be under way at once, for the same reason.
pub const MAX_LIVE_TRACES: usize = 4;

/// Probes that may be under way at once: they are for people, who wait for the answer.
pub const MAX_PROBES: usize = 8;

/// So many of a kind are under way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{most} {kind} are under way, and no more at once: wait until one has ended")]
pub struct TooManyWatchers {
    most: usize,
    kind: &'static str,
}

/// Somebody who watches packets.
#[derive(Debug, Clone)]
pub enum Watcher {
    /// Copies of all packets of a port.
    Capture(Arc<Capture>),
    /// What the tables say of packets of a description.
    LiveTrace(Arc<LiveTrace>),
    /// Answers to a packet of the switch's own.
    Probe(Arc<Probe>),
}

/// Everybody who watches.
#[derive(Debug, Clone, Default)]
pub(super) struct Watchers {
    pub(super) captures: Vec<Arc<Capture>>,
    pub(super) traces: Vec<Arc<LiveTrace>>,
    pub(super) probes: Vec<Arc<Probe>>,
}

impl Watchers {
    /// Adds one, if there is room for it.
    pub(super) fn add(&mut self, watcher: &Watcher) -> Result<(), TooManyWatchers> {
        match watcher {
            Watcher::Capture(capture) => add(&mut self.captures, capture, MAX_CAPTURES, "captures"),
            Watcher::LiveTrace(trace) => {
                add(&mut self.traces, trace, MAX_LIVE_TRACES, "live traces")
            }
            Watcher::Probe(probe) => add(&mut self.probes, probe, MAX_PROBES, "probes"),
        }
    }

    /// Takes one out; returns whether it was there.
    pub(super) fn remove(&mut self, watcher: &Watcher) -> bool {
        match watcher {
            Watcher::Capture(capture) => remove(&mut self.captures, capture),
            Watcher::LiveTrace(trace) => remove(&mut self.traces, trace),
            Watcher::Probe(probe) => remove(&mut self.probes, probe),
        }
    }

    /// Returns whether there are any.
    pub(super) fn is_any(&self) -> bool {
        !(self.captures.is_empty() && self.traces.is_empty() && self.probes.is_empty())
    }

    /// Returns the ports of which every packet is watched.
    pub(super) fn ports(&self) -> Arc<[PortNo]> {
        let captured = self.captures.iter().map(|capture| capture.port());
        let traced = self.traces.iter().map(|trace| trace.port());
        captured.chain(traced).collect()
    }

    /// Returns whether the connection with this original tuple is a probe's.
    pub(super) fn has_probe(&self, original: &Tuple) -> bool {
        self.probes.iter().any(|probe| probe.tuple() == original)
    }
}

fn add<T>(
    all: &mut Vec<Arc<T>>,
    one: &Arc<T>,
    most: usize,
    kind: &'static str,
) -> Result<(), TooManyWatchers> {
    if all.len() >= most {
        return Err(TooManyWatchers { most, kind });
    }
    all.push(Arc::clone(one));
    Ok(())
}

fn remove<T>(all: &mut Vec<Arc<T>>, one: &Arc<T>) -> bool {
    let before = all.len();
    all.retain(|other| !Arc::ptr_eq(other, one));
    all.len() < before
}
