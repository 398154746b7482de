//! What was measured, by peer and metric, and its statistics.

use std::collections::BTreeMap;

use crate::fabric::Peer;

/// A figure that a kind of work yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Metric {
    OneStream,
    OneStreamCpu,
    FourStreams,
    FourStreamsCpu,
    Transactions,
    RoundTripMedian,
    RoundTripTail,
    NewConnections,
    NewConnectionFailures,
    Datagrams,
    DatagramsOffered,
    DatagramsCpu,
    Mesh,
    MeshTime,
    MeshFairness,
    MeshFailures,
}

impl Metric {
    /// Every metric, in the order of the report.
    pub(crate) const ALL: [Self; 16] = [
        Self::OneStream,
        Self::OneStreamCpu,
        Self::FourStreams,
        Self::FourStreamsCpu,
        Self::Transactions,
        Self::RoundTripMedian,
        Self::RoundTripTail,
        Self::NewConnections,
        Self::NewConnectionFailures,
        Self::Datagrams,
        Self::DatagramsOffered,
        Self::DatagramsCpu,
        Self::Mesh,
        Self::MeshTime,
        Self::MeshFairness,
        Self::MeshFailures,
    ];

    /// Returns its key in the JSON report.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::OneStream => "tcp_1_stream_gbps",
            Self::OneStreamCpu => "tcp_1_stream_cpu_s_per_gb",
            Self::FourStreams => "tcp_4_streams_gbps",
            Self::FourStreamsCpu => "tcp_4_streams_cpu_s_per_gb",
            Self::Transactions => "request_response_per_s",
            Self::RoundTripMedian => "request_response_p50_us",
            Self::RoundTripTail => "request_response_p99_us",
            Self::NewConnections => "new_connections_per_s",
            Self::NewConnectionFailures => "new_connection_failures",
            Self::Datagrams => "udp_received_per_s",
            Self::DatagramsOffered => "udp_offered_per_s",
            Self::DatagramsCpu => "udp_cpu_s_per_million",
            Self::Mesh => "all_to_all_gbps",
            Self::MeshTime => "all_to_all_s",
            Self::MeshFairness => "all_to_all_slowest_to_fastest",
            Self::MeshFailures => "all_to_all_failures",
        }
    }

    /// Returns its name and unit in the table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::OneStream => "TCP, 1 stream, Gb/s",
            Self::OneStreamCpu => "  CPU seconds per GB",
            Self::FourStreams => "TCP, 4 streams, Gb/s",
            Self::FourStreamsCpu => "  CPU seconds per GB",
            Self::Transactions => "TCP request/response, 1/s",
            Self::RoundTripMedian => "  p50, us",
            Self::RoundTripTail => "  p99, us",
            Self::NewConnections => "new connections, 1/s",
            Self::NewConnectionFailures => "  failed",
            Self::Datagrams => "small UDP received, 1000/s",
            Self::DatagramsOffered => "  offered, 1000/s",
            Self::DatagramsCpu => "  CPU seconds per million",
            Self::Mesh => "all-to-all, Gb/s",
            Self::MeshTime => "  seconds until all have all",
            Self::MeshFairness => "  slowest / fastest pod",
            Self::MeshFailures => "  failed transfers",
        }
    }

    /// Returns a value as the table shows it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Datagrams | Self::DatagramsOffered => format!("{:.0}", value / 1e3),
            Self::Transactions
            | Self::NewConnections
            | Self::NewConnectionFailures
            | Self::MeshFailures => format!("{value:.0}"),
            Self::RoundTripMedian | Self::RoundTripTail => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        }
    }
}

/// Values of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Metric, Peer), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, peer: Peer, metric: Metric, value: f64) {
        self.0.entry((metric, peer)).or_default().push(value);
    }

    /// Returns the values in the order of the rounds.
    pub(crate) fn values(&self, peer: Peer, metric: Metric) -> &[f64] {
        self.0.get(&(metric, peer)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, peer: Peer, metric: Metric) -> Option<f64> {
        median(self.values(peer, metric))
    }

    /// Returns the ratio of the medians of two peers.
    pub(crate) fn ratio(&self, metric: Metric, over: Peer, under: Peer) -> Option<f64> {
        let under = self.median(under, metric)?;
        let ratio = self.median(over, metric)? / under;
        ratio.is_finite().then_some(ratio)
    }
}

/// Returns the middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(high);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_outliers() {
        assert_eq!(median(&[900.0, 2.0, 1.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 900.0, 2.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_ratio_is_that_of_medians_and_needs_both() {
        let mut samples = Samples::default();
        for value in [1.0, 3.0, 100.0] {
            samples.add(Peer::Vswitchd, Metric::OneStream, value);
        }
        assert_eq!(
            samples.ratio(Metric::OneStream, Peer::Vswitchd, Peer::Veth),
            None
        );
        samples.add(Peer::Veth, Metric::OneStream, 2.0);
        assert_eq!(
            samples.ratio(Metric::OneStream, Peer::Vswitchd, Peer::Veth),
            Some(1.5)
        );
        samples.add(Peer::Bridge, Metric::OneStream, 0.0);
        assert_eq!(
            samples.ratio(Metric::OneStream, Peer::Vswitchd, Peer::Bridge),
            None
        );
    }
}
