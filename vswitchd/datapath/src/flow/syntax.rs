//! Reads match syntax. The text comes from operators and orchestrators and may be anything.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;

use super::display::SHORTHANDS;
use super::{AddressMatch, CtState, CtStateMatch, Match, PortClass, PortRange, SetName};

/// Text that is not a match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchSyntaxError {
    /// No field has this name.
    #[error("{token:?} names no match field")]
    UnknownField {
        /// The token as written.
        token: String,
    },
    /// The field exists, its value is not one.
    #[error("the value in {token:?} is not {expected}")]
    BadValue {
        /// The token as written.
        token: String,
        /// What stands there in a good token.
        expected: &'static str,
    },
    /// The field was demanded before, with another value.
    #[error("{token:?} contradicts an earlier field")]
    Contradiction {
        /// The token as written.
        token: String,
    },
}

/// Splits at the commas (or white space) that stand outside parentheses, leaving out empties.
pub(crate) fn split_fields(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (c == ',' || c.is_whitespace())
    })
    .filter(|token| !token.is_empty())
}

impl FromStr for Match {
    type Err = MatchSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut matches = Self::default();
        for token in split_fields(text) {
            apply(&mut matches, token)?;
        }
        Ok(matches)
    }
}

/// Adds one token's demand to the match.
fn apply(m: &mut Match, token: &str) -> Result<(), MatchSyntaxError> {
    let Some((name, value)) = token.split_once('=') else {
        return shorthand(m, token);
    };
    let field = Field { token, value };
    match name {
        "in_port" => field.set(&mut m.in_port, field.number("a port number")?.map(PortNo)),
        "out_port" => field.set(&mut m.out_port, field.number("a port number")?.map(PortNo)),
        "class" => field.set(
            &mut m.class,
            PortClass::from_name(value).ok_or("a port class"),
        ),
        "dl_src" | "eth_src" => field.set(&mut m.eth_src, field.parse("an Ethernet address")),
        "dl_dst" | "eth_dst" => field.set(&mut m.eth_dst, field.parse("an Ethernet address")),
        "vlan_tci" => vlan(m, &field),
        "dl_type" | "eth_type" => field.set(&mut m.eth_type, field.number("an EtherType")?),
        "nw_proto" | "ip_proto" | "arp_op" => {
            field.set(&mut m.ip_proto, field.number("a number up to 255")?)
        }
        "ip_src" | "nw_src" | "ipv6_src" | "arp_spa" => {
            field.set(&mut m.ip_src, address(name, value))
        }
        "ip_dst" | "nw_dst" | "ipv6_dst" | "arp_tpa" => {
            field.set(&mut m.ip_dst, address(name, value))
        }
        "ip_frag" => field.set(&mut m.is_later_fragment, later_fragment(value)),
        "tp_src" | "tcp_src" | "udp_src" | "sctp_src" | "icmp_type" => {
            field.set(&mut m.tp_src, port_range(value))
        }
        "tp_dst" | "tcp_dst" | "udp_dst" | "sctp_dst" | "icmp_code" => {
            field.set(&mut m.tp_dst, port_range(value))
        }
        "arp_sha" => field.set(&mut m.arp_sha, field.parse("an Ethernet address")),
        "nd_target" => field.set(&mut m.nd_target, field.parse("an IPv6 address")),
        "ct_state" => field.set(&mut m.ct_state, ct_state(value)),
        _ => Err(MatchSyntaxError::UnknownField {
            token: token.to_owned(),
        }),
    }
}

/// One `name=value` token.
struct Field<'a> {
    token: &'a str,
    value: &'a str,
}

impl Field<'_> {
    /// Stores the value unless another is there; `Err` holds what was expected.
    fn set<T: PartialEq>(
        &self,
        slot: &mut Option<T>,
        value: Result<T, &'static str>,
    ) -> Result<(), MatchSyntaxError> {
        let value = value.map_err(|expected| self.bad(expected))?;
        match slot {
            Some(earlier) if *earlier != value => Err(MatchSyntaxError::Contradiction {
                token: self.token.to_owned(),
            }),
            _ => {
                *slot = Some(value);
                Ok(())
            }
        }
    }

    fn parse<T: FromStr>(&self, expected: &'static str) -> Result<T, &'static str> {
        self.value.parse().map_err(|_| expected)
    }

    /// Reads a decimal or 0x number; the outer result is for `?`, the inner for `set`.
    fn number<T: TryFrom<u64>>(
        &self,
        expected: &'static str,
    ) -> Result<Result<T, &'static str>, MatchSyntaxError> {
        match number(self.value).and_then(|n| T::try_from(n).ok()) {
            Some(number) => Ok(Ok(number)),
            None => Err(self.bad(expected)),
        }
    }

    fn bad(&self, expected: &'static str) -> MatchSyntaxError {
        MatchSyntaxError::BadValue {
            token: self.token.to_owned(),
            expected,
        }
    }
}

