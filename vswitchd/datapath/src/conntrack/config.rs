//! Limits and timeouts of connection tracking, given once when the table is made.

use std::time::Duration;

/// Limits and timeouts. The defaults are nf_conntrack's (kernel
/// Documentation/networking/nf_conntrack-sysctl.rst) but for connections that one or both sides
/// have closed: nf_conntrack takes an unknown segment for a connection that it forgot too early,
/// we do not, and so keep to RFC 5382 REQ-5. A connection is transitory, for at least 4 minutes,
/// after the FINs of *both* sides; with one FIN it is as good as established, for which the least
/// is 2 hours and 4 minutes. TIME_WAIT and CLOSE are as short as there: nothing is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the sysctls")]
pub struct ConntrackConfig {
    pub max_entries: usize,
    /// Lets TCP segments outside of the window pass; resets still have to be in it.
    pub tcp_be_liberal: bool,
    pub tcp_syn_sent: Duration,
    pub tcp_syn_recv: Duration,
    pub tcp_established: Duration,
    pub tcp_fin_wait: Duration,
    pub tcp_close_wait: Duration,
    pub tcp_last_ack: Duration,
    pub tcp_time_wait: Duration,
    pub tcp_close: Duration,
    pub tcp_unacknowledged: Duration,
    pub udp: Duration,
    pub udp_stream: Duration,
    pub icmp: Duration,
    pub sctp_init: Duration,
    pub sctp_established: Duration,
    pub sctp_shutdown: Duration,
    pub generic: Duration,
    pub fragment: Duration,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            max_entries: 262_144,
            tcp_be_liberal: false,
            tcp_syn_sent: s(120),
            tcp_syn_recv: s(60),
            tcp_established: s(432_000),
            tcp_fin_wait: s(240),
            tcp_close_wait: s(7_440),
            tcp_last_ack: s(240),
            tcp_time_wait: s(120),
            tcp_close: s(10),
            tcp_unacknowledged: s(300),
            udp: s(30),
            udp_stream: s(120),
            icmp: s(30),
            sctp_init: s(60),
            sctp_established: s(432_000),
            sctp_shutdown: s(10),
            generic: s(600),
            fragment: s(30),
        }
    }
}
