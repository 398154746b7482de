//! ICMP and ICMPv6: queries and their answers are connections, errors belong to the connection
//! that they quote, and nothing else is tracked.

use crate::flow::ip_proto;

/// Queries and the type of their answers (RFC 792, RFC 950).
const QUERIES_V4: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
/// The same of ICMPv6 (RFC 4443 section 4, RFC 4620).
const QUERIES_V6: [(u8, u8); 2] = [(128, 129), (139, 140)];

fn queries(proto: u8) -> &'static [(u8, u8)] {
    match proto {
        ip_proto::ICMP => &QUERIES_V4,
        ip_proto::ICMPV6 => &QUERIES_V6,
        _ => &[],
    }
}

/// Returns whether messages of this type start a connection.
pub(super) fn is_query(proto: u8, icmp_type: u8) -> bool {
    queries(proto).iter().any(|&(query, _)| query == icmp_type)
}

/// Returns the type that answers a query, or the query that an answer is for.
pub(super) fn counterpart(proto: u8, icmp_type: u8) -> Option<u8> {
    queries(proto)
        .iter()
        .find_map(|&(query, answer)| match icmp_type {
            t if t == query => Some(answer),
            t if t == answer => Some(query),
            _ => None,
        })
}

/// Returns the types that a quoted ICMP message may have had: a quote keeps the identifier, the
/// types are tried in turn. Other protocols have one "type", zero.
pub(super) fn quotable_types(proto: u8) -> impl Iterator<Item = u8> {
    let one = queries(proto).is_empty().then_some(0);
    one.into_iter().chain(
        queries(proto)
            .iter()
            .flat_map(|&(query, answer)| [query, answer]),
    )
}