fn shorthand(m: &mut Match, token: &str) -> Result<(), MatchSyntaxError> {
    let Some((_, ether, proto)) = SHORTHANDS.iter().find(|(name, ..)| *name == token) else {
        return Err(MatchSyntaxError::UnknownField {
            token: token.to_owned(),
        });
    };
    let field = Field { token, value: "" };
    field.set(&mut m.eth_type, Ok(*ether))?;
    match proto {
        Some(proto) => field.set(&mut m.ip_proto, Ok(*proto)),
        None => Ok(()),
    }
}

/// Reads a number in decimal or, after `0x`, in hexadecimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    // from_str_radix alone would take a sign.
    digits
        .bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then_some(())?;
    u64::from_str_radix(digits, radix).ok()
}

fn vlan(m: &mut Match, field: &Field<'_>) -> Result<(), MatchSyntaxError> {
    const EXPECTED: &str = "a tag control word, 0x1000/0x1000 or 0x0000/0x1000";
    match field.value.split_once('/') {
        None => field.set(&mut m.vlan_tci, field.number(EXPECTED)?),
        Some((value, mask)) => match (number(value), number(mask)) {
            (Some(value @ (0 | 0x1000)), Some(0x1000)) => {
                field.set(&mut m.is_tagged, Ok(value != 0))
            }
            _ => Err(field.bad(EXPECTED)),
        },
    }
}

fn address(name: &str, value: &str) -> Result<AddressMatch, &'static str> {
    const EXPECTED: &str = "an address, a network or @SET";
    if let Some(set) = value.strip_prefix('@') {
        return if set.is_empty() {
            Err("the name of an address set behind @")
        } else {
            Ok(AddressMatch::Set(SetName(Arc::from(set))))
        };
    }
    let net = match value.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => value.parse::<IpNet>().map_err(|_| EXPECTED)?.trunc(),
    };
    match (name, net) {
        ("ipv6_src" | "ipv6_dst", IpNet::V4(_)) => Err("an IPv6 address, network or @SET"),
        ("arp_spa" | "arp_tpa", IpNet::V6(_)) => Err("an IPv4 address, network or @SET"),
        _ => Ok(AddressMatch::Net(net)),
    }
}

fn later_fragment(value: &str) -> Result<bool, &'static str> {
    match value {
        "later" => Ok(true),
        "not_later" => Ok(false),
        _ => Err("later or not_later"),
    }
}

fn port_range(value: &str) -> Result<PortRange, &'static str> {
    const EXPECTED: &str = "a number up to 65535 or a range FIRST-LAST";
    let one = |text| {
        number(text)
            .and_then(|n| u16::try_from(n).ok())
            .ok_or(EXPECTED)
    };
    let (first, last) = match value.split_once('-') {
        Some((first, last)) => (one(first)?, one(last)?),
        None => (one(value)?, one(value)?),
    };
    if first <= last {
        Ok(PortRange { first, last })
    } else {
        Err(EXPECTED)
    }
}

