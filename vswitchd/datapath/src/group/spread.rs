//! A group, and the choice of an endpoint for a new connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, GroupId, ServiceAddress};
use crate::fixed_hash::mix;
use crate::flow::FlowKey;

/// A group of endpoints. A clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// What it is for, for people: `namespace/service:port/protocol`.
    pub name: Arc<str>,
    /// Where new connections go; each as likely as the others.
    pub endpoints: Arc<[Endpoint]>,
    /// Addresses and ports that lead here.
    pub entrances: Arc<[ServiceAddress]>,
    /// How long a client keeps its endpoint after its last new connection; `None`: not at all.
    pub affinity: Option<Duration>,
    /// The source that connections get which would go back to where they came from: a pod
    /// must not see packets from itself, nor the node from its own addresses.
    pub hairpin_source: IpAddr,
}

impl Group {
    /// Returns the endpoint for a new connection; `None` if there are none.
    pub(crate) fn select(&self, key: &FlowKey) -> Option<Endpoint> {
        let hash = flow_hash(key);
        let count = u64::try_from(self.endpoints.len()).ok()?;
        // Scales the hash to the count instead of dividing: as even, and cheaper.
        let at = (u128::from(hash) * u128::from(count)) >> 64;
        self.endpoints.get(usize::try_from(at).ok()?).copied()
    }

    /// Returns whether new connections may go there.
    pub(crate) fn has(&self, endpoint: Endpoint) -> bool {
        self.endpoints.contains(&endpoint)
    }
}

/// Hashes what tells connections apart. Without a seed: a client that picks its ports so that
/// all its connections meet at one endpoint gains nothing over connecting there.
fn flow_hash(key: &FlowKey) -> u64 {
    let address = |hash: u64, ip: Option<IpAddr>| match ip {
        Some(IpAddr::V4(ip)) => mix(hash, u64::from(ip.to_bits())),
        Some(IpAddr::V6(ip)) => {
            let bits = ip.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
            let (high, low) = ((bits >> 64) as u64, bits as u64);
            mix(mix(hash, high), low)
        }
        None => hash,
    };
    let ports = u64::from(key.tp_src) << 32 | u64::from(key.tp_dst) << 16;
    let hash = mix(
        address(address(0, key.ip_src), key.ip_dst),
        ports | u64::from(key.ip_proto),
    );
    // Once more: clients take one port after the other, and one round leaves the topmost bits,
    // which choose, nearly alike for neighbours.
    mix(hash, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(number: usize) -> Endpoint {
        let host = u8::try_from(number).unwrap();
        Endpoint {
            ip: IpAddr::from([10, 0, 0, host]),
            port: 8080,
        }
    }

    fn group(endpoints: usize) -> Group {
        Group {
            id: GroupId(7),
            name: "default/web:80/TCP".into(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            entrances: [].into(),
            affinity: None,
            hairpin_source: IpAddr::from([169, 254, 86, 1]),
        }
    }

    fn key(client: u8, port: u16) -> FlowKey {
        FlowKey {
            ip_proto: 6,
            ip_src: Some(IpAddr::from([10, 1, 0, client])),
            ip_dst: Some(IpAddr::from([10, 96, 0, 1])),
            tp_src: port,
            tp_dst: 80,
            ..FlowKey::default()
        }
    }

    /// 100,000 connections as clients make them: few clients, ports in sequence.
    #[test]
    fn connections_spread_evenly_over_the_endpoints() {
        for endpoints in [2, 3, 20, 100] {
            let group = group(endpoints);
            let mut counts = vec![0_u32; endpoints];
            for (client, port) in (0..4).flat_map(|client| (0..25_000).map(move |p| (client, p))) {
                let chosen = group.select(&key(client, 32_768 + port)).unwrap();
                let at = group.endpoints.iter().position(|e| *e == chosen).unwrap();
                counts[at] += 1;
            }
            let mean = 100_000.0 / f64::from(u32::try_from(endpoints).unwrap());
            // Six standard deviations of a fair choice.
            let bound = 6.0 * mean.sqrt();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            println!("{endpoints} endpoints: mean {mean}, {least} to {most}");
            assert!(
                (f64::from(*least) - mean).abs() < bound,
                "{least} of {mean}"
            );
            assert!((f64::from(*most) - mean).abs() < bound, "{most} of {mean}");
        }
    }

    /// Kernels hand out every port, or every other one.
    #[test]
    fn a_few_connections_in_a_row_spread_as_well() {
        let group = group(2);
        for (client, step) in (0..20).flat_map(|client| [(client, 1), (client, 2)]) {
            let ports = (0..32).map(|nth| 40_000 + nth * step);
            let first = ports.filter(|port| {
                let chosen = group.select(&key(client, *port));
                chosen == group.endpoints.first().copied()
            });
            let first = first.count();
            assert!(
                (5..=27).contains(&first),
                "{first} of 32 from {client} by {step}"
            );
        }
    }

    #[test]
    fn a_group_without_endpoints_chooses_none() {
        assert_eq!(group(0).select(&key(0, 1)), None);
    }
}
