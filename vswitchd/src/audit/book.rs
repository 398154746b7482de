//! What would have been denied, by policy, peer and port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_api::PortNo;
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::{Denial, DropReason};

use super::Workload;
use crate::policy::deciding_policies;
use crate::reconcile::ReconciledState;
use crate::state::PodRecord;

/// So many entries are kept; what comes beyond is counted by policy alone.
const MAX_ENTRIES: usize = 10_000;

/// Connections that would have been denied alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditKey {
    /// The policies that would have denied them: one by a rule, or all that isolate.
    pub policies: Vec<String>,
    /// Whether they are for the pods that the policies select, and not from them.
    pub is_ingress: bool,
    /// The pods that the policies select; `None`: see [`AuditPeer::Various`].
    pub subject: Option<Workload>,
    /// The other end.
    pub peer: AuditPeer,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; ICMP type.
    pub number: Option<u16>,
}

/// The other end of such connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditPeer {
    /// Pods.
    Pods(Workload),
    /// An address that no pod has.
    Address(IpAddr),
    /// There were too many others already.
    Various,
}

/// How many there were, and when, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditCounts {
    /// Connections.
    pub connections: u64,
    /// When the first one was judged.
    pub first: u64,
    /// When the last one was.
    pub last: u64,
}

/// What the entries of a book are.
#[derive(Debug, Default)]
pub struct AuditBook {
    entries: BTreeMap<AuditKey, AuditCounts>,
    /// Connections by policy and direction (`true`: ingress), of all that was ever added.
    totals: BTreeMap<(String, bool), u64>,
}

impl AuditBook {
    /// Returns the entries.
    pub fn entries(&self) -> impl Iterator<Item = (&AuditKey, &AuditCounts)> {
        self.entries.iter()
    }

    /// Returns how many connections each policy would have denied in a direction (`true`: ingress),
    /// alone or with others, since the daemon started.
    pub fn totals(&self) -> impl Iterator<Item = (&str, bool, u64)> {
        let totals = self.totals.iter();
        totals.map(|((policy, is_ingress), count)| (policy.as_str(), *is_ingress, *count))
    }

    /// Adds what the datapath noted; `first` and `last` are its times in seconds since 1970.
    pub fn add(&mut self, noted: &Denial, state: &ReconciledState, (first, last): (u64, u64)) {
        let mut key = key(noted, state);
        for policy in &key.policies {
            let total = self.totals.entry((policy.clone(), key.is_ingress));
            *total.or_default() += noted.connections;
        }
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&key) {
            (key.subject, key.peer) = (None, AuditPeer::Various);
            (key.proto, key.number) = (0, None);
        }
        let counts = self.entries.entry(key).or_insert(AuditCounts {
            connections: 0,
            first,
            last,
        });
        counts.connections += noted.connections;
        counts.first = counts.first.min(first);
        counts.last = counts.last.max(last);
    }

    /// Drops what was noted before the policies became what they are, and of policies that are in
    /// audit no longer.
    pub fn tidy(&mut self, state: &ReconciledState) {
        let since = state.cluster.in_audit().map(|key| {
            let since = state.policy_times.get(key);
            (key.to_string(), since.map_or(0, |since| since.time))
        });
        let since: BTreeMap<String, u64> = since.collect();
        self.entries.retain(|key, counts| {
            let newest = key.policies.iter().filter_map(|name| since.get(name)).max();
            newest.is_some_and(|since| counts.last >= *since)
        });
    }
}

fn key(noted: &Denial, state: &ReconciledState) -> AuditKey {
    let policies = deciding_policies(&noted.rules);
    let is_ingress = noted.reason == DropReason::PolicyIngress;
    let Some(of) = noted.of else {
        return AuditKey {
            policies,
            is_ingress,
            subject: None,
            peer: AuditPeer::Various,
            proto: 0,
            number: None,
        };
    };
    let source = pod_at(state, of.ports.0, of.ends.0);
    let destination = pod_at(state, of.ports.1, of.ends.1);
    let (subject, peer, address) = if is_ingress {
        (destination, source, of.ends.0)
    } else {
        (source, destination, of.ends.1)
    };
    let peer = peer.map_or(AuditPeer::Address(address), |pod| {
        AuditPeer::Pods(Workload::of(pod))
    });
    let has_number = [
        ip_proto::TCP,
        ip_proto::UDP,
        ip_proto::SCTP,
        ip_proto::ICMP,
        ip_proto::ICMPV6,
    ];
    AuditKey {
        policies,
        is_ingress,
        subject: subject.map(Workload::of),
        peer,
        proto: of.proto,
        number: has_number.contains(&of.proto).then_some(of.number),
    }
}

/// Returns the pod at an end: that of the port, or, behind the gateway, whose address it is.
pub(crate) fn pod_at(state: &ReconciledState, port: PortNo, address: IpAddr) -> Option<&PodRecord> {
    let attached = state.attachments.get(&port);
    let pod = match attached {
        Some(attachment) => state.cluster.pod(&attachment.pod),
        None => state.cluster.owner_of(address),
    };
    pod.map(AsRef::as_ref)
}
