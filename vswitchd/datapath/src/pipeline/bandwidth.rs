//! Limits of what a port's pod may send and receive.

use std::sync::Arc;

use super::meter::ByteMeter;
use crate::time::Timestamp;

/// Limits of a port, in bits per second of Ethernet frames; `None` is no limit. Directions are
/// the pod's: ingress is what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bandwidth {
    /// Towards the pod.
    pub ingress_bps: Option<u64>,
    /// From the pod.
    pub egress_bps: Option<u64>,
}

/// The limits with how far each is used. A direction whose rate stays keeps its bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortLimits {
    pub(crate) bandwidth: Bandwidth,
    ingress: Option<Arc<ByteMeter>>,
    egress: Option<Arc<ByteMeter>>,
}

impl PortLimits {
    /// Returns these limits set to others.
    pub(crate) fn set_to(&self, bandwidth: Bandwidth) -> Self {
        let meter = |old: &Option<Arc<ByteMeter>>, was, rate: Option<u64>| {
            let kept = old.clone().filter(|_| was == rate);
            kept.or_else(|| rate.map(|rate| Arc::new(ByteMeter::new(rate))))
        };
        let old = self.bandwidth;
        Self {
            bandwidth,
            ingress: meter(&self.ingress, old.ingress_bps, bandwidth.ingress_bps),
            egress: meter(&self.egress, old.egress_bps, bandwidth.egress_bps),
        }
    }

    /// Returns whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        self.bandwidth == Bandwidth::default()
    }

    /// Returns whether the pod may receive so many bytes more, and counts them if so.
    pub(crate) fn allow_ingress(&self, bytes: u64, now: Timestamp) -> bool {
        let meter = self.ingress.as_ref();
        meter.is_none_or(|meter| meter.allow(bytes, now))
    }

    /// Returns whether the pod may send so many bytes more, and counts them if so.
    pub(crate) fn allow_egress(&self, bytes: u64, now: Timestamp) -> bool {
        let meter = self.egress.as_ref();
        meter.is_none_or(|meter| meter.allow(bytes, now))
    }
}
