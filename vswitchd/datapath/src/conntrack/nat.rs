//! Source port translation for connections whose replies would collide with those of others.

use super::Tuple;
use crate::fixed_hash::mix;
use crate::flow::ip_proto;

/// Ports to try: with a tenth of them free, all are taken once in thirty connections.
const TRIES: u64 = 32;
/// Ports below take privileges to bind; a server may trust them for that.
const FIRST: u16 = 1_024;

/// Returns source ports to try in place of a connection's own; none for protocols without
/// ports. `seed` is secret, and so is the order.
pub(super) fn source_ports(original: &Tuple, seed: u64) -> impl Iterator<Item = u16> + use<> {
    let tries = if ip_proto::has_ports(original.proto) {
        TRIES
    } else {
        0
    };
    (0..tries).map(move |nth| {
        let count = u64::from(u16::MAX - FIRST) + 1;
        let port = mix(seed, nth) % count + u64::from(FIRST);
        u16::try_from(port).unwrap_or(FIRST)
    })
}
