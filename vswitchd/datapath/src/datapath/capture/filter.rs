//! Which packets of a port are captured: a few words of pcap-filter(7), all of which must hold.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::flow::{FlowKey, ether_type, ip_proto};

/// Longest filter in bytes: a few addresses.
const MAX_LEN: usize = 1_024;

/// What of a packet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    EtherType(u16),
    Protocol(u8),
    /// Of either family.
    Icmp,
    Net(IpNet),
    Port(u16),
    Dropped,
}

/// Terms that must all hold: `tcp and host 10.0.0.1 and port 80`. Without any, every packet passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureFilter {
    terms: Vec<Term>,
}

/// Why a filter cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word that means nothing.
    #[error(
        "filter: {word:?} is none of tcp, udp, sctp, icmp, arp, ip, ip6, dropped, host ADDRESS, net NETWORK, \
         port NUMBER, joined by `and`"
    )]
    UnknownWord {
        /// As given.
        word: String,
    },
    /// The word behind `host`, `net` or `port` is not what that takes.
    #[error("filter: {word:?} behind `{term}` is not {wanted}")]
    WrongValue {
        /// The word before.
        term: &'static str,
        /// As given.
        word: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The filter ends where something has to follow.
    #[error("filter: {wanted} is missing behind `{word}`")]
    Missing {
        /// The last word.
        word: &'static str,
        /// What should follow.
        wanted: &'static str,
    },
    /// Longer than anybody writes.
    #[error("filter: {len} bytes are more than {MAX_LEN}")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

impl FromStr for CaptureFilter {
    type Err = FilterError;

    /// Parses words; `and` between terms may be left out, as in `tcp port 80`.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_LEN {
            return Err(FilterError::TooLong { len: text.len() });
        }
        let mut words = text.split_whitespace();
        let mut terms = Vec::new();
        let mut is_joined = false;
        while let Some(word) = words.next() {
            if word == "and" && !terms.is_empty() && !is_joined {
                is_joined = true;
                continue;
            }
            terms.push(term(word, &mut words)?);
            is_joined = false;
        }
        if is_joined {
            let (word, wanted) = ("and", "a term");
            return Err(FilterError::Missing { word, wanted });
        }
        Ok(Self { terms })
    }
}

fn term<'a>(word: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<Term, FilterError> {
    Ok(match word {
        "tcp" => Term::Protocol(ip_proto::TCP),
        "udp" => Term::Protocol(ip_proto::UDP),
        "sctp" => Term::Protocol(ip_proto::SCTP),
        "icmp" => Term::Icmp,
        "arp" => Term::EtherType(ether_type::ARP),
        "ip" => Term::EtherType(ether_type::IPV4),
        "ip6" => Term::EtherType(ether_type::IPV6),
        "dropped" => Term::Dropped,
        "host" => Term::Net(value::<IpAddr>("host", "an address", rest)?.into()),
        "net" => Term::Net(value("net", "a network (10.0.0.0/8)", rest)?),
        "port" => Term::Port(value("port", "a port number", rest)?),
        word => {
            let word = word.to_owned();
            return Err(FilterError::UnknownWord { word });
        }
    })
}

fn value<'a, T: FromStr>(
    term: &'static str,
    wanted: &'static str,
    rest: &mut impl Iterator<Item = &'a str>,
) -> Result<T, FilterError> {
    let word = term;
    let given = rest.next().ok_or(FilterError::Missing { word, wanted })?;
    given.parse().map_err(|_| FilterError::WrongValue {
        term,
        word: given.to_owned(),
        wanted,
    })
}

impl CaptureFilter {
    /// Returns whether a packet passes; one that could not be parsed does where nothing is asked of
    /// what it could not be parsed for.
    #[must_use]
    pub fn admits(&self, key: Option<&FlowKey>) -> bool {
        self.terms.iter().all(|term| match (term, key) {
            (Term::Dropped, _) => true,
            (_, None) => false,
            (term, Some(key)) => term.holds(key),
        })
    }

