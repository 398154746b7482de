//! The ratios that are required, and whether they are met.

use anyhow::{Result, bail};

use crate::fabric::Peer;
use crate::samples::{Metric, Samples};

/// Which side of the limit is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// Open vSwitch over AF_PACKET, with and without TSO: the better one is compared with.
const OVS_USERSPACE: &[Peer] = &[Peer::OvsTso, Peer::Ovs];

/// A required ratio of vswitchd's median to that of the best of some peers.
#[derive(Debug)]
struct Required {
    metric: Metric,
    peers: &'static [Peer],
    limit: Limit,
}

const fn required(metric: Metric, peers: &'static [Peer], limit: Limit) -> Required {
    Required {
        metric,
        peers,
        limit,
    }
}

const REQUIRED: [Required; 11] = [
    required(Metric::OneStream, &[Peer::OvsTso], Limit::AtLeast(1.5)),
    required(Metric::OneStream, &[Peer::Veth], Limit::AtLeast(0.8)),
    required(Metric::OneStream, &[Peer::Calico], Limit::AtLeast(0.9)),
    required(Metric::FourStreams, &[Peer::OvsTso], Limit::AtLeast(1.5)),
    required(Metric::FourStreams, &[Peer::Veth], Limit::AtLeast(0.8)),
    required(Metric::FourStreams, &[Peer::Calico], Limit::AtLeast(0.9)),
    required(Metric::RoundTripMedian, OVS_USERSPACE, Limit::AtMost(0.4)),
    required(Metric::RoundTripMedian, &[Peer::Veth], Limit::AtMost(2.0)),
    required(Metric::NewConnections, OVS_USERSPACE, Limit::AtLeast(1.5)),
    required(Metric::Datagrams, OVS_USERSPACE, Limit::AtLeast(1.2)),
    required(Metric::Datagrams, &[Peer::Bridge], Limit::AtLeast(0.9)),
];

/// What became of a required ratio.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) metric: Metric,
    /// The peer compared with; the best of those that were measured.
    pub(crate) peer: Peer,
    pub(crate) limit: Limit,
    /// `None` if vswitchd, or every one of the peers, was not measured.
    pub(crate) measured: Option<f64>,
}

impl Bar {
    /// Returns whether it was measured and met.
    pub(crate) fn is_met(&self) -> bool {
        self.measured.is_some_and(|ratio| match self.limit {
            Limit::AtLeast(limit) => ratio >= limit,
            Limit::AtMost(limit) => ratio <= limit,
        })
    }

    /// Returns the verdict as the report words it.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(_) if self.is_met() => "ok",
            Some(_) => "missed",
        }
    }
}

/// Compares what was measured with what is required.
pub(crate) fn judge(samples: &Samples) -> Vec<Bar> {
    REQUIRED
        .iter()
        .map(|required| judge_one(required, samples))
        .collect()
}

fn judge_one(required: &Required, samples: &Samples) -> Bar {
    let ratio = |peer: Peer| samples.ratio(required.metric, Peer::Vswitchd, peer);
    let measured = required
        .peers
        .iter()
        .filter_map(|&peer| ratio(peer).map(|ratio| (peer, ratio)));
    // The best peer is the one that vswitchd compares worst with.
    let hardest = match required.limit {
        Limit::AtLeast(_) => measured.min_by(|(_, a), (_, b)| a.total_cmp(b)),
        Limit::AtMost(_) => measured.max_by(|(_, a), (_, b)| a.total_cmp(b)),
    };
    Bar {
        metric: required.metric,
        peer: hardest.map_or(required.peers[0], |(peer, _)| peer),
        limit: required.limit,
        measured: hardest.map(|(_, ratio)| ratio),
    }
}

/// Fails unless every bar is met: one that was not measured is not met.
///
/// # Errors
/// Counts those that are not.
pub(crate) fn ensure_passed(bars: &[Bar]) -> Result<()> {
    let missed = bars.iter().filter(|bar| !bar.is_met()).count();
    if missed > 0 {
        bail!("{missed} of {} required ratios are not met", bars.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bar is met with room: vswitchd is as fast as a veth, the others half as fast.
    fn good() -> Samples {
        let mut samples = Samples::default();
        for peer in [
            Peer::Veth,
            Peer::Bridge,
            Peer::Calico,
            Peer::OvsTso,
            Peer::Ovs,
            Peer::Vswitchd,
        ] {
            let speed = if matches!(peer, Peer::Veth | Peer::Vswitchd) {
                10.0
            } else {
                5.0
            };
            for metric in Metric::ALL {
                samples.add(peer, metric, speed);
            }
        }
        for peer in OVS_USERSPACE {
            for _ in 0..2 {
                samples.add(*peer, Metric::RoundTripMedian, 100.0);
            }
        }
        samples
    }

    fn with(peer: Peer, metric: Metric, value: f64) -> Samples {
        let mut samples = good();
        // Three of four values: the median follows.
        for _ in 0..3 {
            samples.add(peer, metric, value);
        }
        samples
    }

    #[test]
    fn a_fast_switch_passes() {
        ensure_passed(&judge(&good())).unwrap();
    }

    #[test]
    fn each_bar_that_is_missed_fails_the_gate() {
        let slow = [
            (Metric::OneStream, 7.9),
            (Metric::FourStreams, 7.4),
            (Metric::RoundTripMedian, 40.1),
            (Metric::NewConnections, 7.4),
            (Metric::Datagrams, 5.9),
        ];
        for (metric, value) in slow {
            let bars = judge(&with(Peer::Vswitchd, metric, value));
            ensure_passed(&bars).unwrap_err();
            for bar in bars.iter().filter(|bar| !bar.is_met()) {
                assert_eq!((bar.metric, bar.verdict()), (metric, "missed"));
            }
        }
    }

    #[test]
    fn the_better_of_both_userspace_peers_is_compared_with() {
        let bars = judge(&with(Peer::Ovs, Metric::NewConnections, 9.0));
        let bar = bars
            .iter()
            .find(|bar| bar.metric == Metric::NewConnections)
            .unwrap();
        assert_eq!((bar.peer, bar.verdict()), (Peer::Ovs, "missed"));
        let bars = judge(&with(Peer::Ovs, Metric::RoundTripMedian, 20.0));
        let bar = &bars[6];
        assert_eq!((bar.peer, bar.verdict()), (Peer::Ovs, "missed"));
    }

    #[test]
    fn what_was_not_measured_fails_the_gate() {
        let bars = judge(&Samples::default());
        assert!(bars.iter().all(|bar| bar.verdict() == "not measured"));
        ensure_passed(&bars).unwrap_err();
    }
}