/// Reads `+new-rpl+trk`.
fn ct_state(text: &str) -> Result<CtStateMatch, &'static str> {
    const EXPECTED: &str = "a list like +trk+est-rpl of new est rel rpl inv trk snat dnat";
    let mut state = CtStateMatch {
        value: CtState(0),
        mask: CtState(0),
    };
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let is_set = match sign {
            '+' => true,
            '-' => false,
            _ => return Err(EXPECTED),
        };
        rest = rest.get(1..).unwrap_or_default();
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        rest = tail;
        let (flag, _) = CtState::FLAGS
            .into_iter()
            .find(|(_, n)| *n == name)
            .ok_or(EXPECTED)?;
        if state.mask.contains(flag) && state.value.contains(flag) != is_set {
            return Err(EXPECTED);
        }
        state.mask = state.mask | flag;
        if is_set {
            state.value = state.value | flag;
        }
    }
    if state.mask.0 == 0 {
        Err(EXPECTED)
    } else {
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Match {
        text.parse().unwrap()
    }

    #[test]
    fn the_documented_example_parses_to_its_fields() {
        let m = parsed(
            "ip,ct_state=+new+trk,nw_src=10.0.0.0/8,nw_dst=@default/web/pods,tcp,tp_dst=80-90,\
             in_port=3,dl_src=02:00:00:00:00:01",
        );
        assert_eq!(m.eth_type, Some(0x0800));
        assert_eq!(m.ip_proto, Some(6));
        assert_eq!(m.in_port, Some(PortNo(3)));
        assert_eq!(
            m.ip_src,
            Some(AddressMatch::Net("10.0.0.0/8".parse().unwrap()))
        );
        assert_eq!(
            m.ip_dst,
            Some(AddressMatch::Set(SetName("default/web/pods".into())))
        );
        assert_eq!(
            m.tp_dst,
            Some(PortRange {
                first: 80,
                last: 90
            })
        );
        let new_trk = CtState::NEW | CtState::TRK;
        assert_eq!(
            m.ct_state,
            Some(CtStateMatch {
                value: new_trk,
                mask: new_trk
            })
        );
        assert_eq!(
            m.to_string(),
            "ct_state=+new+trk,tcp,in_port=3,dl_src=02:00:00:00:00:01,nw_src=10.0.0.0/8,\
             ip_dst=@default/web/pods,tp_dst=80-90"
        );
    }

    #[test]
    fn errors_name_the_offending_token() {
        for (text, token) in [
            ("tcp,bogus=1", "bogus=1"),
            ("tcpx", "tcpx"),
            ("ip,nw_src=10.0.0.0/33", "nw_src=10.0.0.0/33"),
            ("tcp,udp", "udp"),
            ("tp_dst=90-80", "tp_dst=90-80"),
            ("tp_dst=65536", "tp_dst=65536"),
            ("tp_dst=+1", "tp_dst=+1"),
            ("ct_state=new", "ct_state=new"),
            ("ct_state=+new-new", "ct_state=+new-new"),
            ("ct_state=+é", "ct_state=+é"),
            ("ip_src=@", "ip_src=@"),
            ("in_port=1,in_port=2", "in_port=2"),
            ("ipv6_dst=10.0.0.1", "ipv6_dst=10.0.0.1"),
            ("vlan_tci=5/7", "vlan_tci=5/7"),
        ] {
            let error = text.parse::<Match>().unwrap_err().to_string();
            assert!(error.contains(&format!("{token:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn host_bits_of_a_network_do_not_count() {
        assert_eq!(parsed("nw_src=10.1.2.3/8"), parsed("ip_src=10.0.0.0/8"));
    }

    pub(super) fn any_match() -> impl Strategy<Value = Match> {
        let address = prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, len)| AddressMatch::Net(
                IpNet::new(IpAddr::from(a), len).unwrap().trunc()
            )),
            (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, len)| AddressMatch::Net(
                IpNet::new(IpAddr::from(a), len).unwrap().trunc()
            )),
            "[a-z/0-9.-]{1,12}".prop_map(|name| AddressMatch::Set(SetName(name.as_str().into()))),
        ];
        let range = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange {
            first: a.min(b),
            last: a.max(b),
        });
        let mac = any::<[u8; 6]>().prop_map(vswitch_api::MacAddr);
        let state = (1u8.., any::<u8>()).prop_map(|(mask, value)| CtStateMatch {
            value: CtState(value & mask),
            mask: CtState(mask),
        });
        let option = proptest::option::of::<BoxedStrategy<AddressMatch>>;
        let address = address.boxed();
        (
            proptest::option::of(any::<u32>().prop_map(PortNo)),
            proptest::option::of(proptest::sample::select(&PortClass::ALL[..])),
            proptest::option::of(mac),
            proptest::option::of(any::<u16>()),
            proptest::option::of(any::<bool>()),
            proptest::option::of(prop_oneof![
                proptest::sample::select(vec![0x0800u16, 0x86dd, 0x0806]),
                any::<u16>()
            ]),
            proptest::option::of(prop_oneof![
                proptest::sample::select(vec![1u8, 6, 17, 58, 132]),
                any::<u8>()
            ]),
            (option(address.clone()), option(address)),
            (
                proptest::option::of(range.clone()),
                proptest::option::of(range),
            ),
            proptest::option::of(state),
            proptest::option::of(any::<[u8; 16]>().prop_map(std::net::Ipv6Addr::from)),
        )
            .prop_map(
                |(port, class, mac, tci, flag, ether, proto, ip, tp, ct_state, nd_target)| Match {
                    in_port: port,
                    out_port: port,
                    class,
                    eth_src: mac,
                    eth_dst: mac,
                    vlan_tci: tci,
                    is_tagged: flag,
                    eth_type: ether,
                    ip_proto: proto,
                    ip_src: ip.0,
                    ip_dst: ip.1,
                    is_later_fragment: flag,
                    tp_src: tp.0,
                    tp_dst: tp.1,
                    arp_sha: mac,
                    nd_target,
                    ct_state,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(m in any_match()) {
            let text = m.to_string();
            prop_assert_eq!(text.parse::<Match>(), Ok(m), "{}", text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|([a-z_]{1,8}=[-+@/a-z0-9.:]{0,9},?){0,4}") {
            let _ = text.parse::<Match>();
        }
    }
}