    /// Returns whether only what the switch drops passes.
    #[must_use]
    pub fn only_dropped(&self) -> bool {
        self.terms.contains(&Term::Dropped)
    }
}

impl Term {
    fn holds(self, key: &FlowKey) -> bool {
        // In ARP the protocol field holds the operation.
        let is_ip = matches!(key.eth_type, ether_type::IPV4 | ether_type::IPV6);
        match self {
            Self::EtherType(eth_type) => key.eth_type == eth_type,
            Self::Protocol(proto) => is_ip && key.ip_proto == proto,
            Self::Icmp => is_ip && ip_proto::is_icmp(key.ip_proto),
            Self::Net(net) => [key.ip_src, key.ip_dst]
                .iter()
                .flatten()
                .any(|ip| net.contains(ip)),
            Self::Port(port) => {
                let has_ports = is_ip && ip_proto::has_ports(key.ip_proto);
                has_ports && !key.is_later_fragment && [key.tp_src, key.tp_dst].contains(&port)
            }
            Self::Dropped => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(proto: u8, ports: (u16, u16)) -> FlowKey {
        FlowKey {
            eth_type: ether_type::IPV4,
            ip_proto: proto,
            ip_src: Some([10, 0, 0, 1].into()),
            ip_dst: Some([10, 0, 1, 2].into()),
            tp_src: ports.0,
            tp_dst: ports.1,
            ..FlowKey::default()
        }
    }

    fn admits(filter: &str, key: &FlowKey) -> bool {
        filter.parse::<CaptureFilter>().unwrap().admits(Some(key))
    }

    #[test]
    fn a_packet_passes_if_all_terms_hold() {
        let http = key(ip_proto::TCP, (40_000, 80));
        for passes in [
            "",
            "tcp",
            "port 80",
            "port 40000",
            "host 10.0.0.1",
            "net 10.0.1.0/24",
            "ip and tcp and host 10.0.1.2 and port 80",
            "tcp port 80",
        ] {
            assert!(admits(passes, &http), "{passes}");
        }
        for fails in [
            "udp",
            "icmp",
            "arp",
            "ip6",
            "port 81",
            "host 10.0.0.3",
            "net 10.1.0.0/16",
            "tcp and port 81",
        ] {
            assert!(!admits(fails, &http), "{fails}");
        }
    }

    #[test]
    fn numbers_of_other_fields_are_no_ports_and_no_protocols() {
        // Type and code of ICMP, and the operation of ARP, stand where ports and protocol do.
        assert!(!admits("port 8", &key(ip_proto::ICMP, (8, 0))));
        assert!(admits("icmp", &key(ip_proto::ICMPV6, (135, 0))));
        let arp = FlowKey {
            eth_type: ether_type::ARP,
            ..key(ip_proto::ICMP, (0, 0))
        };
        assert!(!admits("icmp", &arp));
        assert!(admits("arp and host 10.0.1.2", &arp));
    }

    #[test]
    fn what_cannot_be_parsed_passes_where_nothing_is_asked_of_it() {
        for (filter, passes) in [("", true), ("dropped", true), ("dropped and tcp", false)] {
            let filter: CaptureFilter = filter.parse().unwrap();
            assert_eq!(filter.admits(None), passes, "{filter:?}");
        }
    }

    #[test]
    fn an_error_names_the_word() {
        let error = |text: &str| text.parse::<CaptureFilter>().unwrap_err().to_string();
        for (filter, named) in [
            ("tcp and prot 80", "\"prot\""),
            ("tcp or udp", "\"or\""),
            ("and tcp", "\"and\""),
            ("tcp and and udp", "\"and\""),
            ("host client", "\"client\" behind `host` is not an address"),
            ("port 65536", "\"65536\" behind `port` is not a port number"),
            ("net 10.0.0.0/33", "\"10.0.0.0/33\""),
            ("port", "a port number is missing behind `port`"),
            ("tcp and", "a term is missing behind `and`"),
        ] {
            assert!(error(filter).contains(named), "{filter}: {}", error(filter));
        }
        assert!(error(&"tcp ".repeat(300)).contains("1200 bytes"));
    }
}
